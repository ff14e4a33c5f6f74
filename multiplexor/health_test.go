package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"postern/internal/mxproto"
	"postern/internal/testenv"
	"postern/multiplexor/pool"
)

// ctrl runs mx-ctrl.
func (r *real) ctrl(args ...string) (stdout, stderr string, status int) {
	r.t.Helper()
	return testenv.Run(r.t, testenv.Binary(r.t, "mx-ctrl"), append([]string{"-s", r.path("s")}, args...)...)
}

// TestBrokenWorkerIsTold: what is wrong with a worker comes first in the log, in the
// status, in an event, in the metrics and in the reply; that slots are free is no sign
// that workers work.
func TestBrokenWorkerIsTold(t *testing.T) {
	t.Parallel()
	const cause = "cannot locate Mail/Nothing.pm in @INC"
	r := prepare(t)
	r.worker = r.path("broken")
	broken := "#!/bin/sh\necho 'first " + cause + "' >&2\necho 'BEGIN failed' >&2\nexit 2\n"
	r.write(r.worker, broken)
	if err := os.Chmod(r.worker, 0o755); err != nil {
		t.Fatal(err)
	}
	r.start(exec.Command(testenv.Binary(t, "multiplexor"), r.args("-D", "-O", r.path("n"), "-x", "2", "--metrics", r.path("m"))...))
	r.logged("first " + cause + "; BEGIN failed (exited with status 2): ")
	testenv.Eventually(t, "a request that is refused for the cause", func() bool {
		reply := r.ask("ping")
		return strings.HasPrefix(reply, "error: ") && strings.Contains(reply, cause)
	})
	r.logged("Unable to activate worker")
	if got := r.ask("free"); got != "2\n" {
		t.Errorf("free: %q; what it means is the original's", got)
	}
	status, _, _ := r.ctrl("status")
	if lines := strings.Split(status, "\n"); !strings.HasPrefix(lines[0], "Fault: first "+cause) || lines[1] != "Max workers: 2" || lines[2] != "Working: 0" {
		t.Errorf("status:\n%s", status)
	}
	text, _, _ := r.ctrl("jsonstatus")
	var object struct {
		Working int
		Fault   string
	}
	if err := json.Unmarshal([]byte(text), &object); err != nil || !strings.Contains(object.Fault, cause) {
		t.Errorf("jsonstatus: %s, %v", text, err)
	}
	_, events := r.listener("?*+\n")
	seen := ""
	for !strings.Contains(seen, "*LIVE") {
		line, err := events.ReadString('\n')
		if err != nil {
			t.Fatal(err, seen)
		}
		seen += line
	}
	if !strings.Contains(seen, " N 0\n") || !strings.Contains(seen, " E first "+cause) {
		t.Errorf("the snapshot is\n%s", seen)
	}
	wait := func(condition, limit string) int {
		_, _, status := testenv.Run(t, testenv.Binary(t, "notify-wait"), "--timeout", limit, condition, r.path("n"))
		return status
	}
	if status := wait("working>=1", "100ms"); status != 124 {
		t.Errorf("notify-wait for a working worker: status %d, want 124", status)
	}
	if status := wait("free>=2", testenv.Patience.String()); status != 0 {
		t.Errorf("notify-wait for a free one: status %d", status)
	}

	if stdout, stderr, status := r.ctrl("reread", "--wait"); status != 1 || !strings.Contains(stderr, cause) {
		t.Errorf("reread of broken rules: status %d, %q, %q", status, stdout, stderr)
	}
	if status, _, _ := r.ctrl("status"); !strings.Contains(status, "Reread failed: first "+cause) {
		t.Errorf("status after it:\n%s", status)
	}
	r.write(r.path("mended"), "#!/bin/sh\nwhile read -r line; do echo PONG; done\n")
	if err := os.Chmod(r.path("mended"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(r.path("mended"), r.worker); err != nil {
		t.Fatal(err)
	}
	if stdout, stderr, status := r.ctrl("--wait", "reread"); status != 0 {
		t.Errorf("reread of mended rules: status %d, %q, %q", status, stdout, stderr)
	}
	if status := wait("working>=1", testenv.Patience.String()); status != 0 {
		t.Errorf("notify-wait for a working worker: status %d", status)
	}
	r.want("ping", "PONG\n")
	if status, _, _ := r.ctrl("status"); strings.Contains(status, "Fault") || strings.Contains(status, "failed") || strings.Contains(status, "Working: 0") {
		t.Errorf("status in the end:\n%s", status)
	}
	for seen = ""; !strings.Contains(seen, " E\n") || !strings.Contains(seen, " R\n") || !strings.Contains(seen, " N 1\n"); {
		line, err := events.ReadString('\n')
		if err != nil {
			t.Fatal(err, seen)
		}
		seen += line
	}
	if !strings.Contains(seen, " R failed first "+cause) {
		t.Errorf("the events are\n%s", seen)
	}
	r.end()
}

// TestWorkerInfoTellsUsage: what a worker's process uses stands at the end, for those who look for it.
func TestWorkerInfoTellsUsage(t *testing.T) {
	t.Parallel()
	r := startReal(t)
	r.want("ping", "PONG\n")
	pid := strconv.Itoa(r.workerPid(0))
	if u, ok := mxproto.ParseUsage(r.ask("workerinfo 0"), pid); !ok || u.Memory <= 0 {
		t.Errorf("%+v, %v of %q", u, ok, r.ask("workerinfo 0"))
	}
	r.end()
}

// TestOriginalSaysNothingNew: under the original's name nothing of that is said.
func TestOriginalSaysNothingNew(t *testing.T) {
	t.Parallel()
	r := prepare(t)
	link := r.path(originalName)
	if err := os.Symlink(testenv.Binary(t, "multiplexor"), link); err != nil {
		t.Fatal(err)
	}
	r.start(exec.Command(link, r.args("-D", "-O", r.path("n"))...))
	r.want("ping", "PONG\n")
	r.want("health", "ok got <health>\n") // a worker's
	if got := r.ask("workerinfo 0"); strings.Contains(got, "ResidentKB") {
		t.Errorf("workerinfo: %s", got)
	}
	if got := r.ask("do exit 3"); got != pool.FailDied.Text() {
		t.Errorf("got %q", got)
	}
	if _, stderr, status := r.ctrl("reread", "--wait"); status != 1 || !strings.Contains(stderr, "does not tell") {
		t.Errorf("reread --wait: status %d, %q", status, stderr)
	}
	r.end()
}
