package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postern/internal/config"
	"postern/internal/listen"
	"postern/internal/testenv"
)

// running is a program in this process, with signals of its own.
type running struct {
	t       *testing.T
	signals chan os.Signal
	status  chan int
	out     testenv.Buffer
	err     testenv.Buffer
}

// run starts a program. It stays the user that the test is.
func run(t *testing.T, p Program, args ...string) *running {
	t.Helper()
	return runStd(t, p, Std{}, args...)
}

// runStd is run with more of an outside.
func runStd(t *testing.T, p Program, std Std, args ...string) *running {
	t.Helper()
	if p.Name == "" {
		p.Name = "example"
	}
	if p.Settings == nil {
		p.Settings = &exampleSettings{}
	}
	r := &running{t: t, signals: make(chan os.Signal), status: make(chan int, 1)}
	args = append([]string{"--user", "root", "--allow-root", "--log", "stderr", "--log-level", "debug"}, args...)
	std.Stdout, std.Stderr, std.Signals = &r.out, &r.err, r.signals
	go func() { r.status <- Main(p, args, std) }()
	return r
}

func (r *running) send(sig os.Signal) {
	r.t.Helper()
	sent := testenv.Go(r.t, fmt.Sprintf("somebody who takes %v", sig), func() error { r.signals <- sig; return nil })
	sent.Wait()
}

func (r *running) wait(want int, text string) {
	r.t.Helper()
	status := testenv.Receive(r.t, "the end of the daemon", r.status)
	if status != want || !strings.Contains(r.err.String(), text) {
		r.t.Errorf("status %d, want %d and %q in\n%s", status, want, text, r.err.String())
	}
}

// untilDone is a Serve that drains at once.
func untilDone(ctx context.Context, env *Env) error {
	env.Ready()
	<-ctx.Done()
	return nil
}

// hang is a Serve that never drains.
func hang(t *testing.T) func(ctx context.Context, env *Env) error {
	end := make(chan struct{})
	t.Cleanup(func() { close(end) })
	return func(ctx context.Context, env *Env) error {
		env.Ready()
		<-end
		return nil
	}
}

func TestDrain(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		r := run(t, Program{Serve: untilDone})
		r.send(sig)
		r.wait(0, "msg=stopped")
	}
}

func TestDrainWaits(t *testing.T) {
	drained := make(chan struct{})
	r := run(t, Program{Serve: func(ctx context.Context, env *Env) error {
		<-ctx.Done()
		<-drained
		return ctx.Err() // means nothing more than that it was told to end
	}}, "--drain-timeout", "0")
	r.send(syscall.SIGTERM)
	testenv.NotYet(t, "the end, before the drain is over", r.status)
	close(drained)
	r.wait(0, "msg=stopped")
}

// TestReadyTooLate: who is told to end before it serves does not say that it does.
func TestReadyTooLate(t *testing.T) {
	r := run(t, Program{Serve: func(ctx context.Context, env *Env) error {
		<-ctx.Done()
		env.Ready()
		return nil
	}})
	r.send(syscall.SIGTERM)
	r.wait(0, "msg=stopped")
	if strings.Contains(r.err.String(), "msg=ready") {
		t.Errorf("it says that it is ready:\n%s", r.err.String())
	}
}

// TestTakeOverWantedEarly: a take-over that is wanted before there is anything to take over begins then.
func TestTakeOverWantedEarly(t *testing.T) {
	goOn := make(chan struct{})
	r := run(t, Program{Serve: func(ctx context.Context, env *Env) error {
		<-goOn
		env.Ready()
		<-ctx.Done()
		return nil
	}})
	r.send(syscall.SIGUSR2)
	r.send(syscall.SIGUSR2) // the first one was read now
	close(goOn)
	// The test's own program does not take over, but it is started.
	testenv.Eventually(t, "the other process was started, in vain", func() bool { return strings.Contains(r.err.String(), "no take-over") })
	if log := r.err.String(); !strings.Contains(log, "another process is to take over") || strings.Index(log, "msg=ready") > strings.Index(log, "another process") {
		t.Errorf("not begun when it was ready:\n%s", log)
	}
	r.send(syscall.SIGTERM)
	r.wait(0, "msg=stopped")
}

func TestDrainTimeout(t *testing.T) {
	r := run(t, Program{Serve: hang(t)}, "--drain-timeout", "50ms")
	r.send(syscall.SIGTERM)
	r.wait(0, "drain took too long") // as the settings want it
}

func TestSecondSignal(t *testing.T) {
	r := run(t, Program{Serve: hang(t)})
	r.send(syscall.SIGTERM)
	r.send(syscall.SIGINT)
	r.wait(1, "second signal")
}

// TestAtOnce: a program that can is told to end when a drain is cut short, and is waited for.
func TestAtOnce(t *testing.T) {
	for _, tt := range []struct {
		name   string
		limit  string
		again  bool // a second signal
		status int
		text   string
	}{
		{"second signal", "0", true, 1, "second signal"},
		{"drain-timeout", "50ms", false, 0, "drain took too long"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			now, ended := make(chan struct{}), false
			r := run(t, Program{
				Serve: func(ctx context.Context, env *Env) error {
					<-now
					ended = true
					return nil
				},
				AtOnce: func() { close(now) },
			}, "--drain-timeout", tt.limit)
			r.send(syscall.SIGTERM)
			if tt.again {
				r.send(syscall.SIGTERM)
			}
			r.wait(tt.status, tt.text)
			if !ended {
				t.Error("it was not waited for")
			}
		})
	}
}

// TestSignalTable: a program may say what each signal does.
func TestSignalTable(t *testing.T) {
	got := make(chan string, 1)
	r := run(t, Program{
		Signals: map[os.Signal]Action{
			syscall.SIGQUIT: Drain, syscall.SIGINT: Reload, syscall.SIGHUP: Do(func() { got <- "reopened" }),
		},
		Serve: func(ctx context.Context, env *Env) error {
			for {
				select {
				case <-ctx.Done():
					got <- context.Cause(ctx).Error()
					return nil
				case sig := <-env.Hangup:
					got <- sig.String()
				}
			}
		},
	})
	for _, tt := range []struct {
		sig  syscall.Signal
		want string
	}{{syscall.SIGHUP, "reopened"}, {syscall.SIGINT, "interrupt"}, {syscall.SIGTERM, ""}, {syscall.SIGUSR2, ""}, {syscall.SIGQUIT, "SIGQUIT"}} {
		r.send(tt.sig)
		if tt.want == "" {
			continue
		}
		if text := testenv.Receive(t, "what "+tt.sig.String()+" does", got); text != tt.want {
			t.Errorf("%v: %q, want %q", tt.sig, text, tt.want)
		}
	}
	r.wait(0, "msg=stopped")
	if strings.Contains(r.err.String(), "take-over") {
		t.Errorf("SIGUSR2 does something:\n%s", r.err.String())
	}
}

// TestListenersOfOpen: those that Open adds are watched, and closed in the end, as the others are.
func TestListenersOfOpen(t *testing.T) {
	socket := filepath.Join(testenv.ShortDir(t), "s")
	r := run(t, Program{
		Open: func(env *Env) (err error) {
			env.Listeners, err = listen.Open([]listen.Request{{Name: "a", Specs: []string{socket}}}, env.Log)
			return err
		},
		Serve: func(ctx context.Context, env *Env) error {
			if _, watched := env.Listeners["a"][0].(*acceptLoop); !watched {
				return errors.New("it is not watched")
			}
			return untilDone(ctx, env)
		},
	})
	r.send(syscall.SIGTERM)
	r.wait(0, "msg=stopped")
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Errorf("it was left: %v", err)
	}
}

func TestServeEnds(t *testing.T) {
	r := run(t, Program{Serve: func(context.Context, *Env) error { return errors.New("socket is gone") }})
	r.wait(1, `msg=failed error="socket is gone"`)
	r = run(t, Program{Serve: func(context.Context, *Env) error { return nil }})
	r.wait(0, "msg=stopped")
	// Without a signal a cancelled context is an error like any other.
	r = run(t, Program{Serve: func(context.Context, *Env) error { return context.Canceled }})
	r.wait(1, "context canceled")
}

// A panic is logged with its trace, and what was made at the start is removed.
func TestPanic(t *testing.T) {
	dir := testenv.ShortDir(t)
	pid, socket := filepath.Join(dir, "pid"), filepath.Join(dir, "s")
	r := run(t, Program{
		Listeners: func() []listen.Request { return []listen.Request{{Name: "a", Specs: []string{socket}}} },
		Serve:     func(context.Context, *Env) error { panic("out of cheese") },
	}, "--pidfile", pid)
	r.wait(1, `error="panic: out of cheese"`)
	if !strings.Contains(r.err.String(), "daemon_test.go:") {
		t.Errorf("no trace in\n%s", r.err.String())
	}
	for _, path := range []string{pid, socket} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s was left: %v", path, err)
		}
	}
}

func TestHangup(t *testing.T) {
	got := make(chan string)
	r := run(t, Program{
		Serve: func(ctx context.Context, env *Env) error {
			env.Ready()
			for {
				select {
				case <-ctx.Done():
					return nil
				case sig := <-env.Hangup:
					env.Ready()
					got <- "hangup " + sig.String()
				}
			}
		},
	})
	for range 2 {
		r.send(syscall.SIGHUP)
		if text := testenv.Receive(t, "a hangup", got); text != "hangup hangup" {
			t.Errorf("got %q", text)
		}
	}
	r.send(syscall.SIGTERM)
	r.wait(0, "")
}

// Signals that nobody reads do not stop the ones that matter.
func TestUnreadSignals(t *testing.T) {
	r := run(t, Program{Serve: untilDone})
	for range 32 {
		r.send(syscall.SIGHUP)
		r.send(syscall.SIGPIPE)
	}
	r.send(syscall.SIGTERM)
	r.wait(0, "")
}

// Two servers fit in one process.
func TestTwo(t *testing.T) {
	dir := testenv.ShortDir(t)
	var all []*running
	for _, name := range []string{"one", "two"} {
		p := exampleDaemon()
		p.Name = name
		all = append(all, run(t, p, "--hello", filepath.Join(dir, name), "--pidfile", filepath.Join(dir, name+".pid")))
	}
	for _, name := range []string{"one", "two"} {
		testenv.Eventually(t, "an answer", func() bool {
			text, _ := dial(filepath.Join(dir, name))
			return text == "hello\n"
		})
	}
	for _, r := range all {
		r.send(syscall.SIGTERM)
		r.wait(0, "msg=drained")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestPidFileInUse(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	first := run(t, Program{Serve: untilDone}, "--pidfile", pid)
	testenv.Eventually(t, "the first one", func() bool { return strings.Contains(first.err.String(), "msg=ready") })
	run(t, Program{Serve: untilDone}, "--pidfile", pid).wait(1, "another copy is running")
	first.send(syscall.SIGTERM)
	first.wait(0, "")
}

func TestUsageStatus(t *testing.T) {
	run(t, Program{Serve: untilDone}, "--nonsense").wait(config.ExitUsage, "error: unknown flag --nonsense")
	run(t, Program{Serve: untilDone}, "--nonsense").wait(config.ExitUsage, "hint: ")
}

func TestCheck(t *testing.T) {
	fail := func(text string) func() error {
		return func() error {
			if text == "" {
				return nil
			}
			return errors.New(text)
		}
	}
	tests := []struct {
		name   string
		check  string
		spec   string
		args   []string
		status int
		want   string
	}{
		{"right", "", "/run/s", []string{"--count", "7"}, 0, ""},
		{"listener", "", "inet:none", nil, 78, `example: error: listener a: socket specification "inet:none"`},
		{"program's own", "key file is missing", "/run/s", nil, 78, "example: error: key file is missing"},
		{"facility", "", "/run/s", []string{"--syslog-facility", "x"}, 78, "example: error: syslog-facility: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := run(t, Program{
				Check:     fail(tt.check),
				Listeners: func() []listen.Request { return []listen.Request{{Name: "a", Specs: []string{tt.spec}}} },
				Open:      func(*Env) error { t.Error("opened"); return nil },
				Serve:     func(context.Context, *Env) error { t.Error("served"); return nil },
			}, append(tt.args, "--check")...)
			r.wait(tt.status, tt.want)
			for _, want := range []string{"# example, settings file: none\n", "allow-root", "# command line\n", "drain-timeout", "30s", "# default\n"} {
				if !strings.Contains(r.out.String(), want) {
					t.Errorf("no %q in\n%s", want, r.out.String())
				}
			}
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	for flag, want := range map[string]string{"--help": "--drain-timeout=TIME", "--version": "example (postern) "} {
		r := run(t, Program{Serve: untilDone}, flag)
		r.wait(0, "")
		if !strings.Contains(r.out.String(), want) || r.err.String() != "" {
			t.Errorf("%s: output %q, errors %q", flag, r.out.String(), r.err.String())
		}
	}
}

func TestCommands(t *testing.T) {
	type settings struct {
		Common
		Serve struct{} `cmd:"" default:"1" hidden:""`
		Show  struct {
			What string `help:"What."`
		} `cmd:"" help:"Shows something."`
	}
	s := &settings{}
	p := Program{
		Settings: s, Serve: untilDone,
		Commands: map[string]func(io.Writer, io.Writer) int{"show": func(stdout, stderr io.Writer) int {
			fmt.Fprintln(stdout, s.Show.What, s.DrainTimeout, s.SyslogTag, s.Pidfile)
			return 3
		}},
	}
	r := run(t, p, "--pidfile", "/x", "show", "--what", "all")
	r.wait(3, "")
	if got := r.out.String(); got != "all 30s example /x\n" {
		t.Errorf("output %q", got)
	}
	p.Settings = &settings{}
	r = run(t, p)
	r.send(syscall.SIGTERM)
	r.wait(0, "msg=stopped")
}
