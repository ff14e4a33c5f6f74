package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// LeftOutFile names the environment variable with the file in which tests note
// what they could not run. `make test` sets it and prints the file as its
// closing table.
const LeftOutFile = "POSTERN_TEST_LEFT_OUT"

// systemPath holds the directories that a normal user's PATH often lacks.
const systemPath = "/usr/local/sbin:/usr/sbin:/sbin"

// Complete says whether nothing may be left out: under CI=true.
func Complete() bool { return os.Getenv("CI") == "true" }

// Need makes sure that all programs are there, in PATH or one of the sbin
// directories. If one is missing the test ends: as failed under CI=true, else as
// skipped, and what goes into the closing table as left out.
func Need(t testing.TB, what string, programs ...string) {
	t.Helper()
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
	if os.Geteuid() != 0 {
		LeaveOut(t, t.Name(), "needs root")
	}
}

// LeaveOut ends the test: as failed under CI=true, else as skipped, with a line
// in the closing table that names what was left out and why.
func LeaveOut(t testing.TB, what, why string) {
	t.Helper()
	if Complete() {
		t.Fatalf("%s: %s, and CI=true lets nothing be left out", what, why)
	}
	if err := NoteLeftOut(what, why); err != nil {
		t.Fatal(err)
	}
	t.Skipf("%s: %s", what, why)
}

// NoteLeftOut adds a line to the closing table. Without the environment
// variable LeftOutFile, as in a plain `go test`, there is none and it does
// nothing.
func NoteLeftOut(what, why string) error {
	path := os.Getenv(LeftOutFile)
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		return fmt.Errorf("note what was left out: %w", err)
	}
	defer f.Close()
	// One write of one short line, because many test processes append.
	if _, err := fmt.Fprintf(f, "%s\t%s\n", oneLine(what), oneLine(why)); err != nil {
		return fmt.Errorf("note what was left out: %w", err)
	}
	return nil
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

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
