package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/evloop"
	"postern/internal/procstat"
	"postern/internal/testenv"
	"postern/multiplexor/pool"
	"postern/multiplexor/process"
)

// playForkServer is a fork server in the language at hand, which cannot fork: it
// starts the test binary as worker instead. What its filter file says is what
// becomes of it; workers get the text as an argument.
func playForkServer(args []string) int {
	text, err := os.ReadFile(args[slices.Index(args, "-f")+1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	rules := strings.TrimSpace(string(text))
	control := os.NewFile(process.ControlFD, "control")
	syscall.CloseOnExec(process.ControlFD)
	switch rules {
	case "broken":
		fmt.Fprintln(os.Stderr, "syntax error in the rules")
		return 3
	case "knows nothing of it":
		return 0
	case "speaks another language":
		fmt.Fprintln(control, "EHLO")
		syscall.Pause()
	case "hangs while it loads":
		syscall.Pause()
	case "never ends a line":
		for {
			if _, err := fmt.Fprint(control, strings.Repeat("x", 1000)); err != nil {
				return 0
			}
		}
	}
	fmt.Fprintln(control, "hello 1")
	s := &playedServer{control: control, args: args, rules: rules, held: map[string][]int{}}
	lines := bufio.NewScanner(control)
	for lines.Scan() {
		word, arg, _ := strings.Cut(lines.Text(), " ")
		switch word {
		case "fork":
			s.fork(arg)
		case "taken":
			for _, fd := range s.held[arg] {
				syscall.Close(fd)
			}
			delete(s.held, arg)
		case "reap":
			pid, _ := strconv.Atoi(arg)
			syscall.Wait4(pid, nil, 0, nil)
		}
	}
	return 0
}

type playedServer struct {
	control *os.File
	args    []string
	rules   string
	held    map[string][]int
}

func (s *playedServer) fork(id string) {
	switch s.rules {
	case "does not answer":
		return
	case "dies at the first fork":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "cannot fork":
		fmt.Fprintln(s.control, "failed", id, "no more today")
		return
	case "claims a foreign child":
		fmt.Fprintln(s.control, "child", id, os.Getppid(), 0, 1, 2)
		return
	case "cannot count":
		fmt.Fprintln(s.control, "child", id, os.Getpid(), 0, 1, "two")
		return
	case "answers what was not asked":
		fmt.Fprintln(s.control, "child", 9999, os.Getpid(), 0, 1, 2)
		return
	}
	last := len(s.args) - 1
	n := 3
	if strings.HasSuffix(s.args[last], "u") {
		n = 4
	}
	var ours, theirs []int
	var files []uintptr
	for i := range n {
		var p [2]int
		syscall.Pipe2(p[:], syscall.O_CLOEXEC)
		if i > 0 {
			p[0], p[1] = p[1], p[0]
		}
		files = append(files, uintptr(p[0]))
		theirs = append(theirs, p[0])
		ours = append(ours, p[1])
	}
	args := slices.Clone(s.args)
	args[last] = strings.Replace(args[last], "-emb", "-", 1)
	args = append(args, "rules="+s.rules)
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, process.ForkSocketVariable) {
			env = append(env, e)
		}
	}
	self, _ := os.Executable()
	if s.rules == "let workers die" {
		self = "/bin/false"
	}
	pid, err := syscall.ForkExec(self, args, &syscall.ProcAttr{Env: env, Files: files, Sys: &syscall.SysProcAttr{Setpgid: true}})
	if err != nil {
		fmt.Fprintln(s.control, "failed", id, err)
		return
	}
	for _, fd := range theirs {
		syscall.Close(fd)
	}
	s.held[id] = ours
	fmt.Fprintln(s.control, "child", id, pid, strings.Trim(fmt.Sprint(ours), "[]"))
}

// startForking starts a multiplexor with a fork server that has the rules.
func startForking(t *testing.T, rules string, more ...string) *real {
	t.Helper()
	r := prepare(t)
	r.rules(rules)
	args := append([]string{"-D", "-l", "-b", "600", "-E", "-F", r.path("rules"), "--log-level", "debug"}, more...)
	r.start(exec.Command(testenv.Binary(t, "multiplexor"), r.args(args...)...))
	return r
}

func (r *real) rules(text string) {
	r.t.Helper()
	file := r.path("rules.new")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(file, r.path("rules")); err != nil {
		r.t.Fatal(err)
	}
}

// workerRules says what rules a worker was forked with; "" is one that was not
// forked.
func (r *real) workerRules() string {
	r.t.Helper()
	about := r.ask("do about")
	argv, _, _ := strings.Cut(about, " fds=")
	_, rules, _ := strings.Cut(argv, ",rules=")
	if !strings.HasPrefix(about, "argv=") {
		r.t.Fatalf("no worker answered: %q", about)
	}
	return rules
}

// forkedWith waits until a worker answers that was forked with these rules. On a slow machine workers do not wait for
// the fork server until it has loaded its rules: those that come without it are ended.
func (r *real) forkedWith(rules string) {
	r.t.Helper()
	testenv.Eventually(r.t, "a worker that was forked with the rules "+rules, func() bool {
		got := r.workerRules()
		if got == "" {
			r.ask("do exit 0")
		}
		return got == rules
	})
}

func (r *real) logged(text string) {
	r.t.Helper()
	r.proc.WaitOutput(text)
}

// processesOf returns the ids of all processes whose parent is one of these.
func processesOf(parents ...int) (pids []int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if st, err := procstat.Read(pid); err == nil && slices.Contains(parents, st.Parent) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// forkServer returns the process id of the only process that the multiplexor itself
// has started.
func (r *real) forkServer() int {
	r.t.Helper()
	var pids []int
	testenv.Eventually(r.t, "one fork server and nothing else", func() bool {
		pids = processesOf(r.proc.Pid())
		return len(pids) == 1
	})
	return pids[0]
}

// gone waits until none of the processes is there.
func gone(t *testing.T, pids ...int) {
	t.Helper()
	testenv.Eventually(t, fmt.Sprint("the end of the processes ", pids), func() bool {
		return !slices.ContainsFunc(pids, func(pid int) bool { return syscall.Kill(pid, 0) != syscall.ESRCH })
	})
}

func TestForkServerWorkers(t *testing.T) {
	t.Parallel()
	r := startForking(t, "first", "-Z", "-x", "3", "-M", "5000000")
	r.forkedWith("first")
	about := r.ask("do about")
	for _, want := range []string{",-serveru,rules=first fds=0=pipe,1=pipe,2=pipe,3=pipe ", " umask=077 ", " space=5120000000 ", " dir=" + r.dir + " ", " group=own "} {
		if !strings.Contains(about, want) {
			t.Errorf("a forked worker lacks %q:\n%s", want, about)
		}
	}
	server := r.forkServer()
	releaseA, a := r.hold("")
	releaseB, b := r.hold("")
	r.waitStatus("BBS")
	r.want("ping", "PONG\n")
	releaseA()
	releaseB()
	if got := a() + b(); got != "ok did\nok did\n" {
		t.Errorf("two at a time: %q", got)
	}
	workers := processesOf(server)
	if len(workers) != 3 {
		t.Errorf("children of the fork server: %v, want 3", workers)
	}
	r.end()
	gone(t, append(workers, server)...)
}

func TestForkServerWorkerEnds(t *testing.T) {
	t.Parallel()
	tests := []struct{ step, log, cause string }{
		{"exit 5", "exited normally with status 5", "exited with status 5"},
		{"die", "exited due to signal 9", "ended by SIGKILL"},
	}
	for _, tt := range tests {
		t.Run(tt.step, func(t *testing.T) {
			r := startForking(t, "first", "-x", "1")
			r.forkedWith("first")
			if got, want := r.ask("do "+tt.step), "ERR No response from worker: "+tt.cause+"\n"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			r.logged(tt.log + " (WORKER DIED UNEXPECTEDLY)")
			r.want("ping", "PONG\n")
			if server := r.forkServer(); len(processesOf(server)) != 1 {
				t.Errorf("children of the fork server: %v, want 1: the dead one is to be reaped", processesOf(server))
			}
			r.end()
		})
	}
}

func TestForkServerFallsBack(t *testing.T) {
	t.Parallel()
	const original = "Could not initialize embedded Perl interpreter -- falling back to old method."
	tests := []struct {
		rules string
		logs  []string
	}{
		{"broken", []string{"exited with status 3 before it had loaded the filter: syntax error in the rules", original}},
		{"knows nothing of it", []string{"exited with status 0 before it had loaded the filter", original}},
		{"speaks another language", []string{`said \"EHLO\"`, original}},
		{"never ends a line", []string{"wrote a line without end", original}},
		{"dies at the first fork", []string{"was ended by signal 9", "Workers are started without a fork server"}},
		{"answers what was not asked", []string{"Workers are started without a fork server"}},
		{"cannot count", []string{"Workers are started without a fork server"}},
	}
	for _, tt := range tests {
		t.Run(tt.rules, func(t *testing.T) {
			r := startForking(t, tt.rules)
			for _, text := range tt.logs {
				testenv.Eventually(t, text+" in the log", func() bool {
					if got := r.workerRules(); got != "" {
						t.Errorf("the worker was forked with %q", got)
					}
					logged := strings.Contains(r.proc.Output(), text)
					if !logged {
						r.ask("do exit 0") // it may have been started before the server was there
					}
					return logged
				})
			}
			r.end()
		})
	}
}

func TestForkServerRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ rules, log string }{
		{"cannot fork", "no more today"},
		{"claims a foreign child", "is no child of the fork server"},
	}
	for _, tt := range tests {
		t.Run(tt.rules, func(t *testing.T) {
			r := startForking(t, tt.rules)
			testenv.Eventually(t, "no worker more that was started before the server was there", func() bool {
				if !strings.HasPrefix(r.ask("do about"), "argv=") {
					return true
				}
				r.ask("do exit 0")
				return false
			})
			r.logged(tt.log)
			r.want("ping", "error: Unable to activate worker\n")
			r.end()
		})
	}
}

// errWithout is that of a worker that is started without a fork server.
var errWithout = errors.New("started without the server")

// startOne starts a worker, on a loop of its own, to have other times. It returns the log, and the error of the start.
func startOne(t *testing.T, rules string, times func(*process.ForkServers)) (log string, failure error) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	filter := filepath.Join(t.TempDir(), "filter")
	if err := os.WriteFile(filter, []byte(rules), 0o644); err != nil {
		t.Fatal(err)
	}
	loop, err := evloop.New()
	if err != nil {
		t.Fatal(err)
	}
	lines := &memoryLog{}
	came := make(chan error, 1)
	exec := func(_ pool.Owner, _ bool, done func(pool.Process, error)) { done(nil, errWithout) }
	env, _ := process.Environ(os.Environ(), false)
	f := process.NewForkServers(loop, &process.Program{Path: self, Filter: filter, Env: env}, exec, lines, true)
	f.LoadLimit, f.LoadWait, f.ForkLimit = testenv.Patience, testenv.Patience, testenv.Patience
	times(f)
	loop.Post(func() {
		f.Load()
		f.Start(nil, false, func(_ pool.Process, err error) { came <- err })
	})
	run := testenv.Go(t, "the loop", loop.Run)
	failure = testenv.Receive(t, "the start of a worker", came)
	loop.Post(loop.Stop)
	run.Wait()
	f.Close()
	if err := loop.Close(); err != nil {
		t.Error(err)
	}
	if left := processesOf(os.Getpid()); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
	return lines.text(), failure
}

func TestForkServerTooSlow(t *testing.T) {
	for rules, want := range map[string]string{
		"hangs while it loads": "was not ready after 400ms before it had loaded the filter",
		"does not answer":      "did not answer",
	} {
		t.Run(rules, func(t *testing.T) {
			log, err := startOne(t, rules, func(f *process.ForkServers) {
				if f.ForkLimit = 200 * time.Millisecond; rules == "hangs while it loads" {
					f.LoadLimit = 400 * time.Millisecond
				}
			})
			if err != errWithout || !strings.Contains(log, want) {
				t.Errorf("%v; log lacks %q:\n%s", err, want, log)
			}
		})
	}
}

// TestForkServerIsWaitedFor: the first worker, too, is left to a server that is still loading. This one refuses.
func TestForkServerIsWaitedFor(t *testing.T) {
	log, err := startOne(t, "cannot fork", func(*process.ForkServers) {})
	if err == nil || !strings.Contains(err.Error(), "no more today") {
		t.Errorf("%v, want what the server says:\n%s", err, log)
	}
}

// TestForkServerStillLoading: requests do not wait for a server that takes its time,
// and what tries new rules does.
func TestForkServerStillLoading(t *testing.T) {
	t.Parallel()
	r := startForking(t, "hangs while it loads", "-x", "3")
	if got := r.workerRules(); got != "" {
		t.Errorf("a worker was forked with %q by nobody", got)
	}
	r.logged("workers are started without it until it is ready")
	r.want("ping", "PONG\n")
	r.rules("first")
	r.want("reread", "Forced reread of filter rules\n")
	r.forkedWith("first")

	r.rules("hangs while it loads")
	r.want("reread", "Forced reread of filter rules\n")
	release, busy := r.hold("") // one worker does that, and one place is for trying the rules
	testenv.Eventually(t, "a busy worker", func() bool { return strings.Contains(r.ask("status"), "B") })
	testenv.Eventually(t, "another one, of no server", func() bool {
		if r.workerRules() == "" {
			return true
		}
		r.ask("do exit 0") // on a slow machine the old rules have more than one worker
		return false
	})
	if strings.Count(r.proc.Output(), "New filter rules are in force") > 1 {
		t.Error("rules that nobody could load are in force")
	}
	release()
	if got := busy(); got != "ok did\n" {
		t.Errorf("the request at hand was answered %q", got)
	}
	r.end()
}

// TestForkServerRepaired: without a server at first, with one after a reread.
func TestForkServerRepaired(t *testing.T) {
	t.Parallel()
	r := startForking(t, "broken", "-x", "2")
	if got := r.workerRules(); got != "" {
		t.Fatalf("rules %q from a server that is broken", got)
	}
	r.rules("first")
	r.want("reread", "Forced reread of filter rules\n")
	r.forkedWith("first")
	r.end()
}

func TestForkServerReread(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"classic", "two-generation"} {
		t.Run(mode, func(t *testing.T) {
			r := startForking(t, "first", "-x", "3", "--reload", mode)
			r.forkedWith("first")
			old := r.forkServer()
			release, busy := r.hold(";about;")
			testenv.Eventually(t, "a busy worker", func() bool { return strings.Contains(r.ask("status"), "B") })

			r.rules("second")
			r.want("reread", "Forced reread of filter rules\n")
			r.forkedWith("second")
			release()
			if got := busy(); !strings.Contains(got, ",rules=first ") {
				t.Errorf("the request at hand was answered %q", got)
			}
			gone(t, old)

			r.rules("broken")
			r.want("reread", "Forced reread of filter rules\n")
			r.logged("The new filter rules could not be loaded")
			r.forkedWith("second")
			r.forkServer()
			r.end()
		})
	}
}

// TestForkServerReverts: rules that can be loaded but do not work. Workers that
// have to be replaced later still get the old ones.
func TestForkServerReverts(t *testing.T) {
	t.Parallel()
	r := startForking(t, "first", "-x", "2", "--reload", "two-generation", "--reload-failures", "2")
	r.forkedWith("first")
	r.rules("let workers die")
	r.want("reread", "Forced reread of filter rules\n")
	r.logged("2 new workers in a row did not answer; staying with the workers that have the old rules")
	if got := r.workerRules(); got != "first" {
		t.Errorf("rules %q, want those of before", got)
	}
	r.want("do die", "ERR No response from worker\n")
	r.forkedWith("first")
	r.forkServer()
	r.end()
}

func TestForkServerDies(t *testing.T) {
	t.Parallel()
	r := startForking(t, "first", "-x", "2")
	r.forkedWith("first")
	server := r.forkServer()
	old := processesOf(server)
	release, busy := r.hold("")
	testenv.Eventually(t, "a busy worker", func() bool { return strings.Contains(r.ask("status"), "B") })
	r.rules("broken") // on a slow machine the next server may be there already
	syscall.Kill(server, syscall.SIGKILL)
	r.logged("Workers are started without a fork server")
	if got := r.workerRules(); got != "" {
		t.Errorf("a worker was forked with %q by nobody", got)
	}
	r.rules("first")
	release()
	if got := busy(); got != "ok did\n" {
		t.Errorf("the request at hand was answered %q", got)
	}
	testenv.Eventually(t, "another fork server", func() bool {
		return strings.Count(r.proc.Output(), "has loaded the filter") == 2
	})
	// The orphan and the one that was not forked go; then they are forked again.
	first, a := r.hold(";exit 0")
	second, b := r.hold(";exit 0")
	r.waitStatus("BB")
	first()
	second()
	a()
	b()
	r.forkedWith("first")
	r.end()
	gone(t, old...)
}

// TestForkServerEndsWithUs: a multiplexor that was killed cannot clean up.
func TestForkServerEndsWithUs(t *testing.T) {
	t.Parallel()
	r := startForking(t, "first")
	r.forkedWith("first")
	server := r.forkServer()
	pids := append(processesOf(server), server)
	r.proc.Stop(syscall.SIGKILL)
	r.proc.Wait()
	gone(t, pids...)
}

func TestForkServerLoadingAtTheEnd(t *testing.T) {
	t.Parallel()
	r := prepare(t)
	// A worker that was started without the server, on a slow machine, is no matter of this.
	script := "#!/bin/sh\n[ -n \"$" + process.ForkSocketVariable + "\" ] || exec cat\nsleep 3600 &\necho $! >load\nwait\n"
	r.worker = r.path("slow")
	if err := os.WriteFile(r.worker, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	r.start(exec.Command(testenv.Binary(t, "multiplexor"), r.args("-D", "-E")...))
	var sleeper int
	testenv.Eventually(t, "a server that is loading", func() bool {
		text, _ := os.ReadFile(r.path("load"))
		sleeper, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		return sleeper > 0
	})
	loading, err := procstat.Read(sleeper)
	if err != nil {
		t.Fatal(err)
	}
	server := loading.Parent
	began := time.Now()
	r.end()
	if took := time.Since(began); took > 30*time.Second { // loading may take a minute
		t.Errorf("the end took %v", took)
	}
	gone(t, server, sleeper)
}
