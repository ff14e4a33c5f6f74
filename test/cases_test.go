package test

import (
	stdflag "flag"
	"fmt"
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postern/internal/testenv"
)

var update = stdflag.Bool("update", false, "write the tests of each case into the catalogue anew")

// casesFile is the catalogue of security cases; its head says what an entry looks like.
const casesFile = "test/cases.txt"

var (
	caseEntry   = regexp.MustCompile(`^([A-Z]{2,3}-\d{2,}) +(\S.*)?$`)
	caseInName  = regexp.MustCompile(`^Test([A-Z]{2,3})_(\d+)(.*)$`)
	caseInText  = regexp.MustCompile(`\b([A-Z]{2,3})-(\d+)\b`)
	caseSpeaks  = regexp.MustCompile(`^_[A-Z][A-Za-z0-9]{3,}$`)
	sentenceEnd = regexp.MustCompile(`\w.*\.$`)
)

// TestConventionCases holds the catalogue and the tests together: every case has a sentence and a test, every
// test belongs to a case that is in the catalogue, and its name says more than the id.
func TestConventionCases(t *testing.T) {
	t.Parallel()
	c, err := parseCatalogue(readTree(t, casesFile))
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string][]string)
	for _, file := range sources(t) {
		if file.test {
			testsOfCases(file.syntax, file.pkg, c, found)
		}
	}
	for _, fault := range c.take(found) {
		t.Error(fault)
	}
	if *update {
		if err := os.WriteFile(filepath.Join(testenv.Root(t), casesFile), []byte(c.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := readTree(t, casesFile); got != c.String() {
		t.Errorf("%s does not have the tests that there are; make it anew with -update", casesFile)
	}
}

// testsOfCases adds the tests of a file to those of the cases that their names or comments give, as
// PACKAGE.TEST. What looks like a case in a comment is one only if the catalogue has that kind.
func testsOfCases(file *ast.File, pkg string, c *catalogue, found map[string][]string) {
	for _, decl := range file.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok || f.Recv != nil || !strings.HasPrefix(f.Name.Name, "Test") {
			continue
		}
		add := func(m []string) {
			id := fmt.Sprintf("%s-%02s", m[1], m[2])
			found[id] = append(found[id], pkg+"."+f.Name.Name)
		}
		if m := caseInName.FindStringSubmatch(f.Name.Name); m != nil {
			add(m)
		}
		for _, m := range caseInText.FindAllStringSubmatch(f.Doc.Text(), -1) {
			if c.kinds()[m[1]] {
				add(m)
			}
		}
	}
}

// kind gives the letters of a case.
func kind(id string) string { return id[:strings.IndexByte(id, '-')] }

// entry is a case of the catalogue.
type entry struct {
	id    string
	text  []string // the sentences, as they are written
	none  string   // why there can be no test
	tests []string
	after []string // comments and empty lines up to the next entry
}

// catalogue is the file of cases; written again without a change it is the same.
type catalogue struct {
	head    []string
	entries []*entry
}

func parseCatalogue(text string) (*catalogue, error) {
	c := new(catalogue)
	var e *entry
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		m := caseEntry.FindStringSubmatch(line)
		rest, indented := strings.CutPrefix(line, "\t")
		switch {
		case m != nil:
			e = &entry{id: m[1], text: []string{m[2]}}
			c.entries = append(c.entries, e)
		case (line == "" || line[0] == '#') && e == nil:
			c.head = append(c.head, line)
		case line == "" || line[0] == '#':
			e.after = append(e.after, line)
		case e == nil || len(e.after) > 0:
			return nil, fmt.Errorf("%s:%d: belongs to no case: %q", casesFile, i+1, line)
		case indented && strings.HasPrefix(rest, "none: "):
			e.none = strings.TrimPrefix(rest, "none: ")
		case indented:
			e.tests = append(e.tests, rest)
		case strings.HasPrefix(line, "    "):
			e.text = append(e.text, line)
		default:
			return nil, fmt.Errorf("%s:%d: neither a case, a sentence nor a test: %q", casesFile, i+1, line)
		}
	}
	return c, nil
}

func (c *catalogue) String() string {
	var b strings.Builder
	lines := func(prefix string, lines ...string) {
		for _, line := range lines {
			b.WriteString(strings.TrimRight(prefix+line, " ") + "\n")
		}
	}
	lines("", c.head...)
	for _, e := range c.entries {
		lines(e.id+" ", e.text[0])
		lines("", e.text[1:]...)
		if e.none != "" {
			lines("\t", "none: "+e.none)
		}
		lines("\t", e.tests...)
		lines("", e.after...)
	}
	return b.String()
}

// kinds gives the kinds of cases that there are.
func (c *catalogue) kinds() map[string]bool {
	kinds := make(map[string]bool)
	for _, e := range c.entries {
		kinds[kind(e.id)] = true
	}
	return kinds
}

// take puts the tests that were found into the catalogue, a new case behind the others of its kind, and gives
// what is wrong with the two.
func (c *catalogue) take(found map[string][]string) (faults []string) {
	for id := range found {
		if !slices.ContainsFunc(c.entries, func(e *entry) bool { return e.id == id }) {
			c.insert(&entry{id: id, text: []string{""}})
		}
	}
	last := make(map[string]string)
	for _, e := range c.entries {
		slices.Sort(found[e.id])
		e.tests = slices.Compact(found[e.id])
		if e.id <= last[kind(e.id)] {
			faults = append(faults, fmt.Sprintf("%s stands twice in %s, or out of order", e.id, casesFile))
		}
		last[kind(e.id)] = e.id
		if !sentenceEnd.MatchString(strings.Join(e.text, " ")) {
			faults = append(faults, fmt.Sprintf("%s has no sentence in %s that says what is attacked and what is right", e.id, casesFile))
		}
		if (len(e.tests) == 0) == (e.none == "") {
			faults = append(faults, fmt.Sprintf("%s has %d tests and the reason %q for having none; want one or the other", e.id, len(e.tests), e.none))
		}
		for _, test := range e.tests {
			_, name, _ := strings.Cut(test, ".")
			if m := caseInName.FindStringSubmatch(name); m != nil && !caseSpeaks.MatchString(m[3]) {
				faults = append(faults, fmt.Sprintf("%s does not say what it shows, as Test%s_%s_WhatItShows would", test, m[1], m[2]))
			}
		}
	}
	return faults
}

func (c *catalogue) insert(e *entry) {
	at := len(c.entries)
	for i, other := range c.entries {
		if kind(other.id) == kind(e.id) && (other.id < e.id || at == len(c.entries)) {
			if at = i; other.id < e.id {
				at++
			}
		}
	}
	if at > 0 { // what comes behind the last of a kind belongs to the next kind
		e.after, c.entries[at-1].after = c.entries[at-1].after, nil
	}
	c.entries = slices.Insert(c.entries, at, e)
}

func TestConventionCatalogueKeepsWhatIsWritten(t *testing.T) {
	t.Parallel()
	const text = "# head\n\nAB-01 One thing is\n    attacked.\n\tp.TestAB_01_OneThing\nAB-02 Another.\n\tnone: there is nothing to attack\n\n# next kind\n\nXYZ-01 A third.\n\tp.TestGone\n"
	tests := map[string][]string{"AB-01": {"p.TestAB_01_OneThing"}, "XYZ-01": {"p.TestOther"}}
	for _, tt := range []struct {
		name   string
		more   map[string][]string
		change [2]string
		faults []string
	}{
		{"tests", nil, [2]string{"p.TestGone", "p.TestOther"}, nil},
		{"new case", map[string][]string{"AB-03": {"p.TestAB_03_ThirdThing"}}, [2]string{"attack\n\n# n", "attack\nAB-03\n\tp.TestAB_03_ThirdThing\n\n# n"}, []string{"AB-03 has no sentence"}},
		{"new kind", map[string][]string{"QQ-01": {"p.TestQQ_01"}}, [2]string{"TestGone\n", "TestOther\nQQ-01\n\tp.TestQQ_01\n"}, []string{"QQ-01 has no sentence", "p.TestQQ_01 does not say"}},
		{"lower case", map[string][]string{"AB-01": {"p.TestAB_01_thing"}}, [2]string{"OneThing", "thing"}, []string{"p.TestAB_01_thing does not say"}},
		{"no test", map[string][]string{"AB-01": nil}, [2]string{"\tp.TestAB_01_OneThing\n", ""}, []string{"AB-01 has 0 tests"}},
		{"test of one without", map[string][]string{"AB-02": {"p.TestX"}}, [2]string{"attack\n\n", "attack\n\tp.TestX\n\n"}, []string{"AB-02 has 1 tests"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := parseCatalogue(text)
			if err != nil || c.String() != text {
				t.Fatalf("%v; %q is written as %q", err, text, c)
			}
			found := make(map[string][]string)
			for _, m := range []map[string][]string{tests, tt.more} {
				for id, names := range m {
					found[id] = names
				}
			}
			faults := c.take(found)
			if len(faults) != len(tt.faults) {
				t.Errorf("faults %q, want %q", faults, tt.faults)
			}
			for i, want := range tt.faults[:min(len(faults), len(tt.faults))] {
				if !strings.HasPrefix(faults[i], want) {
					t.Errorf("fault %q, want %q", faults[i], want)
				}
			}
			want := strings.Replace(strings.Replace(text, tt.change[0], tt.change[1], 1), "TestGone", "TestOther", 1)
			if got := c.String(); got != want {
				t.Errorf("written as\n%s\nwant\n%s", got, want)
			}
		})
	}
	for _, bad := range []string{"    no case\n", "AB-01 Text.\nno sentence\n", "AB-01 Text.\n\n\tp.TestLost\n"} {
		if _, err := parseCatalogue(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
