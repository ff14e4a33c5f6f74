package testenv

import (
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// recorder stands in for a test, to see how the helpers end one.
type recorder struct {
	testing.TB
	failed, skipped string
}

func (r *recorder) Helper()      {}
func (r *recorder) Name() string { return "TestRecorded" }
func (r *recorder) Fatalf(format string, args ...any) {
	r.failed = fmt.Sprintf(format, args...)
	runtime.Goexit()
}
func (r *recorder) Fatal(args ...any) {
	r.failed = fmt.Sprint(args...)
	runtime.Goexit()
}
func (r *recorder) Skipf(format string, args ...any) {
	r.skipped = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// record runs f as a test would be run and gives how it ended.
func record(t *testing.T, f func(testing.TB)) *recorder {
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() { defer close(done); f(r) }()
	Receive(t, "the end of the recorded test", done)
	return r
}

func TestShortDirTakesSockets(t *testing.T) {
	dir := ShortDir(t)
	if len(dir) > 60 {
		t.Errorf("ShortDir gave %d bytes: %s", len(dir), dir)
	}
	l, err := net.Listen("unix", filepath.Join(dir, strings.Repeat("s", 40)))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("mode %v, %v; want 0755, so that every user may enter", info.Mode(), err)
	}
}

func TestShortDirIsRemoved(t *testing.T) {
	var dir string
	t.Run("inner", func(t *testing.T) { dir = ShortDir(t) })
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", dir, err)
	}
}

func TestFreePortIsFreeAndGivenOnce(t *testing.T) {
	seen := make(map[int]bool)
	for range 50 {
		port := FreePort(t)
		if seen[port] {
			t.Fatalf("port %d was given twice", port)
		}
		seen[port] = true
		l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
}

// runIs makes the run a quick one, or none, until the end of the test.
func runIs(t *testing.T, quick bool) {
	t.Helper()
	f := flag.Lookup("test.short")
	was := f.Value.String()
	set := func(value string) {
		if err := f.Value.Set(value); err != nil {
			t.Error(err)
		}
	}
	set(strconv.FormatBool(quick))
	t.Cleanup(func() { set(was) })
}

func TestQuickRunNeedsNothing(t *testing.T) {
	runIs(t, true)
	t.Setenv("CI", "true") // makes no difference
	for want, need := range map[string]func(testing.TB){
		"quick run: needs sh":             func(t testing.TB) { Need(t, "the thing", "sh") },
		"quick run: needs root":           NeedRoot,
		"quick run: runs the real binary": func(t testing.TB) { Binary(t, "binary") },
	} {
		if r := record(t, need); r.failed != "" || r.skipped != want {
			t.Errorf("failed %q, skipped %q, want %q", r.failed, r.skipped, want)
		}
	}
}

func TestNeed(t *testing.T) {
	runIs(t, false)
	t.Setenv("CI", "true")
	if r := record(t, func(t testing.TB) { Need(t, "the thing", "sh") }); r.failed != "" || r.skipped != "" {
		t.Errorf("a program that is there: failed %q, skipped %q", r.failed, r.skipped)
	}
	if r := record(t, func(t testing.TB) { Need(t, "the thing", "sh", "no-such-program") }); !strings.Contains(r.failed, "no-such-program") || r.skipped != "" {
		t.Errorf("missing program under CI=true: failed %q, skipped %q", r.failed, r.skipped)
	}
	t.Setenv("CI", "")
	if r := record(t, func(t testing.TB) { Need(t, "the thing", "no-such-program") }); r.failed != "" || r.skipped != "the thing: no program no-such-program" {
		t.Errorf("missing program: failed %q, skipped %q", r.failed, r.skipped)
	}
}

func TestImpossible(t *testing.T) {
	t.Setenv("CI", "true")
	r := record(t, func(t testing.TB) { Impossible(t, "no\nnamespaces") })
	if want := "not possible here: no namespaces"; r.skipped != want || r.failed != "" {
		t.Errorf("skipped %q, failed %q, want to skip as %q", r.skipped, r.failed, want)
	}
}

func TestFindLooksInSbin(t *testing.T) {
	if _, err := os.Stat("/usr/sbin/useradd"); err != nil {
		t.Setenv("PATH", "/usr/bin:/bin") // no program to try it with: only the miss below
	} else {
		t.Setenv("PATH", "/usr/bin")
		if got, err := Find("useradd"); err != nil || got != "/usr/sbin/useradd" {
			t.Errorf("Find(useradd) = %q, %v", got, err)
		}
	}
	if got, err := Find("no-such-program"); err == nil {
		t.Errorf("Find(no-such-program) = %q", got)
	}
}

func TestProcess(t *testing.T) {
	p := Start(t, exec.Command("sh", "-c", "echo ready; read x; exit 3"))
	p.WaitOutput("ready")
	p.Wait() // standard input is empty, so read ends at once
	if got := p.Wait(); got != 3 {
		t.Errorf("status %d, want 3", got)
	}
	if p.Running() {
		t.Error("still running after Wait")
	}
	p.Stop(syscall.SIGTERM) // no error when it has ended

	p = Start(t, exec.Command("sleep", "60"))
	p.Stop(syscall.SIGINT)
	if got := p.Wait(); got != 128+int(syscall.SIGINT) {
		t.Errorf("status %d, want 130", got)
	}
}

func TestCleanupEndsTheWholeGroup(t *testing.T) {
	var child int
	t.Run("inner", func(t *testing.T) {
		p := Start(t, exec.Command("sh", "-c", "trap '' TERM; (trap '' TERM; exec sleep 60) & echo $!; exit 0"))
		Eventually(t, "the child's pid", func() bool {
			n, _ := fmt.Sscan(p.Output(), &child)
			return n == 1
		})
	})
	Eventually(t, "the child to end", func() bool { return isGone(child) })
}

func TestRun(t *testing.T) {
	stdout, stderr, status := Run(t, "sh", "-c", "echo out; echo err >&2; exit 7")
	if stdout != "out\n" || stderr != "err\n" || status != 7 {
		t.Errorf("Run = %q, %q, %d; want out, err, 7", stdout, stderr, status)
	}
	cmd := exec.Command("cat")
	cmd.Stdin = strings.NewReader("input")
	if stdout, _, status := RunCmd(t, cmd); stdout != "input" || status != 0 {
		t.Errorf("RunCmd = %q, %d; want input, 0", stdout, status)
	}
}

func TestProgramSource(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"one", "group/two", "group/deep/three", "empty"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if dir != "empty" {
			if err := os.WriteFile(filepath.Join(root, dir, "main.go"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for program, want := range map[string]string{"one": "one", "two": "group/two", "three": "group/deep/three"} {
		if got, err := programSource(root, program); got != want || err != nil {
			t.Errorf("programSource(%s) = %q, %v; want %q", program, got, err, want)
		}
	}
	for _, program := range []string{"empty", "none"} {
		if got, err := programSource(root, program); err == nil {
			t.Errorf("programSource(%s) = %q, want an error", program, got)
		}
	}
}

// TestBackendSeesWhatDoesNotWait: what a proxy says where it should wait for a reply is noted, also in a packet of its own.
func TestBackendSeesWhatDoesNotWait(t *testing.T) {
	t.Parallel()
	b := StartBackend(t)
	next := map[string]string{
		"": "EHLO client.example\r\n", "EHLO": "MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n", "DATA": "RSET\r\n",
	}
	begun := make(chan net.Conn, 1)
	var c net.Conn
	b.Answer(func(a Asked) string {
		if a.Verb == "" {
			c = <-begun
		}
		io.WriteString(c, next[a.Verb])
		return ""
	})
	client, err := net.Dial("tcp", b.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	begun <- client
	want := []string{
		`connection 1: 54 bytes came before the reply to "EHLO"`,
		`connection 1: 6 bytes came before the reply to "DATA"`,
	}
	Eventually(t, "the breaches", func() bool { return len(b.Breaches()) >= len(want) })
	if got := b.Breaches(); !slices.Equal(got, want) {
		t.Errorf("breaches: %q", got)
	}
	b.Forgive()
}
