package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// play runs a real `go test -json` over a module with one package per file.
func play(t *testing.T, files map[string]string) (*report, *strings.Builder) {
	t.Helper()
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
	if err := r.run([]string{"go", "test", "-json", "-vet=off", "./..."}); err != nil {
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
	r.failedStages = list{"gofmt"}
	if r.close(false) || !strings.Contains(out.String(), "FAILED: gofmt") {
		t.Errorf("a failed stage went unnoticed:\n%s", out)
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
	if err := r.run([]string{"sh", "-c", "exit 1"}); err == nil {
		t.Error("no error, though no test failed and the status is 1")
	}
	if err := r.run([]string{"no-such-go", "test"}); err == nil {
		t.Error("no error for a program that is not there")
	}
}
