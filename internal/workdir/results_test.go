package workdir

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestParseCaptured(t *testing.T) {
	got, err := ParseResults([]byte(read(t, "testdata/captured/RESULTS")))
	if err != nil {
		t.Fatal(err)
	}
	want := &Results{NewBody: true, Changes: []Change{
		{'H', "X-Example", "id=ivED000 queue=678F499C6BD", 0},
		{'N', "X-First", "first of all", 0},
		{'I', "Subject", "[checked] Quarterly caf\xe9 report, 100% done", 1},
		{'J', "X-Remove-Me", "", 2},
		{'J', "X-Remove-Me", "", 1},
		{'R', "", "<archive@example.org>", 0},
		{'S', "", "<drop@example.org>", 0},
		{'f', "", "<bounces@example.com>", 0},
		{'M', "", "multipart/mixed;\n boundary=\"=_b\"", 0},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestParseResults(t *testing.T) {
	deliver := func(c ...Change) *Results { return &Results{Changes: c} }
	reject := func(code, dsn, text string) *Results {
		return &Results{Verdict: Reject, Code: code, DSN: dsn, Text: text}
	}
	later := func(code, dsn, text string) *Results {
		return &Results{Verdict: TempFail, Code: code, DSN: dsn, Text: text}
	}
	tests := []struct {
		name, text string
		want       *Results // nil: an error
	}{
		{"nothing to do", "F\n", deliver()},
		{"F without its LF", "F", deliver()},
		{"missing F", "HX-A b\n", nil},
		{"empty", "", nil},
		{"reject", "B550 5.7.0 no%20way\nF\n", reject("550", "5.7.0", "no way")},
		{"reject without F", "B550 5.7.0 no\n", reject("550", "5.7.0", "no")},
		{"reject cut off", "B550 5.7.0 no", nil},
		{"raw spaces in the last word", "B550 5.7.0 no way\n", reject("550", "5.7.0", "no way")},
		{"defaults", "B\n", reject("554", "5.7.1", "Forbidden for policy reasons")},
		{"tempfail defaults", "T\nF\n", later("451", "4.3.0", "Please try again later")},
		{"wrong class", "B450 4.7.1 x\n", reject("554", "5.7.1", "x")},
		{"wrong class of T", "T550 5.7.1 x\n", later("451", "4.3.0", "x")},
		{"code 250", "B250 2.0.0 ok\nF\n", reject("554", "5.7.1", "ok")},
		{"code 999", "B999 5.7.1 x\nF\n", reject("554", "5.7.1", "x")},
		{"code abc", "Babc 5.7.1 x\nF\n", reject("554", "5.7.1", "x")},
		{"code 5", "B5 5.7.1 x\nF\n", reject("554", "5.7.1", "x")},
		{"DSN of another class", "B550 2.0.0 x\nF\n", reject("550", "5.7.1", "x")},
		{"DSN too long", "B550 5.1234.0 x\nF\n", reject("550", "5.7.1", "x")},
		{"reply injection", "B550 5.7.0 no%0D%0A250%20ok\nF\n", reject("550", "5.7.0", "no\n250 ok")},
		{"control bytes", "B550 5.7.0 a%00b%1Bc%7F\nF\n", reject("550", "5.7.0", "a b c")},
		{"text with LF at the end", "B550 5.7.0 a%0A%0Ab%0A\nF\n", reject("550", "5.7.0", "a\n\nb")},
		{"discard", "D\nF\n", &Results{Verdict: Discard}},
		{"first verdict counts", "T451 4.3.0 a\nB550 5.0.0 b\nD\nF\n", later("451", "4.3.0", "a")},
		{"refused: no changes", "HX-A b\nC\nB550 5.7.0 x\nMtext/plain\nF\n", reject("550", "5.7.0", "x")},
		{"verdict behind F", "HX-A b\nF\nB550 5.7.0 x\n", deliver(Change{'H', "X-A", "b", 0})},
		{"hold", "Qwhy%20not\nF\n", &Results{Hold: "why not"}},
		{"hold without a reason", "Q\nF\n", &Results{Hold: "held by the filter"}},
		{"hold of a refused one", "Qx\nB\nF\n", &Results{Verdict: Reject, Code: "554", DSN: "5.7.1", Text: "Forbidden for policy reasons", Hold: "x"}},
		{"empty values", "HX-A \nIX-B 1 \nF\n", deliver(Change{'H', "X-A", "", 0}, Change{'I', "X-B", "", 1})},
		{"too few words", "HX-A\nIX-B 1\nNX-C 1\nJX-D\nF\n", deliver()},
		{"indexes", "NA -3 v\nNA x v\nNA 2x v\nIA 0 v\nIA -1 v\nIA y v\nJA 2x\nJA 0\nF\n", deliver(
			Change{'N', "A", "v", 0}, Change{'N', "A", "v", 0}, Change{'N', "A", "v", 2}, Change{'I', "A", "v", 1},
			Change{'I', "A", "v", 1}, Change{'I', "A", "v", 1}, Change{'J', "A", "", 2}, Change{'J', "A", "", 1})},
		{"huge index", "JA 99999999999999999999\nF\n", deliver(Change{'J', "A", "", 999999999})},
		{"header injection", "HX-A a%0D%0ABcc:%20v@x\nF\n", deliver(Change{'H', "X-A", "a\n\tBcc: v@x", 0})},
		{"end of header injection", "HX-A a%0A%0AB%0A%20%0AC\nF\n", deliver(Change{'H', "X-A", "a\n\tB\n\tC", 0})},
		{"folds", "Ma;%0A%20b;%0A%09c\nF\n", deliver(Change{'M', "", "a;\n b;\n\tc", 0})},
		{"control bytes in a value", "HX-A a%00b%1Bc%09d\nF\n", deliver(Change{'H', "X-A", "a b c\td", 0})},
		{"bad names", "HX%20A v\nHX:A v\nH v\nHX%0D%0AA v\nHX\xe9 v\nH" + strings.Repeat("x", 1000) + " v\nF\n", deliver()},
		{"addresses", "R<a@b>\nSc@d\nf<>\nR\nf%0A\nF\n", deliver(Change{'R', "", "<a@b>", 0}, Change{'S', "", "c@d", 0}, Change{'f', "", "<>", 0})},
		{"address injection", "fa@b%3E%0D%0ARCPT%20TO:%3Cx@y\nF\n", deliver(Change{'f', "", "a@b>  RCPT TO:<x@y", 0})},
		{"unknown letters", "Zx\n\n%\nF\n", deliver()},
		{"bad escapes 1", "HX-A a%\nF\n", nil},
		{"bad escapes 2", "HX-A a%4\nF\n", nil},
		{"bad escapes 3", "B550 5.7.0 %GG\nF\n", nil},
		{"decoded once", "HX-A %250A\nF\n", deliver(Change{'H', "X-A", "%0A", 0})},
		{"NUL", "HX-A a\x00\nF\n", nil},
		{"long line", "HX-A " + strings.Repeat("x", maxResultsLine-5) + "\nF\n", deliver(Change{'H', "X-A", strings.Repeat("x", maxResultsLine-5), 0})},
		{"overlong line", "HX-A " + strings.Repeat("x", maxResultsLine) + "\nF\n", nil},
		{"too big", strings.Repeat("Zx\n", 22000) + "F\n", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseResults([]byte(tt.text))
			if tt.want == nil {
				if !errors.Is(err, ErrResults) {
					t.Errorf("%.100q: got %+v, %v; want an error", tt.text, got, err)
				}
				return
			}
			if err != nil {
				t.Fatalf("%.100q: %v", tt.text, err)
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(Results{}, "Skipped"), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%.100q: -want +got\n%s", tt.text, diff)
			}
		})
	}
}

func TestSkippedIsTold(t *testing.T) {
	r, err := ParseResults([]byte("Zx\n\nHX:A v\nJok 1\nR\nF\n"))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Skipped) != 4 || len(r.Changes) != 1 {
		t.Errorf("skipped %q, changes %v", r.Skipped, r.Changes)
	}
}

// TestHostileFiles puts all kinds of files where RESULTS and NEWBODY belong. Nothing may block or be followed.
func TestHostileFiles(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("F\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]func(path string) error{
		"missing":     func(string) error { return nil },
		"link out":    func(p string) error { return os.Symlink(outside, p) },
		"link inside": func(p string) error { return os.Symlink("COMMANDS", p) },
		"dangling":    func(p string) error { return os.Symlink("nowhere", p) },
		"directory":   func(p string) error { return os.Mkdir(p, 0o700) },
		"FIFO":        func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"socket":      func(p string) error { return syscall.Mknod(p, syscall.S_IFSOCK|0o600, 0) },
	}
	if os.Geteuid() == 0 {
		kinds["device"] = func(p string) error { return syscall.Mknod(p, syscall.S_IFCHR|0o600, 1<<8|5) } // /dev/zero
	}
	for name, make := range kinds {
		t.Run(name, func(t *testing.T) {
			d := finish(t, newSpool(t), "A: b\r\n\r\n", 0)
			if err := errors.Join(make(filepath.Join(d.Path(), fileResults)), make(filepath.Join(d.Path(), fileNewBody))); err != nil {
				t.Fatal(err)
			}
			if r, err := d.Results(); !errors.Is(err, ErrResults) {
				t.Errorf("Results: %v, %v", r, err)
			}
			if f, err := d.NewBody(); err == nil {
				t.Errorf("NewBody opened %q", f.Name())
			}
			if err := d.Remove(); err != nil {
				t.Errorf("Remove: %v", err)
			}
			if _, err := os.Stat(outside); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestHugeResults(t *testing.T) {
	d := finish(t, newSpool(t), "", 0)
	f, err := os.Create(filepath.Join(d.Path(), fileResults))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(1<<30), f.Close()); err != nil { // sparse
		t.Fatal(err)
	}
	if _, err := d.Results(); !errors.Is(err, ErrResults) {
		t.Errorf("1 GiB: %v", err)
	}
}

func TestNewBody(t *testing.T) {
	d := finish(t, newSpool(t), "", 0)
	if err := os.WriteFile(filepath.Join(d.Path(), fileNewBody), []byte("new\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := d.NewBody()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != "new\n" {
		t.Errorf("read %q, %v", b, err)
	}
}

func FuzzParseResults(f *testing.F) {
	captured, err := os.ReadFile("testdata/captured/RESULTS")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(captured)
	for _, s := range []string{"B550 5.7.0 a%0Ab\nF\n", "HX-A a%0D%0Ab\nF", "Qx\nT\n", "NA -3 v\nJA 99999999999999999999\nF\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseResults(data)
		if err != nil {
			return
		}
		if bytes.IndexByte(data, 'F') < 0 && r.Verdict == Deliver {
			t.Errorf("%q: delivered without F", data)
		}
		if strings.ContainsAny(r.Text, "\r\x00\x1b") || strings.ContainsAny(r.Hold, "\r\n\x00") {
			t.Errorf("%q: text %q hold %q", data, r.Text, r.Hold)
		}
		for _, c := range r.Changes {
			checkChange(t, c)
		}
	})
}

func checkChange(t *testing.T, c Change) {
	t.Helper()
	if strings.ContainsRune("HNIJ", rune(c.Letter)) && !validName(c.Name) {
		t.Errorf("%+v: bad name", c)
	}
	if strings.ContainsAny(c.Value, "\r\x00") {
		t.Errorf("%+v: control bytes", c)
	}
	if strings.ContainsRune("RSf", rune(c.Letter)) && strings.ContainsAny(c.Value, "\n\t") {
		t.Errorf("%+v: line end in an address", c)
	}
	lines := strings.Split(c.Value, "\n")
	for _, l := range lines[1:] {
		if l == "" || (l[0] != ' ' && l[0] != '\t') || strings.Trim(l, " \t") == "" {
			t.Errorf("%+v: a line that is no fold", c)
		}
	}
	if c.Index < 0 || (c.Letter == 'I' || c.Letter == 'J') && c.Index < 1 {
		t.Errorf("%+v: bad index", c)
	}
}

func BenchmarkParseResults(b *testing.B) {
	data, err := os.ReadFile("testdata/captured/RESULTS")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseResults(data); err != nil {
			b.Fatal(err)
		}
	}
}
