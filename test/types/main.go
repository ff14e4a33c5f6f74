// Types finds what other machines' compilers would refuse: it checks the types of packages and all that they import,
// with the files that are for that machine, in a few seconds and without compiling anything.
//
//	types [-test] OS/ARCH[,OS/ARCH]... PACKAGE...
//
// With -test, tests as well. Several machines are looked at side by side, and files that they share are read once. The
// exit status is 1 if something was found.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
)

// listed is what go list says of a package.
type listed struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	ImportMap  map[string]string
	Module     *struct{ Main bool }
}

func main() {
	tests := flag.Bool("test", false, "check tests, too")
	flag.Parse()
	if flag.NArg() < 2 {
		fmt.Fprintln(os.Stderr, "types: usage: types [-test] OS/ARCH[,OS/ARCH]... PACKAGE...")
		os.Exit(64)
	}
	var (
		read    = newReader()
		wrong   atomic.Bool
		looking sync.WaitGroup
	)
	for machine := range strings.SplitSeq(flag.Arg(0), ",") {
		looking.Go(func() {
			system, arch, _ := strings.Cut(machine, "/")
			found, err := check(read, ".", system, arch, *tests, flag.Args()[1:])
			for _, err := range append(found, err) {
				if err != nil {
					wrong.Store(true)
					fmt.Fprintf(os.Stderr, "%s: %v\n", machine, err)
				}
			}
		})
	}
	looking.Wait()
	if wrong.Load() {
		os.Exit(1)
	}
}

// check returns what is wrong with the packages of the module in dir.
func check(read *reader, dir, system, arch string, tests bool, patterns []string) (found []error, err error) {
	packages, err := list(dir, system, arch, tests, patterns)
	c := checker{sizes: types.SizesFor("gc", arch), read: read, done: map[string]*types.Package{"unsafe": types.Unsafe}}
	for _, p := range packages {
		c.check(p)
	}
	return c.found, err
}

// list asks for the packages and all that they import, which comes first.
func list(dir, system, arch string, tests bool, patterns []string) (packages []*listed, err error) {
	cmd := exec.Command("go", "list", "-deps", fmt.Sprintf("-test=%t", tests), "-json=ImportPath,Dir,GoFiles,ImportMap,Module")
	cmd.Args = append(cmd.Args, patterns...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+system, "GOARCH="+arch)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, err
	}
	for d := json.NewDecoder(out); err == nil; {
		var p listed
		if err = d.Decode(&p); err == nil {
			packages = append(packages, &p)
		}
	}
	if err == io.EOF {
		err = nil
	}
	return packages, errors.Join(err, cmd.Wait())
}

// checker has the packages that were checked.
type checker struct {
	sizes types.Sizes
	read  *reader
	done  map[string]*types.Package
	found []error
}

// check looks at a package, of which all imports were looked at. Functions of other modules are taken as they are.
func (c *checker) check(p *listed) {
	if p.ImportPath == "unsafe" || strings.HasSuffix(p.ImportPath, ".test") { // go test writes the latter
		return
	}
	ours := p.Module != nil && p.Module.Main
	conf := types.Config{Sizes: c.sizes, IgnoreFuncBodies: !ours, Importer: imports{c, p.ImportMap}, Error: func(err error) {
		c.found = append(c.found, err)
	}}
	c.done[p.ImportPath], _ = conf.Check(strings.Fields(p.ImportPath)[0], c.read.fset, c.parse(p), nil) // conf.Error has them
}

// parse reads the files of a package, side by side.
func (c *checker) parse(p *listed) []*ast.File {
	files := make([]*ast.File, len(p.GoFiles))
	var reading sync.WaitGroup
	for i, name := range p.GoFiles {
		reading.Go(func() {
			files[i] = c.read.file(filepath.Join(p.Dir, name))
		})
	}
	reading.Wait()
	return files
}

// reader reads each file once.
type reader struct {
	fset  *token.FileSet
	files sync.Map // name -> func() *ast.File
}

func newReader() *reader { return &reader{fset: token.NewFileSet()} }

func (r *reader) file(name string) *ast.File {
	read, _ := r.files.LoadOrStore(name, sync.OnceValue(func() *ast.File {
		file, _ := parser.ParseFile(r.fset, name, nil, parser.SkipObjectResolution) // go vet tells of errors
		return file
	}))
	return read.(func() *ast.File)()
}

// imports finds what a package imports among those checked.
type imports struct {
	c     *checker
	names map[string]string
}

func (i imports) Import(path string) (*types.Package, error) {
	if to, ok := i.names[path]; ok {
		path = to
	}
	if p := i.c.done[path]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("%s is not among the packages", path)
}
