package filter

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"postern/internal/workdir"
)

// wishes returns what RESULTS and NEWBODY say; no body if it is "".
func wishes(t *testing.T, results, body string, ignored ...string) Wishes {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{"COMMANDS": "F\n", "HEADERS": "", "INPUTMSG": "\n", "RESULTS": results}
	if body != "" {
		files["NEWBODY"] = body
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := workdir.OpenSnapshot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w, err := WishesOf(s, ignored)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

var sums = regexp.MustCompile(`new \([0-9a-f]+\)`)

func TestDifferences(t *testing.T) {
	long := strings.Repeat("long ", 40<<10)
	for _, tt := range []struct {
		name, one, other   string
		oneBody, otherBody string
		want               string
	}{
		{name: "nothing", one: "F\n", other: "F\n"},
		{name: "order of recipients and fields", one: "Ra@b\nSc@d\nHX-A 1\nHX-B 2\nF\n", other: "HX-B 2\nHX-a 1\nSC@d\nRA@b\nRa@b\nF\n"},
		{name: "order of one field", one: "HX-A 1\nHX-A 2\nF\n", other: "HX-A 2\nHX-A 1\nF\n", want: "field x-a: H0 1; H0 2, not H0 2; H0 1"},
		{name: "white space and directory", one: "HX-A in%20%20/spool/mdefang-abc/Work\nF\n", other: "HX-A in%20/spool/mdefang-abc.x1/Work\nF\n"},
		{name: "sender", one: "fa@b\nF\n", other: "F\n", want: "sender: a@b, not nothing"},
		{name: "held", one: "Qwhy\nF\n", other: "Qwhy%20not\nF\n", want: "held: why, not why not"},
		{name: "verdict", one: "D\nF\n", other: "T451 4.3.0 Later\nF\n", want: "verdict: discard, not tempfail 451 4.3.0 Later"},
		{name: "index", one: "I X-A 1 a\nIX-A 1 a\nF\n", other: "IX-A 2 a\nF\n", want: "field x-a: I1 a, not I2 a"},
		{name: "boundary", one: "Mmultipart/mixed;%20boundary=\"one\"\nC\nF\n", other: "Mmultipart/mixed;%20boundary=\"two\"\nC\nF\n",
			oneBody: "--one\nContent-Type: x; boundary=a\n\ntext\n--one--\n", otherBody: "--two\nContent-Type: x; boundary=bb\n\ntext\n--two--\n"},
		{name: "body", one: "C\nF\n", other: "C\nF\n", oneBody: "one\n" + long, otherBody: "one\n" + long + "x", want: "body: new (…), not new (…)"},
		{name: "no body", one: "C\nF\n", other: "F\n", oneBody: "one\n", want: "body: new (…), not nothing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := strings.Join(wishes(t, tt.one, tt.oneBody).Differences(wishes(t, tt.other, tt.otherBody)), "; ")
			if got = sums.ReplaceAllString(got, "new (…)"); got != tt.want {
				t.Errorf("differences are %q, want %q", got, tt.want)
			}
		})
	}
	if d := wishes(t, "HX-Report a\nF\n", "", "x-report").Differences(wishes(t, "F\n", "")); d != nil {
		t.Errorf("a field to be ignored differs: %q", d)
	}
}
