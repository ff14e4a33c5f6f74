// Package test tries the suite as a whole: the conventions that the tree keeps,
// the real binaries against each other and against real peers, and the commands
// of the Makefile.
package test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"postern/internal/testenv"
)

// module is the path of the module, which go.mod names.
const module = "postern"

// layer is a package's place in the picture of who may import whom. Imports
// point from a higher layer to a lower one, never sideways but where it says so.
type layer int

const (
	system   layer = iota // system calls, for a package above that needs them
	leaf                  // the standard library alone, and system calls
	format                // a wire or file format; plumbing and formats do not know each other
	plumbing              // what every daemon rests on
	skeleton              // the life of a daemon, or of a tool
	public                // may be imported from outside: formats and leaves only
	part                  // belongs to the one program in whose directory it is
	program               // package main
	testing_              // imported by tests and by the programs under test/
)

// layers is the picture, package by package. Whoever adds a package says here
// what it is.
var layers = map[string]layer{
	"smtp-proxy":                program,
	"smtp-proxy/filter":         part,
	"smtp-proxy/gate":           part,
	"smtp-proxy/header":         part,
	"smtp-proxy/digest":         part,
	"smtp-proxy/held":           part,
	"smtp-proxy/upstream":       part,
	"multiplexor":               program,
	"multiplexor/mx-ctrl":       program,
	"multiplexor/pool":          part,
	"multiplexor/process":       part,
	"pop3-stamp":                program,
	"board/postern-board":       program,
	"board/postern-board/watch": part,
	"notify-tools/notify-cat":   program,
	"notify-tools/notify-exec":  program,
	"notify-tools/notify-wait":  program,
	"filters/filter-basic":      program,
	"filters/mime":              public,
	"filters/worker":            public,

	"filters/filter-basic/archive":    part,
	"filters/filter-basic/scanner":    part,
	"filters/filter-basic/senderauth": part,

	"internal/daemon":   skeleton,
	"notify-tools/tool": skeleton,

	"internal/config":   plumbing,
	"internal/listen":   plumbing,
	"internal/privdrop": plumbing,
	"internal/pidfile":  plumbing,
	"internal/logging":  plumbing,
	"internal/metrics":  plumbing,

	"internal/cluster":         format,
	"internal/failures":        format,
	"internal/mxproto":         format,
	"internal/notify":          format,
	"internal/notify/hub":      format,
	"internal/notify/listener": format,
	"internal/stamp":           format,
	"internal/statfile":        format,
	"internal/workdir":         format,

	"internal/rawio":     system,
	"internal/namedfile": system,

	"internal/completion":  leaf,
	"internal/connlimit":   leaf,
	"internal/evloop":      leaf,
	"internal/netlist":     leaf,
	"internal/percent":     leaf,
	"internal/printable":   leaf,
	"internal/procstat":    leaf,
	"internal/proxyheader": leaf,
	"internal/safedir":     leaf,
	"internal/smtp":        leaf,
	"internal/sockspec":    leaf,
	"internal/store":       leaf,
	"internal/tlsconf":     leaf,
	"internal/version":     leaf,

	"internal/testenv": testing_,
	"test":             testing_,
	"test/bench":       program,
	"test/boot":        testing_,
	"test/demo":        program,
	"test/report":      program,
	"test/types":       program,
}

// below says which layers the packages of a layer may import.
var below = map[layer][]layer{
	system:   {},
	leaf:     {system},
	format:   {leaf},
	plumbing: {leaf, system},
	skeleton: {plumbing, leaf},
	public:   {format, leaf},
	part:     {format, leaf, system},
	program:  {part, public, skeleton, plumbing, format, leaf, system},
	testing_: {part, public, skeleton, plumbing, format, leaf},
}

// beside names, for a package, those that it may import though they are not below it.
var beside = map[string][]string{
	"internal/notify/hub":      {"internal/notify"},
	"internal/notify/listener": {"internal/notify"},
	"notify-tools/tool":        {"internal/notify/listener"},
	"smtp-proxy/digest":        {"internal/logging"},
	"smtp-proxy/filter":        {"smtp-proxy/header"},
	"smtp-proxy/held":          {"smtp-proxy/filter"},
	"multiplexor/process":      {"multiplexor/pool"},
}

// doors names, for each library from outside, the packages that may import it
// in what is not a test.
var doors = map[string][]string{
	"github.com/chromedp/cdproto":         {},
	"github.com/chromedp/chromedp":        {},
	"github.com/alecthomas/kong":          {"internal/config", "internal/completion", "multiplexor/mx-ctrl", "notify-tools/tool"},
	"github.com/coreos/go-systemd/v22":    {"internal/listen", "internal/daemon", "internal/logging"},
	"github.com/emersion/go-message":      {},
	"github.com/emersion/go-smtp":         {"smtp-proxy/upstream"},
	"github.com/google/go-cmp":            {},
	"github.com/pires/go-proxyproto":      {"pop3-stamp", "smtp-proxy/upstream"},
	"github.com/prometheus/client_golang": {"internal/metrics"},
	"github.com/prometheus/common":        {"board/postern-board/watch"},
	"golang.org/x/crypto":                 {"board/postern-board"},
	"golang.org/x/net":                    {"smtp-proxy/gate", "filters/filter-basic/senderauth"},
	"github.com/redis/go-redis/v9":        {"internal/store"},
	"golang.org/x/sys":                    {"internal/safedir", "internal/listen", "internal/daemon", "internal/privdrop", "internal/pidfile", "internal/evloop", "internal/rawio", "internal/statfile", "multiplexor", "multiplexor/mx-ctrl", "multiplexor/process", "notify-tools/notify-cat", "test/bench", "test/boot", "pop3-stamp", "smtp-proxy", "smtp-proxy/gate", "internal/sockspec"},
	"golang.org/x/text":                   {"filters/mime"},
	"golang.org/x/time":                   {"internal/connlimit"},

	"blitiri.com.ar/go/spf":          {"filters/filter-basic/senderauth"},
	"github.com/emersion/go-msgauth": {"filters/filter-basic", "filters/filter-basic/senderauth"},
	"github.com/klauspost/compress":  {"filters/filter-basic"},
	"github.com/miekg/dns":           {},
	"github.com/ulikunitz/xz":        {"filters/filter-basic", "filters/filter-basic/archive"},
}

// source is a parsed Go file.
type source struct {
	name   string // below the root, with slashes
	pkg    string // its directory below the root
	test   bool
	syntax *ast.File
}

// imports gives the import paths of the file.
func (s *source) imports() []string {
	var paths []string
	for _, spec := range s.syntax.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			paths = append(paths, p)
		}
	}
	return paths
}

var parsed = struct {
	once  sync.Once
	files []*source
	err   error
	fset  *token.FileSet
}{fset: token.NewFileSet()}

// sources parses every Go file of the module. The files are read in the test,
// and not listed by the go command, so that a cached result is never out of
// date.
func sources(t *testing.T) []*source {
	t.Helper()
	root := testenv.Root(t)
	parsed.once.Do(func() {
		parsed.err = walk(root, func(name string) error {
			if !strings.HasSuffix(name, ".go") {
				return nil
			}
			syntax, err := parser.ParseFile(parsed.fset, filepath.Join(root, name), nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			parsed.files = append(parsed.files, &source{name, path.Dir(name), strings.HasSuffix(name, "_test.go"), syntax})
			return nil
		})
	})
	if parsed.err != nil {
		t.Fatal(parsed.err)
	}
	return parsed.files
}

// walk calls f with the name, below root, of every file that belongs to the
// tree: not those of git, of what was built, or of another module.
func walk(root string, f func(name string) error) error {
	return filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || file == root {
			return err
		}
		name, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		if name == ".git" && !entry.IsDir() {
			return nil // of a linked work tree
		}
		if entry.IsDir() {
			_, otherModule := os.Stat(filepath.Join(file, "go.mod"))
			if name == ".git" || name == "bin" || otherModule == nil {
				return filepath.SkipDir
			}
			return nil
		}
		return f(filepath.ToSlash(name))
	})
}

// packages gives the files of each package, tests left out.
func packages(t *testing.T) map[string][]*source {
	pkgs := make(map[string][]*source)
	for _, file := range sources(t) {
		if !file.test {
			pkgs[file.pkg] = append(pkgs[file.pkg], file)
		}
	}
	return pkgs
}

func TestConventionEveryPackageHasALayer(t *testing.T) {
	t.Parallel()
	there := packages(t)
	there["test"] = nil // has only tests
	for pkg := range there {
		if _, known := layers[pkg]; !known {
			t.Errorf("package %s is missing in the picture of who may import whom", pkg)
		}
	}
	for pkg := range layers {
		if _, ok := there[pkg]; !ok {
			t.Errorf("the picture names package %s, which is not there", pkg)
		}
	}
	for pkg, files := range there {
		for _, file := range files {
			if isMain := file.syntax.Name.Name == "main"; isMain != (layers[pkg] == program) {
				t.Errorf("%s: package %s, but the picture has layer %d", file.name, file.syntax.Name.Name, layers[pkg])
			}
		}
	}
}

func TestConventionImportsPointDown(t *testing.T) {
	t.Parallel()
	for _, file := range sources(t) {
		for _, imported := range file.imports() {
			if err := mayImport(file, imported); err != nil {
				t.Errorf("%s: %v", file.name, err)
			}
		}
	}
}

func mayImport(file *source, imported string) error {
	if inModule, ok := strings.CutPrefix(imported, module+"/"); ok {
		return mayImportOurs(file, inModule)
	}
	if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") {
		if imported == "C" || imported == "testing" && !file.test && layers[file.pkg] != testing_ {
			return fmt.Errorf("imports %s", imported)
		}
		return nil // the standard library
	}
	for library, users := range doors {
		if imported == library || strings.HasPrefix(imported, library+"/") {
			if file.test || slices.Contains(users, file.pkg) {
				return nil
			}
			return fmt.Errorf("imports %s, whose door is %s", imported, strings.Join(users, ", "))
		}
	}
	return fmt.Errorf("imports %s, which no package is the door of", imported)
}

func mayImportOurs(file *source, imported string) error {
	from, to := layers[file.pkg], layers[imported]
	switch {
	case to == testing_:
		if file.test || from == testing_ || strings.HasPrefix(file.pkg, "test/") {
			return nil
		}
		return fmt.Errorf("imports %s outside of a test", imported)
	case to == program:
		return fmt.Errorf("imports program %s", imported)
	case imported == file.pkg && file.test: // a test in a package of its own
		return nil
	case slices.Contains(beside[file.pkg], imported):
		return nil
	case to == part && path.Dir(imported) != file.pkg:
		return fmt.Errorf("imports %s, which belongs to %s", imported, path.Dir(imported))
	case !file.test && !slices.Contains(below[from], to):
		return fmt.Errorf("imports %s, which is not below it", imported)
	}
	return nil
}

func TestConventionEveryPackageSaysWhatItIs(t *testing.T) {
	t.Parallel()
	for pkg, files := range packages(t) {
		documented := slices.ContainsFunc(files, func(f *source) bool { return f.syntax.Doc.Text() != "" })
		if !documented {
			t.Errorf("package %s has no comment that says what it is for", pkg)
		}
	}
}

func TestConventionExportedNamesAreDocumented(t *testing.T) {
	t.Parallel()
	for _, file := range sources(t) {
		if file.test {
			continue
		}
		for _, decl := range file.syntax.Decls {
			for _, name := range undocumented(decl) {
				t.Errorf("%s: %s has no comment", parsed.fset.Position(name.Pos()), name.Name)
			}
		}
	}
}

// undocumented gives the exported names that a top-level declaration leaves
// without a comment. One comment does for a group of constants or variables.
func undocumented(decl ast.Decl) []*ast.Ident {
	var names []*ast.Ident
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && receiverExported(d) && !satisfiesKnownInterface(d) {
			names = append(names, d.Name)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && s.Doc == nil && s.Comment == nil && d.Doc == nil {
					names = append(names, s.Name)
				}
			case *ast.ValueSpec:
				for _, name := range s.Names {
					if name.IsExported() && s.Doc == nil && s.Comment == nil && d.Doc == nil {
						names = append(names, name)
					}
				}
			}
		}
	}
	return names
}

func receiverExported(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	name, ok := typ.(*ast.Ident)
	return ok && name.IsExported()
}

// satisfiesKnownInterface says whether a method is one whose meaning everybody
// knows.
func satisfiesKnownInterface(d *ast.FuncDecl) bool {
	known := []string{"Error", "String", "Unwrap", "Len", "Less", "Swap", "UnmarshalText", "MarshalText"}
	return d.Recv != nil && slices.Contains(known, d.Name.Name)
}

func TestConventionOutsideLibrariesAreTheListedOnes(t *testing.T) {
	t.Parallel()
	gomod, err := os.ReadFile(filepath.Join(testenv.Root(t), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	direct, _, _ := strings.Cut(string(gomod), "// indirect")
	for _, library := range slices.Sorted(maps.Keys(doors)) {
		if !strings.Contains(direct, "\t"+library+" v") {
			t.Errorf("go.mod does not list %s, which has a door", library)
		}
	}
}

// TestConventionNothingNamesThisMachine looks for paths that mean something on
// the machine of whoever runs the test, and for notes that only the authors of
// the tree could follow.
func TestConventionNothingNamesThisMachine(t *testing.T) {
	t.Parallel()
	root := testenv.Root(t)
	foreign := []string{"/wo" + "rk/", "/tmp/" + "postern/"}
	if home, err := os.UserHomeDir(); err == nil && home != "/" {
		foreign = append(foreign, home+"/")
	}
	if len(root) > 5 { // not /src and the like, which may well be mentioned
		foreign = append(foreign, root)
	}
	err := walk(root, func(name string) error {
		if strings.HasSuffix(name, ".sum") {
			return nil
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return err
		}
		for i, line := range strings.Split(string(text), "\n") {
			for _, f := range foreign {
				if strings.Contains(line, f) {
					t.Errorf("%s:%d names %s", name, i+1, f)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
