package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postern/internal/testenv"
)

// pidIn returns the number that a process id file holds.
func pidIn(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	return strings.TrimSpace(string(text))
}

// TestStartWhileAnotherDrains: one that takes over while the last requests of another
// are being finished keeps its files and sockets when the other ends.
func TestStartWhileAnotherDrains(t *testing.T) {
	t.Parallel()
	r := prepare(t)
	args := r.args("-D", "-l", "-p", r.path("pid"), "-a", r.path("a"), "-N", r.path("map"), "-O", r.path("n"))
	args = append(args, "--metrics", r.path("m"))
	names := []string{"s", "a", "n", "map", "m", "pid", "pid.lock"}
	r.start(exec.Command(testenv.Binary(t, "multiplexor"), args...))
	first := r.proc
	listener, events := r.listener("?*\n")
	defer listener.Close()
	release, reply := r.hold("")
	testenv.Eventually(t, "a busy worker", func() bool { return strings.Contains(r.ask("status"), "B") })
	first.Stop(syscall.SIGTERM)
	for _, name := range names {
		testenv.Eventually(t, "the first to give up "+name, func() bool {
			_, err := os.Lstat(r.path(name))
			return os.IsNotExist(err)
		})
	}

	r.start(exec.Command(testenv.Binary(t, "multiplexor"), args...))
	if got, want := pidIn(t, r.path("pid")), fmt.Sprint(r.proc.Pid()); got != want {
		t.Errorf("pid file %s, want that of the second, %s", got, want)
	}
	r.want("ping", "PONG\n")
	if !first.Running() {
		t.Fatal("the first has ended before its request")
	}
	// Its listeners still hear of it: at the end of the request at the latest.
	release()
	if got := reply(); got != "ok did\n" {
		t.Errorf("the request of the first got %q", got)
	}
	if status := first.Wait(); status != 0 {
		t.Errorf("first: exit status %d", status)
	}
	testenv.Patient(listener)
	if text, err := io.ReadAll(events); err != nil || !strings.Contains(string(text), "Busy -> Idle") {
		t.Errorf("a listener to the first read %q, %v", text, err)
	}

	for _, name := range names {
		if _, err := os.Lstat(r.path(name)); err != nil {
			t.Errorf("the second has lost %s: %v", name, err)
		}
	}
	if got, want := pidIn(t, r.path("pid")), fmt.Sprint(r.proc.Pid()); got != want {
		t.Errorf("pid file %s after the end of the first, want %s", got, want)
	}
	r.want("ping", "PONG\n")
	for _, name := range []string{"a", "n", "map", "m"} {
		conn, err := testenv.Connect("unix", r.path(name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		conn.Close()
	}
	third := exec.Command(testenv.Binary(t, "multiplexor"), args...)
	if out, err := third.CombinedOutput(); err == nil || !bytes.Contains(out, []byte("Is another copy running?")) {
		t.Errorf("a third one: %v, %s", err, out)
	}
	r.end()
	for _, name := range names {
		if _, err := os.Lstat(r.path(name)); !os.IsNotExist(err) {
			t.Errorf("the second has left %s: %v", name, err)
		}
	}
}

// TestFilesOfRoot: beside a process id file in a directory where only root makes files the lock file is made, too, and what
// keeps either from being made is not taken for another copy.
func TestFilesOfRoot(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	r := prepare(t)
	ours := testenv.ShortDir(t)
	if err := os.Chmod(ours, 0o755); err != nil {
		t.Fatal(err)
	}
	pid := filepath.Join(ours, "pid")
	r.start(exec.Command(testenv.Binary(t, "multiplexor"), r.args("-D", "-p", pid)...))
	r.proc.WaitOutput("msg=ready")
	for _, path := range []string{pid, pid + ".lock"} {
		if got, want := pidIn(t, path), fmt.Sprint(r.proc.Pid()); got != want {
			t.Errorf("%s holds %q, want %s", path, got, want)
		}
	}
	third := exec.Command(testenv.Binary(t, "multiplexor"), r.args("-D", "-p", pid)...)
	if out, err := third.CombinedOutput(); err == nil || !bytes.Contains(out, []byte("Is another copy running?")) {
		t.Errorf("another one: %v, %s", err, out)
	}
	r.end()
	if out := r.proc.Output(); !strings.Contains(out, "msg=ready pid=") || !strings.Contains(out, "msg=stopped") {
		t.Errorf("beginning and end are not in the log:\n%s", out)
	}
	other := exec.Command(testenv.Binary(t, "multiplexor"), r.args("-D", "-o", filepath.Join(ours, "none", "lock"))...)
	if out, err := other.CombinedOutput(); err == nil || bytes.Contains(out, []byte("another copy")) || !bytes.Contains(out, []byte("no such file")) {
		t.Errorf("without the directory: %v, %s", err, out)
	}
}

// TestFailedStartLeavesNoPid: whatever a start fails at, no file says afterwards that a
// process runs that does not, and what belongs to another stays.
func TestFailedStartLeavesNoPid(t *testing.T) {
	t.Parallel()
	r := prepare(t)
	r.start(exec.Command(testenv.Binary(t, "multiplexor"), r.args("-D", "-l", "-p", r.path("pid"))...))
	bin := testenv.Binary(t, "multiplexor")
	mine := fmt.Sprint(r.proc.Pid())
	if err := os.Mkdir(r.path("directory"), 0o755); err != nil {
		t.Fatal(err)
	}
	ours := testenv.ShortDir(t) // of root, if that is who tests
	if err := os.Chmod(ours, 0o755); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		args []string
	}{
		{"a socket is taken", r.args("-p", r.path("other"))},
		{"a socket is taken, directory of root", r.args("-p", filepath.Join(ours, "other"))},
		{"the lock is taken", append(r.args("-p", r.path("other"), "-o", r.path("pid.lock")), "-s", r.path("t"))},
		{"a socket cannot be made", append(r.args("-p", r.path("other"), "-O", r.path("directory")), "-s", r.path("t"))},
		{"a user is unknown", append(r.args("-p", r.path("other"), "--request-users", "no-such-user"), "-s", r.path("t"))},
		{"the pid file is another's", append(r.args("-p", r.path("pid"), "-o", r.path("lock")), "-s", r.path("t"))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, stderr, status := testenv.Run(t, bin, append(tt.args, "-D")...)
			if status == 0 {
				t.Fatalf("it started: %s", stderr)
			}
			for _, path := range []string{r.path("other"), r.path("other.lock"), r.path("lock"), filepath.Join(ours, "other")} {
				if text, err := os.ReadFile(path); err == nil && len(text) > 0 {
					t.Errorf("%s holds %q after %s", path, text, stderr)
				}
			}
			if _, err := os.Lstat(r.path("t")); err == nil {
				t.Error("a socket stays")
			}
			if got := pidIn(t, r.path("pid")); got != mine {
				t.Errorf("pid file of the one that runs: %q, want %s", got, mine)
			}
			r.want("ping", "PONG\n")
		})
	}
}
