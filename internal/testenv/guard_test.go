package testenv

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

// faults builds the tests with faults, once.
var faults = sync.OnceValues(func() (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	dir, err := binaryDir(root)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "faults")
	cmd := exec.Command("go", "test", "-c", "-o", path, "./internal/testenv/testdata/faults")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
})

// fault prepares a run of some of the tests with faults, as go test would run them.
func fault(t *testing.T, tests, limit string) *exec.Cmd {
	t.Helper()
	path, err := faults()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-test.run=^("+tests+")$", "-test.v", "-test.timeout="+limit)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, guardRole+"=") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	return cmd
}

// runFault gives the output and the exit status.
func runFault(t *testing.T, tests, limit string) (string, int) {
	t.Helper()
	NotQuick(t, "waits for a time limit")
	cmd := fault(t, tests, limit)
	stdout, stderr, status := RunCmd(t, cmd)
	return stdout + stderr, status
}

func wantTexts(t *testing.T, got string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(got, text) {
			t.Errorf("no %q in\n%s", text, got)
		}
	}
}

// TestWatchdogNamesTheWait: a wait without an end fails its own test, in time, and no other.
func TestWatchdogNamesTheWait(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, test, waits, frame string }{
		{"channel", "TestEmptyChannel", "still waiting for: what never comes", "faults.TestEmptyChannel("},
		{"task", "TestEndlessTask", "still waiting for: the end of the endless task", "faults.TestEndlessTask."},
		{"foreign", "TestForeignWait", "none of testenv's waits", "faults.TestForeignWait("},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			out, status := runFault(t, tt.test+"|TestSound", "10s")
			wantTexts(t, out, "watchdog: "+tt.test+": ", tt.waits, tt.frame, "--- FAIL: "+tt.test, "--- PASS: TestSound")
			if status != 1 || strings.Contains(out, "panic: test timed out") {
				t.Errorf("status %d\n%s", status, out)
			}
			if strings.Count(out, "\ngoroutine ") > 5 {
				t.Errorf("not the stacks of the test alone:\n%s", out)
			}
		})
	}
	// Nothing ends this one, but the watchdog has told where it hangs before the test binary dies of it.
	t.Run("endless", func(t *testing.T) {
		t.Parallel()
		out, status := runFault(t, "TestEndlessWait", "10s")
		before, _, died := strings.Cut(out, "panic: test timed out")
		wantTexts(t, before, "watchdog: TestEndlessWait: ", "faults.TestEndlessWait(")
		if status == 0 || !died {
			t.Errorf("status %d\n%s", status, out)
		}
	})
}

func TestTasks(t *testing.T) {
	t.Parallel()
	out, status := runFault(t, "TestFailingTask|TestFatalTask", "1m")
	wantTexts(t, out, "the failing task: no luck", "the fatal task: it did not return", "--- FAIL: TestFailingTask", "--- FAIL: TestFatalTask")
	if status != 1 {
		t.Errorf("status %d", status)
	}
	if err := Play(t, "the part", func(t testing.TB) { t.Helper(); t.Fatalf("got %d", 1); t.Error("it goes on") }).Err(); err == nil || err.Error() != "got 1" {
		t.Errorf("a part that ends: %v", err)
	}
	if err := Play(t, "the part", func(t testing.TB) { Eventually(t, "nothing", func() bool { return true }) }).Err(); err != nil {
		t.Errorf("a part that is well: %v", err)
	}
	k := Go(t, "the task", func() error { return io.ErrClosedPipe })
	if err := k.Err(); err != io.ErrClosedPipe || !k.Ended() {
		t.Errorf("Err = %v, ended %v", err, k.Ended())
	}
}

// isGone reports whether a process has ended.
func isGone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

var pidLine = regexp.MustCompile(`PID (\d+)`)

func pidsIn(t *testing.T, out string, want int) []int {
	t.Helper()
	var pids []int
	for _, m := range pidLine.FindAllStringSubmatch(out, -1) {
		n, _ := strconv.Atoi(m[1])
		pids = append(pids, n)
	}
	if len(pids) != want {
		t.Fatalf("%d process ids, want %d, in\n%s", len(pids), want, out)
	}
	return pids
}

// TestProgramsThatStay: a program that a test leaves running is ended, and found, although it is in no group, session
// or environment of the test.
func TestProgramsThatStay(t *testing.T) {
	t.Parallel()
	p := Start(t, fault(t, "TestLeavesProgram", "5m"))
	p.WaitOutput("--- PASS: TestLeavesProgram")
	pid := pidsIn(t, p.Output(), 1)[0]
	if status := p.Wait(); status != 1 {
		t.Errorf("status %d", status)
	}
	wantTexts(t, p.Output(), "testenv: outlived the tests and is killed: sh -c trap", "sleep 3600")
	Eventually(t, "the end of the program", func() bool { return isGone(pid) })
}

// TestProgramsOfTestsThatDie: nothing that tests have started outlives a test binary that is killed in any of its
// processes, or dies at its time limit.
func TestProgramsOfTestsThatDie(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		limit  string
		sig    syscall.Signal
		victim func(first int) int
	}{
		{"first process killed", "5m", syscall.SIGKILL, func(first int) int { return first }},
		{"tests killed", "5m", syscall.SIGKILL, func(first int) int { return onlyChild(t, onlyChild(t, first)) }},
		{"interrupted", "5m", syscall.SIGINT, func(first int) int { return first }},
		{"quit, as go test does", "5m", syscall.SIGQUIT, func(first int) int { return first }},
		{"time limit", "4s", 0, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := Start(t, fault(t, "TestDies", tt.limit))
			p.WaitOutput("READY")
			pids := append(pidsIn(t, p.Output(), 2), descendants(p.Pid())...)
			if len(pids) < 6 { // both twice, with the guardian, the tests and what they have started
				t.Errorf("descendants %v", pids)
			}
			if tt.victim != nil {
				if err := syscall.Kill(tt.victim(p.Pid()), tt.sig); err != nil {
					t.Fatal(err)
				}
			}
			if status := p.Wait(); status == 0 {
				t.Errorf("status %d", status)
			}
			awaitEnd(t, pids)
		})
	}
}

func awaitEnd(t *testing.T, pids []int) {
	t.Helper()
	Eventually(t, "the end of everything", func() bool {
		return !slices.ContainsFunc(pids, func(pid int) bool { return !isGone(pid) })
	})
}

// TestProgramsOfTestsThatNobodyReads: they are ended, too, when nobody reads any more what is said of that.
func TestProgramsOfTestsThatNobodyReads(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := fault(t, "TestDies", "5m")
	cmd.Stdout, cmd.Stderr = w, w
	p := Start(t, cmd)
	w.Close()
	out := ""
	for in := bufio.NewReader(r); !strings.Contains(out, "READY"); {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatalf("%v behind %q", err, out)
		}
		out += line
	}
	pids := append(pidsIn(t, out, 2), descendants(p.Pid())...)
	r.Close()
	if err := syscall.Kill(p.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitEnd(t, pids)
}

func onlyChild(t *testing.T, pid int) int {
	t.Helper()
	for _, child := range descendants(pid) {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child))
		if strings.Contains(string(text), fmt.Sprintf(" %d ", pid)) {
			return child
		}
	}
	t.Fatalf("process %d has no child", pid)
	return 0
}

// limited is a test with a time limit of its own.
type limited struct {
	recorder
	end time.Time
}

func (l *limited) Deadline() (time.Time, bool) { return l.end, true }

func TestWaitsEndBeforeTheTimeLimit(t *testing.T) {
	full := make(chan int, 1)
	for name, hang := range map[string]func(testing.TB){
		"Eventually": func(t testing.TB) { Eventually(t, "the moon", func() bool { return false }) },
		"Receive":    func(t testing.TB) { Receive(t, "the moon", make(chan int)) },
		"Task":       func(t testing.TB) { (&Task{t: t, what: "moon", done: make(chan struct{})}).Wait() },
	} {
		l := &limited{recorder{TB: t}, time.Now().Add(margin() + 50*time.Millisecond)}
		done := make(chan struct{})
		go func() { defer close(done); hang(l) }()
		Receive(t, "the end of "+name, done)
		if !strings.Contains(l.failed, "watchdog: TestRecorded: after ") || !strings.Contains(l.failed, "moon\ngoroutine ") {
			t.Errorf("%s: %q", name, l.failed)
		}
	}
	// What is there already is never too late.
	l := &limited{recorder{TB: t}, time.Now().Add(-time.Hour)}
	full <- 1
	Receive(l, "it", full)
	Eventually(l, "it", func() bool { return true })
	if l.failed != "" {
		t.Errorf("failed: %s", l.failed)
	}
	if r := record(t, func(t testing.TB) { full <- 1; NotYet(t, "the number", full) }); r.failed != "too early: the number: 1" {
		t.Errorf("failed: %q", r.failed)
	}
}

// TestFullBacklog: a connect that a full backlog refuses is tried again.
func TestFullBacklog(t *testing.T) {
	path := filepath.Join(ShortDir(t), "s")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	first := Dial(t, "unix", path)
	if _, err := net.Dial("unix", path); !errors.Is(err, syscall.EAGAIN) {
		t.Fatalf("the backlog is not full: %v", err)
	}
	second := Go(t, "the second connection", func() error {
		conn, err := Connect("unix", path)
		if err == nil {
			conn.Close()
		}
		return err
	})
	NotYet(t, "the second connection", second.Done())
	for range 2 {
		nfd, _, err := syscall.Accept(fd)
		if err != nil {
			t.Fatal(err)
		}
		syscall.Close(nfd)
	}
	second.Wait()
	if _, err := first.Read(make([]byte, 1)); !IsClosed(err) {
		t.Errorf("read of a closed connection: %v", err)
	}
	if _, err := Connect("unix", path+"x"); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("connect to nothing: %v", err)
	}
}

// TestIsClosed: however it comes that the other side has ended the connection, by what was on its way.
func TestIsClosed(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ends := func(unread bool) net.Conn {
		near := Dial(t, "tcp4", l.Addr().String())
		far, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if unread { // a close with something unread is a reset
			fmt.Fprint(near, "x")
			Eventually(t, "a byte that is not read", func() bool {
				raw, err := far.(*net.TCPConn).SyscallConn()
				if err != nil {
					t.Fatal(err)
				}
				n := 0
				raw.Read(func(fd uintptr) bool {
					n, _, _ = syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
					return true
				})
				return n == 1
			})
		}
		far.Close()
		return near
	}
	for _, unread := range []bool{false, true} {
		near := ends(unread)
		if _, err := near.Read(make([]byte, 1)); !IsClosed(err) {
			t.Errorf("unread %v: read: %v", unread, err)
		}
		Eventually(t, "the failure of a write", func() bool { _, err = near.Write([]byte("x")); return err != nil })
		if !IsClosed(err) {
			t.Errorf("unread %v: write: %v", unread, err)
		}
		if text, err := ReadAll(ends(unread)); err != nil || len(text) != 0 {
			t.Errorf("unread %v: ReadAll = %q, %v", unread, text, err)
		}
	}
	open := Dial(t, "tcp4", l.Addr().String())
	if !Silent(open) {
		t.Error("something comes from a server that says nothing")
	}
	open.SetReadDeadline(time.Unix(1, 0))
	if _, err := open.Read(make([]byte, 1)); IsClosed(err) || IsClosed(net.ErrClosed) || IsClosed(nil) {
		t.Errorf("an open connection: %v", err)
	}
}
