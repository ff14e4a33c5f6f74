package test

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// codeReference is how docs/ names a declaration: `multiplexor/pool/dispatch.go: Submit`,
// or a method by its name alone.
var codeReference = regexp.MustCompile("`([a-z0-9_./-]+\\.go): ?([A-Za-z_][A-Za-z0-9_]*)`")

// fileReference is how docs/ names a file or directory of the tree.
var fileReference = regexp.MustCompile("`([a-z0-9_.-]+/[A-Za-z0-9_./-]*)[:`]")

// TestConventionDocsNameWhatIsThere: the plan of the tree names every package, and
// no file or function that is gone.
func TestConventionDocsNameWhatIsThere(t *testing.T) {
	t.Parallel()
	root := testenv.Root(t)
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(pages) == 0 {
		t.Fatalf("%d pages in docs, %v", len(pages), err)
	}
	declared := declarations(t)
	var plan string
	for _, page := range pages {
		raw, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		text, name := string(raw), "docs/"+filepath.Base(page)
		if name == "docs/README.md" {
			plan = text
		}
		for _, ref := range codeReference.FindAllStringSubmatch(text, -1) {
			if file, decl := ref[1], ref[2]; !slices.Contains(declared[file], decl) {
				t.Errorf("%s: %s has no declaration %s", name, file, decl)
			}
		}
		for _, ref := range fileReference.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(root, ref[1])); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	for pkg := range layers {
		if !strings.Contains(plan, "`"+pkg+"`") && !strings.Contains(plan, "`"+pkg+"/`") {
			t.Errorf("docs/README.md does not name package %s", pkg)
		}
	}
}

// declarations gives the names that each file of the tree declares at top level,
// methods included.
func declarations(t *testing.T) map[string][]string {
	names := map[string][]string{}
	for _, file := range sources(t) {
		for _, decl := range file.syntax.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				names[file.name] = append(names[file.name], d.Name.Name)
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch s := spec.(type) {
					case *ast.TypeSpec:
						names[file.name] = append(names[file.name], s.Name.Name)
					case *ast.ValueSpec:
						for _, name := range s.Names {
							names[file.name] = append(names[file.name], name.Name)
						}
					}
				}
			}
		}
	}
	return names
}

// TestConventionDoorsAreUsed: a package that is said to be the door of a library uses it.
func TestConventionDoorsAreUsed(t *testing.T) {
	t.Parallel()
	imports := map[string][]string{}
	for _, file := range sources(t) {
		if !file.test {
			imports[file.pkg] = append(imports[file.pkg], file.imports()...)
		}
	}
	for library, users := range doors {
		for _, pkg := range users {
			if !slices.ContainsFunc(imports[pkg], func(imported string) bool {
				return imported == library || strings.HasPrefix(imported, library+"/")
			}) {
				t.Errorf("package %s is named as a door of %s, and does not import it", pkg, library)
			}
		}
	}
}
