package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"postern/internal/mxproto"
	"postern/internal/procstat"
	"postern/internal/testenv"
	"postern/multiplexor/pool"
)

// real is a running multiplexor whose workers are the test binary.
type real struct {
	t      *testing.T
	dir    string // its spool
	worker string
	proc   *testenv.Process
	fifos  int
}

func (r *real) path(name string) string { return filepath.Join(r.dir, name) }

// prepare makes a spool with a worker program in it.
func prepare(t *testing.T) *real {
	t.Helper()
	r := &real{t: t, dir: testenv.DaemonDir(t, filepath.Join(testenv.ShortDir(t), "d"))}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r.worker = r.path("worker")
	copyProgram(t, self, r.worker)
	return r
}

// copyProgram puts a program where the daemon's account can run it: as a link, if it can be.
func copyProgram(t *testing.T, from, to string) {
	t.Helper()
	if os.Link(from, to) != nil {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(to, 0o755); err != nil { // whatever the umask is
		t.Fatal(err)
	}
}

// args are those every multiplexor here is started with.
func (r *real) args(more ...string) []string {
	args := []string{"-z", r.dir, "-s", r.path("s"), "-f", r.worker}
	if account, drops := testenv.DaemonAccount(); drops {
		args = append(args, "-U", account)
	}
	return append(args, more...)
}

// startReal starts a multiplexor in the foreground and waits until it answers.
func startReal(t *testing.T, more ...string) *real {
	t.Helper()
	r := prepare(t)
	r.start(exec.Command(testenv.Binary(t, "multiplexor"), r.args(append([]string{"-D", "-l"}, more...)...)...))
	return r
}

func (r *real) start(cmd *exec.Cmd) {
	r.t.Helper()
	r.proc = testenv.Start(r.t, cmd)
	testenv.Eventually(r.t, "an answer of the multiplexor", func() bool {
		if !r.proc.Running() {
			r.t.Fatal("the multiplexor has ended")
		}
		conn, err := testenv.Connect("unix", r.path("s"))
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// ask sends one line and gives the whole reply.
func (r *real) ask(line string) string { r.t.Helper(); return askAt(r.t, r.path("s"), line+"\n") }

func askAt(t *testing.T, path, text string) string {
	t.Helper()
	reply, err := requestAt(path, text)
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

// requestAt sends a text and gives the whole reply.
func requestAt(path, text string) (string, error) {
	conn, err := testenv.Connect("unix", path)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, text); err != nil {
		return "", err
	}
	reply, err := io.ReadAll(conn)
	if err != nil {
		return "", fmt.Errorf("%.60q: %w after %q", text, err, reply)
	}
	return string(reply), nil
}

func (r *real) want(line, want string) {
	r.t.Helper()
	if got := withoutCause(r.ask(line)); got != want {
		r.t.Errorf("%q answered %q, want %q", line, got, want)
	}
}

// withoutCause takes off what an error text says of the reason.
func withoutCause(reply string) string {
	for _, why := range []pool.Failure{pool.FailStart, pool.FailDied, pool.FailQueue, pool.FailNoFree} {
		if strings.HasPrefix(reply, strings.TrimSuffix(why.Text(), "\n")+": ") {
			return why.Text()
		}
	}
	return reply
}

// background sends a line, and what it returns waits for the reply.
func (r *real) background(line string) (reply func() string) {
	r.t.Helper()
	t, path, got := r.t, r.path("s"), ""
	task := testenv.Go(t, "the reply to "+line, func() (err error) { got, err = requestAt(path, line+"\n"); return err })
	return func() string { t.Helper(); task.Wait(); return got }
}

// hold keeps a worker busy until release is called; then it does what more says.
func (r *real) hold(more string) (release func(), reply func() string) {
	r.t.Helper()
	fifo, release := r.fifo()
	return release, r.background("do read " + fifo + more)
}

// fifo makes a FIFO for a worker to read, and a function that waits for the worker to do so and ends its reading.
func (r *real) fifo() (path string, end func()) {
	r.t.Helper()
	t := r.t
	r.fifos++
	path = r.path(fmt.Sprintf("fifo%d", r.fifos))
	if err := errors.Join(syscall.Mkfifo(path, 0o666), os.Chmod(path, 0o666)); err != nil {
		t.Fatal(err)
	}
	return path, func() {
		t.Helper()
		testenv.Eventually(t, "the worker that is held", func() bool {
			f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0) // it reads to the end, which is now
			return err == nil && f.Close() == nil
		})
	}
}

// waitStatus waits until the letters of all workers are so.
func (r *real) waitStatus(letters string) {
	r.t.Helper()
	last := ""
	testenv.Eventually(r.t, "workers "+letters, func() bool {
		last, _, _ = strings.Cut(r.ask("status"), " ")
		return last == letters
	})
}

// end stops the multiplexor and wants a clean end that leaves nothing behind.
func (r *real) end() {
	r.t.Helper()
	r.proc.Stop(syscall.SIGTERM)
	if status := r.proc.Wait(); status != 0 {
		r.t.Errorf("exit status %d", status)
	}
	if _, err := os.Lstat(r.path("s")); err == nil {
		r.t.Error("the request socket is still there")
	}
}

func TestRealDialog(t *testing.T) {
	t.Parallel()
	r := startReal(t, "-x", "3", "--scan-below-spool=no")
	r.want("ping", "PONG\n")
	r.want("free", "3\n")
	r.want("foo_no_such_command", "error: Unknown command\n")
	r.want("tick", "error: External agents may not invoke 'tick'\n")
	r.want("msgs", "0\n")
	r.want("scan q d", "ok got <scan q d>\n")
	r.want("msgs", "1\n")
	r.want("busyworkers", "")
	r.want("FREE", "ok got <FREE>\n")
	r.want("free ", "ok got <free >\n")
	r.want("", "ok got <>\n")
	r.want("ping\r", "PONG\n")
	r.want("load1 9", "error: Invalid 'back' amount (must be 10-600)\n")
	r.want("load1", "ok got <load1>\n")
	r.want("workerinfo x", "error: Invalid worker number\n")
	r.want("slaveinfo 3", "error: Worker number out of range\n")
	if got := r.ask("version"); got == "" || strings.HasSuffix(got, "\n") {
		t.Errorf("version %q, want a text without LF", got)
	}
	if got := len(strings.Fields(r.ask("load"))); got != 29 {
		t.Errorf("load has %d numbers, want 29", got)
	}
	if got := len(strings.Fields(r.ask("load1 60abc"))); got != 26 {
		t.Errorf("load1 has %d numbers, want 26", got)
	}
	if got := len(strings.Fields(r.ask("hload-recipok"))); got != 16 {
		t.Errorf("hload has %d numbers, want 16", got)
	}
	if got := r.ask("status"); !strings.HasPrefix(got, "ISS 1 1 1024 0 ") {
		t.Errorf("status %q", got)
	}
	if got := r.ask("workers"); !strings.Contains(got, " last=scan ago=0\n1 S ago=") {
		t.Errorf("workers %q", got)
	}
	r.end()
}

func TestRealFraming(t *testing.T) {
	t.Parallel()
	r := startReal(t)
	long := strings.Repeat("a", 16<<10)
	tests := []struct{ name, send, want string }{
		{"second line is dropped", "free\nmsgs\n", "2\n"},
		{"longest line", long + "\n", "ok got <" + long + ">\n"},
		{"too long", long + "a\n", "error: Command too long\n"},
		{"far too long", strings.Repeat(long, 70) + "\n", "error: Command too long\n"},
		{"NUL ends a line for a worker", "ping\x00junk\n", "PONG\n"},
		{"NUL after a built-in", "free\x00\n", "ok got <free>\n"},
		{"two CR", "x\r\r\n", "ok got <x\r>\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := askAt(t, r.path("s"), tt.send); got != tt.want {
				t.Errorf("got %.100q, want %.100q", got, tt.want)
			}
		})
	}
	t.Run("probes use no worker", func(t *testing.T) {
		before := r.ask("workerinfo 0")
		for _, text := range []string{"", "free", "half a line"} {
			conn := testenv.Dial(t, "unix", r.path("s"))
			io.WriteString(conn, text)
			conn.(*net.UnixConn).CloseWrite()
			testenv.Patient(conn)
			reply, err := io.ReadAll(conn)
			want := ""
			if text != "" {
				want = textUnfinished
			}
			if err != nil || string(reply) != want {
				t.Errorf("%q and half-close: %q, %v; want %q", text, reply, err, want)
			}
			conn.Close()
		}
		if after := r.ask("workerinfo 0"); strings.Split(after, "\n")[3] != strings.Split(before, "\n")[3] {
			t.Errorf("a worker was used: %q, before %q", after, before)
		}
	})
	t.Run("split writes", func(t *testing.T) {
		conn := testenv.Dial(t, "unix", r.path("s"))
		for _, piece := range []string{"fr", "e", "e\n"} {
			io.WriteString(conn, piece)
			r.ask("msgs")
		}
		if reply, _ := io.ReadAll(conn); string(reply) != "2\n" {
			t.Errorf("got %q", reply)
		}
	})
	r.end()
}

// TestRealWorkerSignals has a shell as worker: a Go program changes the signals it
// inherits.
func TestRealWorkerSignals(t *testing.T) {
	t.Parallel()
	r := prepare(t)
	r.worker = r.path("sh-worker")
	script := "#!/bin/sh\nwhile read -r line; do set -- $(grep SigIgn /proc/self/status); echo \"$2\"; done\n"
	if err := os.WriteFile(r.worker, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	r.start(exec.Command(testenv.Binary(t, "multiplexor"), r.args("-D")...))
	ignored := strings.TrimSpace(r.ask("x"))
	if mask, err := strconv.ParseUint(ignored, 16, 64); err != nil || mask&(1<<(syscall.SIGPIPE-1)) == 0 || mask&(1<<(syscall.SIGTERM-1)|1<<(syscall.SIGHUP-1)|1<<(syscall.SIGINT-1)) != 0 {
		t.Errorf("signals ignored by a worker: %s (%v)", ignored, err)
	}
	r.end()
}

func TestRealStatusTag(t *testing.T) {
	t.Parallel()
	r := startReal(t, "-Z", "-O", "n")
	events := testenv.Dial(t, "unix", r.path("n"))
	io.WriteString(events, "?S\n")
	testenv.Patient(events)
	reader := bufio.NewReader(events)
	if line, err := reader.ReadString('\n'); line != "*OK\n" {
		t.Fatalf("greeting %q, %v", line, err)
	}
	// The interest line has no answer: ask until an event comes.
	var stop atomic.Bool
	asks := testenv.Go(t, "requests", func() error {
		for !stop.Load() {
			if _, err := requestAt(r.path("s"), "do status 1:%20>%20step%0AZ\n"); err != nil {
				return err
			}
		}
		return nil
	})
	for {
		line, err := reader.ReadString('\n')
		if err != nil {
			t.Errorf("no event with the worker's text: %v", err)
			break
		}
		if strings.HasPrefix(line, "S ") && strings.HasSuffix(line, " 1: > step Z\n") {
			break
		}
	}
	stop.Store(true)
	asks.Wait()
	r.end()
}

func TestRealSignals(t *testing.T) {
	t.Parallel()
	r := startReal(t, "-x", "1", "-O", "n")
	before := r.ask("workerinfo 0")
	r.proc.Stop(syscall.SIGINT)
	testenv.Eventually(t, "another worker after SIGINT", func() bool {
		info := r.ask("workerinfo 0")
		return strings.HasPrefix(info, "Worker 0\nState Idle\n") && strings.Split(info, "\n")[2] != strings.Split(before, "\n")[2]
	})
	r.proc.Stop(syscall.SIGHUP)
	r.want("ping", "PONG\n")
	// A busy worker may finish, and its client gets the answer.
	release, reply := r.hold("")
	r.waitStatus("B")
	r.proc.Stop(syscall.SIGTERM)
	release()
	if got := reply(); got != "ok did\n" {
		t.Errorf("client of a busy worker got %q", got)
	}
	if status := r.proc.Wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// TestSignalsWithoutAMeaning: SIGQUIT, which a key of the terminal sends, ends the
// program as SIGTERM does, and others that nobody should send do nothing.
func TestSignalsWithoutAMeaning(t *testing.T) {
	t.Parallel()
	r := startReal(t, "-x", "1")
	for _, sig := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGPIPE} {
		r.proc.Stop(sig)
		r.want("ping", "PONG\n")
	}
	release, reply := r.hold("")
	r.waitStatus("B")
	r.proc.Stop(syscall.SIGQUIT)
	release()
	if got := reply(); got != "ok did\n" {
		t.Errorf("client of a busy worker got %q", got)
	}
	if status := r.proc.Wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if out := r.proc.Output(); strings.Contains(out, "goroutine") || !strings.Contains(out, "Received SIGQUIT") {
		t.Errorf("it wrote\n%s", out)
	}
}

// TestSecondSignalEndsAtOnce: who still waits for a worker gets an error, and no worker is left.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	r := startReal(t, "-x", "1")
	_, reply := r.hold("")
	r.waitStatus("B")
	workers := processesOf(r.proc.Pid())
	r.proc.Stop(syscall.SIGTERM)
	testenv.Eventually(t, "the beginning of the end", func() bool {
		_, err := os.Lstat(r.path("s"))
		return err != nil
	})
	r.proc.Stop(syscall.SIGTERM)
	if got := reply(); got != pool.FailShutdown.Text() {
		t.Errorf("client of a busy worker got %q", got)
	}
	if status := r.proc.Wait(); status != 1 {
		t.Errorf("exit status %d", status)
	}
	testenv.Eventually(t, "the end of the worker, which nobody lets go on", func() bool {
		return !slices.ContainsFunc(workers, func(pid int) bool { return syscall.Kill(pid, 0) == nil })
	})
}

func TestRealBackground(t *testing.T) {
	t.Parallel()
	r := prepare(t)
	bin := testenv.Binary(t, "multiplexor")
	args := r.args("-p", r.path("pid"))
	stdout, stderr, status := testenv.Run(t, bin, args...)
	// Where nothing takes its log, it says so while somebody hears it.
	want := ""
	if _, err := os.Stat("/dev/log"); err != nil {
		want = "the log is lost"
	}
	if status != 0 || stdout != "" || (want == "") != (stderr == "") || !strings.Contains(stderr, want) {
		t.Fatalf("status %d, output %q, want %q", status, stdout+stderr, want)
	}
	// The sockets answer as soon as the parent has gone.
	r.want("ping", "PONG\n")
	text, err := os.ReadFile(r.path("pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSuffix(string(text), "\n"))
	if err != nil {
		t.Fatalf("process id file: %q", text)
	}
	defer syscall.Kill(pid, syscall.SIGKILL)
	if sid, err := syscall.Getpgid(pid); err != nil || sid == pid {
		t.Errorf("process group %d of process %d, %v: it leads a group", sid, pid, err)
	}
	comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if string(comm) != "multiplexor\n" {
		t.Errorf("process name %q", comm)
	}
	t.Run("second instance", func(t *testing.T) {
		_, stderr, status := testenv.Run(t, bin, args...)
		if status != 1 || !strings.Contains(stderr, "Error from child: Cannot lock lockfile: Is another copy running?") {
			t.Errorf("status %d, %q", status, stderr)
		}
		_, stderr, status = testenv.Run(t, bin, r.args()...)
		if status != 1 || !strings.Contains(stderr, "Error from child: Unable to create listening socket.") {
			t.Errorf("without a lock: status %d, %q", status, stderr)
		}
		r.want("ping", "PONG\n") // no harm done
	})
	syscall.Kill(pid, syscall.SIGTERM)
	testenv.Eventually(t, "the end", func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
	for _, name := range []string{"s", "pid", "pid.lock"} {
		if _, err := os.Lstat(r.path(name)); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
}

func TestRealRefusals(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	r := prepare(t)
	bin := testenv.Binary(t, "multiplexor")
	theirs := r.path(originalName)
	if err := os.Symlink(bin, theirs); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, program string
		args          []string
		status        int
		want          string
	}{
		{"root", bin, []string{"-f", "/x"}, 1, "ERROR: You must not run multiplexor as root."},
		{"root by name", bin, []string{"-D", "-U", "root", "-f", "/x"}, 1, "as root."},
		{"unknown user", bin, []string{"-U", "no-such-user", "-f", "/x"}, 1, ": Unknown user 'no-such-user'"},
		{"no spool", bin, []string{"-U", "nobody", "-z", "/nonexistent", "-f", "/x"}, 1, ": Unable to chdir(/nonexistent): no such file or directory"},
		{"relative worker", bin, []string{"-f", "worker"}, 78, "not an absolute path"},
		{"relative worker, theirs", theirs, []string{"-f", "worker"}, 1, "not an absolute path"},
		{"queue too long, theirs", theirs, []string{"-q", "129"}, 1, "Request queue size 129 too big (128 max)"},
		{"facility, theirs", theirs, []string{"-S", "nonsense"}, 1, "Unknown syslog facility nonsense"},
		{"no number behind ignored words, theirs", theirs, []string{"one", "-V", "-1", "two", "-x", "many"}, 1, "expected a number"},
		{"no number", theirs, []string{"-x", "many"}, 1, "expected a number"},
		{"TCP request socket", theirs, []string{"-D", "-U", "nobody", "-z", r.dir, "-s", "inet:12345"}, 1, "Argument to -s option must be a UNIX-domain socket"},
		{"help, theirs", theirs, []string{"-h"}, 1, "--max-workers"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, stderr, status := testenv.Run(t, tt.program, tt.args...)
			if status != tt.status || !strings.Contains(stderr, tt.want) {
				t.Errorf("status %d, want %d, and %q in:\n%s", status, tt.status, tt.want, stderr)
			}
		})
	}
	if stdout, _, status := testenv.Run(t, theirs, "-v"); status != 0 || stdout != "mimedefang-multiplexor version 3.7.1\n" {
		t.Errorf("-v: status %d, %q", status, stdout)
	}
}

func TestRealPersistentConnections(t *testing.T) {
	t.Parallel()
	r := startReal(t, "-x", "2", "-r", "10000")
	conn := testenv.Dial(t, "unix", r.path("s"))
	// Pipelined: built-in and worker requests, answered in order.
	io.WriteString(conn, "hello 2\nfree\ndo sleep 100\nbusyworkers\nping\nx\nversion\n"+strings.Repeat("y", 17<<10)+"\nfree\n")
	want := mxproto.HelloOK + "2:2\n,7:ok did\n,0:,5:PONG\n,11:ok got <x>\n,"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
		t.Fatalf("got %q, %v, want %q", got, err, want)
	}
	reader := bufio.NewReader(conn)
	if v, err := reader.ReadString(','); err != nil || !strings.Contains(v, ":postern") {
		t.Errorf("version %q, %v", v, err)
	}
	if v, _ := reader.ReadString(','); v != fmt.Sprintf("%d:%s,", len(textTooLong), textTooLong) {
		t.Errorf("long line: %q", v)
	}
	if v, _ := reader.ReadString(','); v != "2:2\n," {
		t.Errorf("after it: %q", v)
	}

	// One that sends a worker's request along with the hello is listened to afterwards.
	syscall.Kill(r.proc.Pid(), syscall.SIGSTOP) // both are to be there when it looks
	testenv.Eventually(t, "a stopped process", func() bool {
		st, err := procstat.Read(r.proc.Pid())
		return err == nil && st.State == 'T'
	})
	hasty := testenv.Dial(t, "unix", r.path("s"))
	answers := bufio.NewReader(hasty)
	for _, send := range []string{"hello 2\nping\n", "ping\n"} {
		io.WriteString(hasty, send)
		syscall.Kill(r.proc.Pid(), syscall.SIGCONT)
		if v, err := answers.ReadString(','); err != nil || !strings.HasSuffix(v, "5:PONG\n,") {
			t.Fatalf("%q answered %q, %v", send, v, err)
		}
	}

	// A client that asks and never reads is not read any more, and closed in the end.
	greedy := testenv.Dial(t, "unix", r.path("s"))
	io.WriteString(greedy, "hello 2\n")
	sent, burst := 0, []byte(strings.Repeat("help\n", 1000))
	testenv.Impatient(greedy)
	var err error
	for err == nil && sent < 100<<20 {
		var n int
		n, err = greedy.Write(burst)
		sent += n
	}
	if err == nil {
		t.Errorf("%d bytes of requests were taken from a client that does not read", sent)
	}
	r.want("ping", "PONG\n")

	// The client library, many at once.
	client := &mxproto.Client{Persistent: true, Dial: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", r.path("s"))
	}}
	defer client.Close()
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			for j := range 50 {
				req := fmt.Sprintf("r %d %d", i, j)
				if reply, err := client.Ask(t.Context(), req); err != nil || reply != "ok got <"+req+">\n" {
					t.Errorf("Ask(%q) = %q, %v", req, reply, err)
				}
			}
		})
	}
	wg.Wait()

	// A client that goes away takes its waiting request with it.
	first, firstReply := r.hold("")
	second, secondReply := r.hold("")
	r.waitStatus("BB")
	leaver := testenv.Dial(t, "unix", r.path("s"))
	io.WriteString(leaver, "hello 2\nping\n")
	testenv.Eventually(t, "a waiting request", func() bool { return strings.Fields(r.ask("status"))[4] == "1" })
	leaver.Close()
	testenv.Eventually(t, "no waiting request", func() bool { return strings.Fields(r.ask("status"))[4] == "0" })
	first()
	second()
	firstReply()
	secondReply()
	r.end()
}

func TestRealMapSocket(t *testing.T) {
	t.Parallel()
	r := startReal(t, "-N", "m", "-x", "1")
	conn := testenv.Dial(t, "unix", r.path("m"))
	exchange := func(send, want string) {
		t.Helper()
		io.WriteString(conn, send)
		got := make([]byte, len(want))
		if n, err := io.ReadFull(conn, got); err != nil || string(got) != want {
			t.Fatalf("%q answered %q, %v, want %q", send, got[:n], err, want)
		}
	}
	exchange("14:mymap some key,", "27:ok got <map mymap some key>,")
	exchange("7:nospace,", "27:PERM Invalid request format,")
	exchange("0:,", "27:PERM Invalid request format,")
	exchange("3:a b;", "40:PERM Netstring missing terminating comma,")
	exchange(" 003:a b,3:c d,", "16:ok got <map a b>,16:ok got <map c d>,")
	release, busy := r.hold("")
	r.waitStatus("B")
	exchange("3:a b,", "20:TEMP No free workers,")
	release()
	busy()
	io.WriteString(conn, "65537:")
	if rest, err := io.ReadAll(conn); err != nil || len(rest) > 0 {
		t.Errorf("after a length over the limit: %q, %v; want the connection closed", rest, err)
	}
	r.end()
}

// TestRealManyConnections: idle connections cost nothing but themselves, and
// everything goes on.
func TestRealManyConnections(t *testing.T) {
	t.Parallel()
	r := startReal(t, "--max-connections", "500")
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range 500 {
		c := testenv.Dial(t, "unix", r.path("s"))
		conns = append(conns, c)
	}
	// The refusal may come before the request has gone out.
	client := &mxproto.Client{Dial: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", r.path("s"))
	}}
	free := func() string {
		reply, err := client.Ask(t.Context(), "free")
		if err != nil {
			t.Log(err)
		}
		return reply
	}
	testenv.Eventually(t, "the refusal of one too many", func() bool { return free() == "error: Too many connections\n" })
	conns[0].Close()
	conns = conns[1:]
	testenv.Eventually(t, "a place that became free", func() bool { return free() == "2\n" })
	r.end()
}

// TestRealSoak: workers are killed at random and in many ways, and every request
// is answered exactly once, by its own answer or an error.
func TestRealSoak(t *testing.T) {
	t.Parallel()
	requests := testenv.Load(8000, 100000)
	r := startReal(t, "-x", "8", "-r", "200", "-q", "1000", "--log-level", "error", "--reload", "classic")
	pid := r.proc.Pid()
	r.waitStatus("ISSSSSSS")
	before := countFDs(t, pid)
	ways := []string{"do exit 1", "do die", `do raw one\ntwo\n;mute`, "do close"}
	client := &mxproto.Client{Persistent: true, Dial: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", r.path("s"))
	}}
	ask := func(line string) string { return askAt(t, r.path("s"), line+"\n") }
	askAgain := func(line string) string { // over one of the connections there are
		reply, err := client.Ask(t.Context(), line)
		if err != nil {
			t.Errorf("%q: %v", line, err)
		}
		return reply
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	count := map[string]int{}
	for i := range 16 {
		ask := ask
		if i%2 == 1 {
			ask = askAgain
		}
		wg.Go(func() {
			for j := range requests / 16 {
				line := fmt.Sprintf("r %d %d", i, j)
				if j%500 == 499 {
					line = ways[(i+j)%len(ways)]
				}
				reply := ask(line)
				what := "good"
				switch {
				case strings.HasPrefix(line, "do "):
					what = "rude"
				case reply == "ok got <"+line+">\n":
				case mxproto.IsError(reply):
					what = reply
				default:
					what = "wrong"
					t.Errorf("%q answered %q", line, reply)
				}
				mu.Lock()
				count[what]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	client.Close()
	t.Log(count)
	if count["good"] < requests*99/100 {
		t.Errorf("only %d good answers of %d requests", count["good"], requests)
	}
	r.proc.Stop(syscall.SIGINT) // a reread ends all workers
	testenv.Eventually(t, "as many descriptors as before", func() bool { return countFDs(t, pid) <= before })
	r.end()
	if left := childrenOf(r.worker); len(left) > 0 {
		t.Errorf("workers left behind: %v", left)
	}
}

// TestRealServiceManager is started as systemd does it: with the request socket
// passed, and told how it is doing.
func TestRealServiceManager(t *testing.T) {
	t.Parallel()
	activate := testenv.Path(t, "socket activation of the multiplexor", "systemd-socket-activate")
	r := prepare(t)
	path := filepath.Join(testenv.ShortDir(t), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	passed := filepath.Join(filepath.Dir(path), "passed")
	args := append([]string{"-l", passed, "--fdname=requests", "-E", "NOTIFY_SOCKET=" + path, "-E", "WATCHDOG_USEC=200000", testenv.Binary(t, "multiplexor")}, r.args()...)
	r.proc = testenv.Start(t, exec.Command(activate, args...))
	testenv.Eventually(t, "the passed socket", func() bool {
		conn, err := testenv.Connect("unix", passed)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	if got := askAt(t, passed, "ping\n"); got != "PONG\n" {
		t.Errorf("over the passed socket: %q", got)
	}
	if _, err := os.Lstat(r.path("s")); err == nil {
		t.Error("a request socket of its own was bound as well")
	}
	hears := func(wants ...string) { // in any order
		t.Helper()
		testenv.Patient(manager)
		for b := make([]byte, 4096); len(wants) > 0; {
			n, err := manager.Read(b)
			if err != nil {
				t.Fatalf("the service manager does not hear %v: %v", wants, err)
			}
			wants = slices.DeleteFunc(wants, func(want string) bool { return strings.Contains(string(b[:n]), want) })
		}
	}
	hears("READY=1", "STATUS=", "WATCHDOG=1")
	r.proc.Stop(syscall.SIGINT)
	hears("RELOADING=1")
	hears("READY=1")
	r.proc.Stop(syscall.SIGTERM)
	hears("STOPPING=1")
	if status := r.proc.Wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if _, err := os.Lstat(passed); err != nil {
		t.Errorf("the passed socket was removed: %v", err)
	}
}

// TestScanByAnotherName: the spool may be given by a symbolic link, and clients may
// know it by either name; under the original's name nothing is refused.
func TestScanByAnotherName(t *testing.T) {
	t.Parallel()
	r := prepare(t)
	link := r.dir + "-link"
	if err := errors.Join(os.Symlink(r.dir, link), os.Mkdir(r.path("msg"), 0o755)); err != nil {
		t.Fatal(err)
	}
	r.start(exec.Command(testenv.Binary(t, "multiplexor"), r.args("-D", "-z"+link)...))
	for _, dir := range []string{r.path("msg"), link + "/msg"} {
		r.want("scan q "+dir, "ok got <scan q "+dir+">\n")
	}
	r.want("scan q /etc", textOutside)
	r.end()

	r = prepare(t)
	theirs := r.path(originalName)
	if err := os.Symlink(testenv.Binary(t, "multiplexor"), theirs); err != nil {
		t.Fatal(err)
	}
	r.start(exec.Command(theirs, r.args("-D")...))
	r.want("scan q /etc", "ok got <scan q /etc>\n")
	r.end()
}

// TestRealMetrics reads the metrics as Prometheus does.
func TestRealMetrics(t *testing.T) {
	t.Parallel()
	r := startReal(t, "--metrics", "x", "-x", "3", "--scan-below-spool=no")
	r.want("scan q d", "ok got <scan q d>\n")
	r.want("do exit 1", noResponse)
	r.want("ping", "PONG\n")
	conn := testenv.Dial(t, "unix", r.path("x"))
	io.WriteString(conn, "GET /metrics HTTP/1.0\r\n\r\n")
	page, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`postern_multiplexor_requests_total{kind="scan"} 1`, `postern_multiplexor_failures_total{reason="died"} 1`, `postern_multiplexor_deaths_total 1`,
		`postern_multiplexor_request_seconds_bucket{kind="scan",le="120"} 1`, `postern_multiplexor_request_seconds_count{kind="command"} 2`, `postern_multiplexor_queue_wait_seconds_count 0`,
		`postern_multiplexor_log_lines_dropped_total 0`, `postern_multiplexor_worker_cpu_seconds_total{worker="0"}`, `postern_multiplexor_worker_resident_bytes{worker="0"}`,
		`postern_multiplexor_workers_max 3`, `postern_multiplexor_workers{state="stopped"}`, "postern_multiplexor_connections 0"} {
		if !strings.Contains(string(page), want+"\n") && !strings.Contains(string(page), want+" ") {
			t.Errorf("no line %s", want)
		}
	}
	lintMetrics(t, string(page))
	if t.Failed() {
		t.Logf("%s", page)
	}
	r.end()
}

// lintMetrics sees that our metrics are named as Prometheus wants it: what only grows
// ends in _total and nothing else does, histograms are of a unit, which is a base unit,
// and each has a help text.
func lintMetrics(t *testing.T, page string) {
	t.Helper()
	n := 0
	for line := range strings.Lines(page) {
		words := strings.Fields(line)
		if len(words) != 4 || words[1] != "TYPE" || !strings.HasPrefix(words[2], "postern_multiplexor_") {
			continue
		}
		n++
		name, kind := words[2], words[3]
		if (kind == "counter") != strings.HasSuffix(name, "_total") {
			t.Errorf("%s is a %s", name, kind)
		}
		if kind == "histogram" && !strings.HasSuffix(name, "_seconds") && !strings.HasSuffix(name, "_bytes") {
			t.Errorf("the histogram %s has no unit", name)
		}
		for _, unit := range []string{"_ms", "_milliseconds", "_kb", "_kilobytes", "_minutes", "_percent"} {
			if strings.Contains(name+"_", unit+"_") {
				t.Errorf("%s is not of a base unit", name)
			}
		}
		if !strings.Contains(page, "# HELP "+name+" ") || strings.ToLower(name) != name {
			t.Errorf("%s has no help text, or capital letters", name)
		}
	}
	if n < 15 {
		t.Errorf("%d metrics", n)
	}
}

// countFDs counts the descriptors of a process, which shows them to root alone: 0 for anybody else.
func countFDs(t *testing.T, pid int) int {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if errors.Is(err, fs.ErrPermission) && os.Getuid() != 0 {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// childrenOf returns the processes that run the program.
func childrenOf(program string) (pids []string) {
	exes, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, exe := range exes {
		if target, err := os.Readlink(exe); err == nil && target == program {
			pids = append(pids, exe)
		}
	}
	return pids
}

// TestRealHalfClose: a client that says that it has no more to ask gets all that it
// has asked for, and then the end.
func TestRealHalfClose(t *testing.T) {
	t.Parallel()
	r := startReal(t, "-N", "m", "-x", "1")
	held := fmt.Sprintf("%d:%s,", len(textUnfinished), textUnfinished)
	for _, tt := range []struct{ name, socket, send, want string }{
		{"requests", "s", "hello 2\ndo sleep 200\nfree\nx\n", mxproto.HelloOK + "7:ok did\n,2:1\n,11:ok got <x>\n,"},
		{"built-in ones", "s", "hello 2\nfree\nfree\n", mxproto.HelloOK + "2:1\n,2:1\n,"},
		{"nothing", "s", "hello 2\n", mxproto.HelloOK},
		{"part of a request", "s", "hello 2\nping\nfr", mxproto.HelloOK + "5:PONG\n," + held},
		{"part of a request too long", "s", "hello 2\n" + strings.Repeat("x", 20<<10), mxproto.HelloOK + held},
		{"many replies", "s", "hello 2\n" + strings.Repeat("help\n", 5000), ""},
		{"lookups", "m", "3:a b,3:c d,", "16:ok got <map a b>,16:ok got <map c d>,"},
		{"part of a lookup", "m", "3:a b,3:c", "16:ok got <map a b>,"},
		{"no lookup", "m", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn := testenv.Dial(t, "unix", r.path(tt.socket))
			if _, err := io.WriteString(conn, tt.send); err != nil {
				t.Fatal(err)
			}
			if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(conn)
			switch {
			case err != nil:
				t.Errorf("%v after %.200q", err, got)
			case tt.name == "many replies":
				if n := strings.Count(string(got), "(Any other command"); n != 5000 || !strings.HasSuffix(string(got), ")\n,") {
					t.Errorf("%d replies", n)
				}
			case string(got) != tt.want:
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	testenv.Eventually(t, "no connection left", func() bool { return countFDs(t, r.proc.Pid()) < 20 })
	r.end()
}
