package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// systemPath holds the directories that a normal user's PATH often lacks.
const systemPath = "/usr/local/sbin:/usr/sbin:/sbin"

// Complete says whether nothing may be left out: under CI=true.
func Complete() bool { return os.Getenv("CI") == "true" }

// Need makes sure that all programs are there, in PATH or one of the sbin
// directories. If one is missing the test ends as LeaveOut says.
func Need(t testing.TB, what string, programs ...string) {
	t.Helper()
	NotQuick(t, "needs "+strings.Join(programs, ", "))
	var missing []string
	for _, p := range programs {
		if _, err := Find(p); err != nil {
			missing = append(missing, p)
		}
	}
	if len(missing) > 0 {
		LeaveOut(t, what, "no program "+strings.Join(missing, ", "))
	}
}

// NeedRoot ends the test as Need does, unless it runs as root.
func NeedRoot(t testing.TB) {
	t.Helper()
	NotQuick(t, "needs root")
	if os.Geteuid() != 0 {
		LeaveOut(t, t.Name(), "needs root")
	}
}

// NeedNamespaces is NeedRoot for what has mounts, processes or a network of its own, which a container or a chroot may
// not allow: the test ends as Impossible says.
func NeedNamespaces(t testing.TB) {
	t.Helper()
	NeedRoot(t)
	out, err := exec.Command(Path(t, "namespaces", "unshare"), "--mount", "--pid", "--ipc", "--uts", "--net", "--fork", "true").CombinedOutput()
	if err != nil {
		Impossible(t, fmt.Sprintf("no namespaces: %s (%v)", out, err))
	}
}

// NotQuick skips the test in a quick run, as `make check` is (go test -short): one of tests that need no peer, no
// root and little time. The full run has it, so it counts as left to that, and not as left out.
func NotQuick(t testing.TB, why string) {
	t.Helper()
	if testing.Short() {
		t.Skipf("quick run: %s", why)
	}
}

// LeaveOut ends the test: as failed under CI=true, else as skipped. `make test`
// shows each skipped test, with what was left out and why, in its closing table.
func LeaveOut(t testing.TB, what, why string) {
	t.Helper()
	if Complete() {
		t.Fatalf("%s: %s, and CI=true lets nothing be left out", what, why)
	}
	t.Skipf("%s: %s", what, why)
}

// Impossible skips the test because of something that nobody can install: this machine, or what is around it, cannot
// have it. `make test` shows it as left out, and does not fail for it, not even under CI=true.
func Impossible(t testing.TB, why string) {
	t.Helper()
	t.Skipf("not possible here: %s", strings.Join(strings.Fields(why), " "))
}

// Find gives the path of a program, looked for in PATH and then in the sbin
// directories.
func Find(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err == nil {
		return path, nil
	}
	if !strings.Contains(program, "/") {
		for _, dir := range strings.Split(systemPath, ":") {
			if path, err := exec.LookPath(dir + "/" + program); err == nil {
				return path, nil
			}
		}
	}
	return "", err
}

// Path is Need for a single program, and gives its path.
func Path(t testing.TB, what, program string) string {
	t.Helper()
	Need(t, what, program)
	path, err := Find(program)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return path
}
