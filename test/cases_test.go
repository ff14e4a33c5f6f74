package test

import (
	stdflag "flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postern/internal/testenv"
)

var update = stdflag.Bool("update", false, "write the table of cases anew")

// casesFile has a line for each case of the kinds in wantedCases: the case, and its tests.
const casesFile = "test/cases.txt"

// wantedCases are the cases that must have a test: how many there are of each kind, and those that are not
// for us, with the reason.
var wantedCases = map[string]struct {
	count int
	not   map[int]string
}{
	"INV": {8, nil},
	"SMG": {27, nil},
	"CMD": {30, nil},
	"TLS": {14, nil},
	"PRX": {9, nil},
	"XCL": {5, nil},
	"WRK": {20, nil},
	"MUX": {10, nil},
	"FS":  {17, map[int]string{4: "no process id is ever read back from a file"}},
	"RES": {12, nil},
	"LOG": {5, nil},
}

var (
	caseInName    = regexp.MustCompile(`^Test([A-Z]{2,3})_(\d+)`)
	caseInComment = regexp.MustCompile(`\b(INV|SMG|CMD|TLS|WRK|MUX|EVT|PRX|XCL|POP|FS|RES|LOG)-(\d+)\b`)
)

// TestConventionCases compares the table of security cases with the tests there are, and sees that none is
// missing. A test belongs to a case if its name or its comment says so.
func TestConventionCases(t *testing.T) {
	found := findCases(t)
	var table strings.Builder
	table.WriteString("# Security cases and their tests. Made by: go test ./test -run TestConventionCases -update\n")
	ids := make([]string, 0, len(found))
	for id := range found {
		kind, _, _ := strings.Cut(id, "-")
		if _, wanted := wantedCases[kind]; wanted {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		slices.Sort(found[id])
		fmt.Fprintf(&table, "%s %s\n", id, strings.Join(slices.Compact(found[id]), " "))
	}
	file := filepath.Join(testenv.Root(t), casesFile)
	if *update {
		if err := os.WriteFile(file, []byte(table.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := readTree(t, casesFile); got != table.String() {
		t.Errorf("%s is not what the tests say; make it anew with -update", casesFile)
	}
	for kind, wanted := range wantedCases {
		for n := 1; n <= wanted.count; n++ {
			id := fmt.Sprintf("%s-%02d", kind, n)
			if len(found[id]) == 0 && wanted.not[n] == "" {
				t.Errorf("no test for %s", id)
			}
		}
	}
}

// findCases gives the tests of each case as PACKAGE.TEST.
func findCases(t *testing.T) map[string][]string {
	t.Helper()
	found := make(map[string][]string)
	root := testenv.Root(t)
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		folder, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Recv != nil || !strings.HasPrefix(f.Name.Name, "Test") {
				continue
			}
			for _, id := range casesOf(f) {
				found[id] = append(found[id], folder+"."+f.Name.Name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func casesOf(f *ast.FuncDecl) []string {
	var ids []string
	add := func(m []string) { ids = append(ids, fmt.Sprintf("%s-%02s", m[1], m[2])) }
	if m := caseInName.FindStringSubmatch(f.Name.Name); m != nil {
		add(m)
	}
	for _, m := range caseInComment.FindAllStringSubmatch(f.Doc.Text(), -1) {
		add(m)
	}
	return ids
}
