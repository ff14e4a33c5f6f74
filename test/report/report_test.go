package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/testenv"
)

// play runs a real `go test -json` over a module with one package per file.
func play(t *testing.T, files map[string]string, flags ...string) (*report, *strings.Builder) {
	t.Helper()
	testenv.NotQuick(t, "runs go test many times")
	dir := t.TempDir()
	files["go.mod"] = "module postern\n\ngo 1.26\n"
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var out strings.Builder
	r := &report{out: &out}
	t.Chdir(dir)
	if err := r.run(append([]string{"go", "test", "-json", "-vet=off"}, append(flags, "./...")...), &screen{w: &out, told: time.Now()}); err != nil {
		t.Fatal(err)
	}
	return r, &out
}

const header = "package x\nimport \"testing\"\n"

func TestAllPass(t *testing.T) {
	r, out := play(t, map[string]string{
		"a/a_test.go": header + `func TestA(t *testing.T) { t.Log("noise") }`,
		"b/b_test.go": header + `func TestB(t *testing.T) {}`,
	})
	if !r.close(true) {
		t.Errorf("not ok:\n%s", out)
	}
	got := out.String()
	if !strings.Contains(got, "Nothing was left out.") || strings.Contains(got, "noise") {
		t.Errorf("output:\n%s", got)
	}
	lines := strings.Split(strings.TrimSpace(got), "\n")
	for i, want := range []string{"ok  \tpostern/a\t", "ok  \tpostern/b\t"} {
		if last := lines[len(lines)-2+i]; !strings.HasPrefix(last, want) {
			t.Errorf("line %d from the end is %q, want %q", 2-i, last, want)
		}
	}
}

func TestSkipsAreListed(t *testing.T) {
	r, out := play(t, map[string]string{
		"a/a_test.go": header + `func TestA(t *testing.T) { t.Run("sub", func(t *testing.T) { t.Skip("real peer: no program peer") }) }`,
	})
	r.leftOut = append(r.leftOut, omission{"race detector", "no C compiler"})
	if !r.close(false) {
		t.Errorf("without CI=true a skip is no failure:\n%s", out)
	}
	for _, want := range []string{"Left out of this run (2)", "a TestA/sub", "real peer: no program peer", "race detector"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if strings.Contains(out.String(), ".go:") {
		t.Errorf("the reason names a place in the source:\n%s", out)
	}
	if r.close(true) {
		t.Errorf("under CI=true a skip is a failure:\n%s", out)
	}
}

// TestWhatIsNotPossibleIsNoFailure: it is listed, also under CI=true.
func TestWhatIsNotPossibleIsNoFailure(t *testing.T) {
	r, out := play(t, map[string]string{
		"a/a_test.go": header + `func TestA(t *testing.T) { t.Skip("not possible here: no namespaces") }` + "\nfunc TestB(t *testing.T) {}",
	})
	if !r.close(true) || !strings.Contains(out.String(), "not possible here: no namespaces") {
		t.Errorf("output:\n%s", out)
	}
}

func TestFailuresAreShown(t *testing.T) {
	for name, tc := range map[string]struct{ file, want string }{
		"test":    {header + `func TestA(t *testing.T) { t.Run("sub", func(t *testing.T) { t.Fatal("got 1, want 2") }) }`, "got 1, want 2"},
		"panic":   {header + `func TestA(t *testing.T) { panic("out of cheese") }`, "out of cheese"},
		"os.Exit": {"package x\nimport (\"os\";\"testing\")\nfunc TestMain(m *testing.M) { println(\"before the end\"); os.Exit(3) }", "before the end"},
		"compile": {header + `func TestA(t *testing.T) { undefinedName() }`, "undefinedName"},
	} {
		t.Run(name, func(t *testing.T) {
			r, out := play(t, map[string]string{
				"a/a_test.go": tc.file,
				"b/b_test.go": header + `func TestB(t *testing.T) { t.Log("noise") }`,
			})
			if r.close(false) {
				t.Errorf("ok in spite of a failure:\n%s", out)
			}
			got := out.String()
			if !strings.Contains(got, tc.want) || strings.Contains(got, "noise") {
				t.Errorf("want %q and nothing of package b in:\n%s", tc.want, got)
			}
			if !strings.Contains(got, "FAIL\tpostern/a") || !strings.Contains(got, "ok  \tpostern/b") {
				t.Errorf("summaries are missing:\n%s", got)
			}
		})
	}
}

func TestEarlierStageFails(t *testing.T) {
	r, out := play(t, map[string]string{"a/a_test.go": header + `func TestA(t *testing.T) {}`})
	r.notes = list{"no database"}
	if !r.close(true) || !strings.Contains(out.String(), "\nNote: no database\n") {
		t.Errorf("a note is a failure, or not told:\n%s", out)
	}
	r.failedStages = list{"gofmt"}
	if r.close(false) || !strings.Contains(out.String(), "FAILED: gofmt") {
		t.Errorf("a failed stage went unnoticed:\n%s", out)
	}
}

func TestStagesBeside(t *testing.T) {
	var shown strings.Builder
	const text = "check: go vet\nx.go:1: wrong\nFAILED: go vet\ncheck: govulncheck\nNote: could not look\ncheck: last"
	s := readStages(strings.NewReader(text), &shown)
	if shown.String() != text || !slices.Equal(s.failed, []string{"go vet"}) || !slices.Equal(s.notes, []string{"could not look"}) {
		t.Errorf("failed %q, notes %q, shown\n%s", s.failed, s.notes, &shown)
	}
	for more, ended := range map[string]bool{"": false, "\n" + lastStage: true, "\n" + lastStage + "\n": true} {
		if s := readStages(strings.NewReader(text+more), io.Discard); s.ended != ended {
			t.Errorf("behind %q all have ended: %v", more, s.ended)
		}
	}
}

func TestNoTestsAtAllIsAFailure(t *testing.T) {
	var out strings.Builder
	if r := (&report{out: &out}); r.close(false) {
		t.Errorf("ok without a single package:\n%s", &out)
	}
}

func TestCommandThatFailsOnItsOwn(t *testing.T) {
	r := &report{out: &strings.Builder{}}
	if err := r.run([]string{"sh", "-c", "exit 1"}, &screen{w: io.Discard}); err == nil {
		t.Error("no error, though no test failed and the status is 1")
	}
	if err := r.run([]string{"no-such-go", "test"}, &screen{w: io.Discard}); err == nil {
		t.Error("no error for a program that is not there")
	}
}

// TestDeathOfAPackage: the test that was running is named and its goroutine shown, without the others and without
// what has passed; the tests behind it are not said to have failed.
func TestDeathOfAPackage(t *testing.T) {
	const stuck = `func TestPassed(t *testing.T) { t.Log("noise") }
func TestStuck(t *testing.T) {
	for range 3 { go idle() }
	t.Run("part", func(t *testing.T) { t.Log("before"); stuckHere(t) })
}
func idle() { select {} }
func TestNotReached(t *testing.T) {}
`
	for name, tc := range map[string]struct {
		file  string
		want  []string
		never []string
	}{
		"time limit": {header + stuck + `func stuckHere(t *testing.T) { select {} }`,
			[]string{"--- RUNNING when the package died: TestStuck/part (", "before", "test timed out after", ".stuckHere(", "other goroutines"}, []string{"idle()"}},
		"panic elsewhere": {header + stuck + `func stuckHere(t *testing.T) { go outOfCheese(); idle() }
func outOfCheese() { panic("out of cheese") }`,
			[]string{"TestStuck/part (", "panic: out of cheese", ".outOfCheese("}, []string{"startAlarm"}},
		"killed": {"package x\nimport (\"testing\";\"syscall\")\n" + stuck + `func stuckHere(t *testing.T) { syscall.Kill(syscall.Getpid(), 9); select {} }`,
			[]string{"TestStuck/part (", "signal: killed"}, nil},
		"beside a test that waits for its turn": {header + `func TestWaits(t *testing.T) { t.Parallel() }
func TestStuck(t *testing.T) { select {} }`,
			[]string{"--- RUNNING when the package died: TestStuck ("}, []string{"died: TestWaits"}},
	} {
		t.Run(name, func(t *testing.T) {
			limit := "-timeout=3m"
			if slices.Contains(tc.want, "test timed out after") || strings.HasPrefix(name, "beside") {
				limit = "-timeout=3s"
			}
			r, out := play(t, map[string]string{"a/a_test.go": tc.file}, limit)
			if r.close(false) {
				t.Error("ok in spite of a failure")
			}
			for _, want := range tc.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("no %q in the output", want)
				}
			}
			for _, never := range append(tc.never, "noise", "NotReached") {
				if strings.Contains(out.String(), never) {
					t.Errorf("%q is in the output", never)
				}
			}
			if want := []string{"a TestStuck/part"}; !strings.Contains(name, "beside") && !slices.Equal(r.failures, want) {
				t.Errorf("failures %q, want %q", r.failures, want)
			}
			if t.Failed() {
				t.Log(out)
			}
		})
	}
}

func TestSlowestAndCoverage(t *testing.T) {
	r, out := play(t, map[string]string{
		"a/a.go":      "package x\nfunc Half(b bool) int { if b { return 1 }; return 2 }",
		"a/a_test.go": "package x\nimport (\"testing\";\"time\")\nfunc TestSlow(t *testing.T) { Half(true); time.Sleep(300*time.Millisecond) }\nfunc TestFast(t *testing.T) {}",
		"b/b.go":      "package b\nfunc Untested() int { return 1 }",
	}, "-cover")
	if !r.close(true) || r.done() != 2 {
		t.Errorf("%d passed, %d done:\n%s", r.passed, r.done(), out)
	}
	slow, fast := strings.Index(out.String(), " s  a TestSlow\n"), strings.Index(out.String(), " s  a TestFast\n")
	if slow < 0 || fast < slow {
		t.Errorf("the slowest tests are not in order:\n%s", out)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	for i, want := range []string{"ok  \tpostern/a\t", "\tpostern/b\t"} {
		if last := lines[len(lines)-2+i]; !strings.HasPrefix(last, want) || !strings.Contains(last, "% of statements") {
			t.Errorf("line %d from the end is %q, want %q and its coverage", 2-i, last, want)
		}
	}
}

func TestQuickRunLeavesNothingOut(t *testing.T) {
	r, out := play(t, map[string]string{
		"a/a_test.go": header + `func TestA(t *testing.T) { t.Skip("quick run: needs root") }` + "\nfunc TestB(t *testing.T) {}",
	})
	if !r.close(true) || !strings.Contains(out.String(), "\n1 tests were left to `make test`") || !strings.Contains(out.String(), "Nothing was left out.") {
		t.Errorf("output:\n%s", out)
	}
}

func TestProgress(t *testing.T) {
	start := time.Unix(1700000000, 0)
	r := &report{out: new(strings.Builder), total: 12}
	at := func(seconds int, action, pkg, test string) {
		r.take(event{Time: start.Add(time.Duration(seconds) * time.Second), Action: action, Package: "postern/" + pkg, Test: test, Elapsed: 1})
	}
	for i, step := range [][3]string{
		{"start", "a", ""}, {"start", "b", ""}, {"run", "a", "TestA"}, {"run", "a", "TestA/part"}, {"run", "b", "TestB"}, {"pause", "b", "TestB"}, {"start", "c", ""}, {"run", "c", "TestC"}, {"fail", "c", "TestC"}, {"fail", "c", ""},
	} {
		at(i, step[0], step[1], step[2])
	}
	want := "1 of 12 packages, 1 tests done, 1 FAILED; running: b (19 s), a TestA/part (17 s)"
	if got := r.status(start.Add(20 * time.Second)); got != want {
		t.Errorf("status %q, want %q", got, want)
	}
	if got := r.out.(*strings.Builder).String(); !strings.HasPrefix(got, "test: [ 1/12] c FAILED after") {
		t.Errorf("said %q", got)
	}
}

func TestScreen(t *testing.T) {
	var out strings.Builder
	now := time.Now()
	plain := &screen{w: &out, told: now}
	plain.status("early", now.Add(elsewhere/2))
	plain.status("running", now.Add(elsewhere))
	plain.status("again", now.Add(elsewhere+time.Second))
	if got := out.String(); got != "test: running\n" {
		t.Errorf("plain: %q", got)
	}
	out.Reset()
	terminal := &screen{w: &out, terminal: true}
	terminal.status("one", now)
	fmt.Fprintln(terminal, "news")
	terminal.status(strings.Repeat("x", 200), now)
	terminal.clear()
	terminal.clear()
	if got, want := out.String(), "\r\x1b[Kone\r\x1b[Knews\n\r\x1b[K"+strings.Repeat("x", 76)+"...\r\x1b[K"; got != want {
		t.Errorf("terminal: %q, want %q", got, want)
	}
}

func TestFailuresAreNoted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "failures")
	for _, failures := range [][]string{{"a TestA", "b"}, nil, {"a TestA"}} {
		if err := (&report{failures: failures}).note(file); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "a TestA\nb\na TestA\n" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestSignalsAreHeeded: a child of a run in the background ends with a signal, as it should.
func TestSignalsAreHeeded(t *testing.T) {
	signal.Ignore(syscall.SIGINT)
	defer signal.Reset(syscall.SIGINT)
	survives := func() bool { return exec.Command("sh", "-c", "kill -INT $$; true").Run() == nil }
	if !survives() {
		t.Fatal("a child does not inherit an ignored signal")
	}
	heedSignals()
	if survives() {
		t.Error("a child still ignores the signal")
	}
}
