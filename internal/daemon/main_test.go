package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"postern/internal/listen"
	"postern/internal/logging"
	"postern/internal/testenv"
)

// childVariable makes the test binary a daemon, the one that the tests look at
// from outside.
const childVariable = "DAEMON_TEST_CHILD"

// childStarts has it be one that begins at Start; its argument is what is to go wrong.
const childStarts = "start"

func startExample() int {
	log, queue, err := logging.New(logging.Options{})
	if err != nil {
		return exitFailure
	}
	defer queue.Close()
	p := exampleDaemon()
	p.Settings.common().User, p.Settings.(*exampleSettings).Trouble = "nobody", os.Args[1]
	status, err := Start(p, log, queue, Std{})
	if err != nil {
		fmt.Fprintf(os.Stderr, "the caller says: %v\n", err)
		return 3
	}
	return status
}

func TestMain(m *testing.M) {
	switch kind := os.Getenv(childVariable); kind {
	case "":
	case childStarts:
		os.Exit(startExample())
	default:
		os.Unsetenv(childVariable)
		Run(exampleDaemon())
	}
	testenv.Main(m)
}

// exampleSettings are those of a small daemon, as a program of the suite has them.
type exampleSettings struct {
	Common
	Hello   []string `help:"Listen here." placeholder:"SPEC"`
	Trouble string   `help:"What is to go wrong."`
	Count   int      `help:"A number." default:"1"`
}

// exampleDaemon answers each connection with a line and says what it is doing.
func exampleDaemon() Program {
	s := &exampleSettings{}
	return Program{
		Name:     "example",
		Settings: s,
		Listeners: func() []listen.Request {
			return []listen.Request{{Name: "hello", Specs: s.Hello}}
		},
		Open: func(env *Env) error {
			_, err := os.Stat(s.Pidfile)
			env.Log.Info("open", "euid", os.Geteuid(), "listeners", len(env.Listeners["hello"]), "pidfile", err == nil)
			if s.Trouble == "open" {
				return fmt.Errorf("open key: %w", os.ErrNotExist)
			}
			return nil
		},
		Serve: func(ctx context.Context, env *Env) error { return exampleServe(ctx, env, s) },
	}
}

func exampleServe(ctx context.Context, env *Env, s *exampleSettings) error {
	_, err := os.Stat(s.Pidfile)
	env.Log.Info("serve", "euid", os.Geteuid(), "pidfile", err == nil)
	printInherited(env)
	for _, l := range env.Listeners["hello"] {
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprintln(c, "hello")
				c.Close()
			}
		}()
	}
	if s.Trouble == "serve" {
		return errors.New("no more")
	}
	env.Status("waiting\nfor  clients")
	env.Ready()
	for {
		select {
		case <-ctx.Done():
			env.Status("draining")
			env.Log.Info("drained")
			return nil
		case <-env.Pulse:
		case <-env.Hangup:
			env.Log.Info("reloaded")
			env.Ready()
		}
	}
}

// printInherited logs which of the service manager's variables a child gets.
func printInherited(env *Env) {
	out, err := exec.Command("env").Output()
	var got []string
	for _, line := range strings.Split(string(out), "\n") {
		name, _, _ := strings.Cut(line, "=")
		if slices.Contains([]string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}, name) {
			got = append(got, name)
		}
	}
	env.Log.Info("inherited", "names", strings.Join(got, ","), "error", err)
}

// dial gives what the daemon says at a UNIX socket.
func dial(path string) (string, error) {
	c, err := testenv.Connect("unix", path)
	if err != nil {
		return "", err
	}
	defer c.Close()
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}
