package test

import (
	"fmt"
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestConventionTestsWaitSafely: what depends on the machine's speed, waits for ever or outlives its test has one
// helper in testenv with which it cannot happen; its old form is refused where it can be seen from the source.
func TestConventionTestsWaitSafely(t *testing.T) {
	t.Parallel()
	fatal := fatalFunctions(sources(t))
	for _, file := range testFiles(t) {
		scan := &testScan{file: file, fatal: fatal[file.pkg]}
		for _, decl := range file.syntax.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Body != nil {
				scan.function(f)
			}
		}
		for _, fault := range scan.faults {
			t.Error(fault)
		}
	}
}

// TestConventionTestsHaveAGuardian: whatever a package's tests start ends with them.
func TestConventionTestsHaveAGuardian(t *testing.T) {
	t.Parallel()
	uses, guarded := make(map[string]bool), make(map[string]bool)
	for _, file := range testFiles(t) {
		for _, imported := range file.imports() {
			if imported == module+"/internal/testenv" || imported == "os/exec" {
				uses[file.pkg] = true
			}
		}
		for _, decl := range file.syntax.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Name.Name == "TestMain" && calls(f.Body, "testenv", "Main") {
				guarded[file.pkg] = true
			}
		}
	}
	for pkg := range uses {
		if !guarded[pkg] {
			t.Errorf("package %s has no TestMain that calls testenv.Main", pkg)
		}
	}
}

// timeOutFlag finds a time-out on a command line.
var timeOutFlag = regexp.MustCompile(`--(?:[a-z-]+-)?timeout[= ]([\d.]+(?:[nuµm]?s|m|h)?)`)

// TestConventionTimeOutsAreShortOrLong: a program's time-out is one that is to run out, of a second at most, or one that
// no machine exceeds, of a minute at least. What is between is neither on a slow machine.
func TestConventionTimeOutsAreShortOrLong(t *testing.T) {
	t.Parallel()
	for _, file := range testFiles(t) {
		ast.Inspect(file.syntax, func(n ast.Node) bool {
			var words []ast.Expr
			switch x := n.(type) {
			case *ast.CallExpr:
				words = x.Args
			case *ast.CompositeLit:
				words = x.Elts
			}
			for i, word := range words {
				text, _ := literalString(word)
				if !strings.Contains(text, "timeout") {
					continue
				}
				if i+1 < len(words) {
					value, _ := literalString(words[i+1])
					text += " " + value
				}
				for _, found := range timeOutFlag.FindAllStringSubmatch(text, -1) {
					limit, err := time.ParseDuration(found[1])
					if err != nil {
						limit, err = time.ParseDuration(found[1] + "s")
					}
					if err != nil || limit > time.Second && limit < time.Minute {
						t.Errorf("%s:%d: %s is neither a second at most nor a minute at least (%v)", file.name, parsed.fset.Position(word.Pos()).Line, found[0], err)
					}
				}
			}
			return true
		})
	}
}

// namespaceWords are what namespaces are made with: flags, programs and their commands.
var namespaceWords = regexp.MustCompile(`^(CLONE_NEW\w+|unshare|netns)$`)

// TestConventionTestsNeedNamespaces: what makes namespaces says so where there can be none, and does not fail.
func TestConventionTestsNeedNamespaces(t *testing.T) {
	t.Parallel()
	for _, file := range testFiles(t) {
		var makes ast.Node
		asks := false
		ast.Inspect(file.syntax, func(n ast.Node) bool {
			word := ""
			switch x := n.(type) {
			case *ast.Ident:
				word = x.Name
			case *ast.BasicLit:
				word, _ = literalString(x)
			}
			asks = asks || word == "NeedNamespaces"
			if namespaceWords.MatchString(word) {
				makes = n
			}
			return true
		})
		if makes != nil && !asks {
			t.Errorf("%s:%d: makes namespaces, which may not be possible: testenv.NeedNamespaces", file.name, parsed.fset.Position(makes.Pos()).Line)
		}
	}
}

// testFiles gives the tests of all packages but testenv, which has the helpers.
func testFiles(t *testing.T) []*source {
	t.Helper()
	var files []*source
	for _, file := range sources(t) {
		if file.test && !strings.HasPrefix(file.pkg, "internal/testenv") {
			files = append(files, file)
		}
	}
	return files
}

// endsTest are the methods of testing.TB that end the goroutine that calls them.
var endsTest = []string{"Fatal", "Fatalf", "FailNow", "Skip", "Skipf", "SkipNow"}

// fatalFunctions gives, for each package, the functions and methods that may end the test: they call one of endsTest,
// or another such function. A method counts by its name, if all of that name in the package may.
func fatalFunctions(files []*source) map[string]map[string]bool {
	all := make(map[string]map[string]bool)
	harmless := make(map[string]int) // methods of a package by name, less those that may
	for _, file := range files {
		for _, decl := range file.syntax.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv != nil {
				harmless[file.pkg+key(f)]++
			}
		}
	}
	counted := make(map[*ast.FuncDecl]bool)
	fatal := func(pkg string) map[string]bool {
		if all[pkg] == nil {
			all[pkg] = make(map[string]bool)
		}
		return all[pkg]
	}
	for grown := true; grown; {
		grown = false
		for _, file := range files {
			if !file.test && file.pkg != "internal/testenv" {
				continue
			}
			for _, decl := range file.syntax.Decls {
				f, ok := decl.(*ast.FuncDecl)
				if !ok || f.Body == nil || fatal(file.pkg)[key(f)] || counted[f] || !takesTest(f) {
					continue
				}
				scan := &testScan{file: file, fatal: fatal(file.pkg), env: fatal("internal/testenv")}
				if scan.mayEnd(f.Body) == nil {
					continue
				}
				counted[f], grown = true, true
				if f.Recv != nil {
					if harmless[file.pkg+key(f)]--; harmless[file.pkg+key(f)] > 0 {
						continue
					}
				}
				fatal(file.pkg)[key(f)] = true
			}
		}
	}
	for pkg := range all {
		for name := range all["internal/testenv"] {
			if pkg != "internal/testenv" {
				fatal(pkg)["testenv."+name] = true
			}
		}
	}
	return all
}

// key is the name by which calls know a function: of a method with a dot before it.
func key(f *ast.FuncDecl) string {
	if f.Recv != nil {
		return "." + f.Name.Name
	}
	return f.Name.Name
}

// takesTest reports whether a function can have the test to end: as a parameter, or in its receiver.
func takesTest(f *ast.FuncDecl) bool {
	return hasTest(f.Type) || f.Recv != nil && f.Body != nil && mentions(f.Body, "t")
}

func hasTest(f *ast.FuncType) bool {
	return slices.ContainsFunc(f.Params.List, func(p *ast.Field) bool { return isTestType(p.Type) })
}

func isTestType(e ast.Expr) bool {
	if star, ok := e.(*ast.StarExpr); ok {
		e = star.X
	}
	sel, ok := e.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	pkg, ok := sel.X.(*ast.Ident)
	return ok && pkg.Name == "testing" && slices.Contains([]string{"T", "B", "F", "TB"}, sel.Sel.Name)
}

// testScan looks for faults in the functions of one file of tests.
type testScan struct {
	file   *source
	fatal  map[string]bool // functions of the package that may end the test
	env    map[string]bool // those of testenv, while they are being found
	faults []string
	seen   map[token.Pos]bool
}

func (s *testScan) fault(at ast.Node, format string, args ...any) {
	if s.seen == nil {
		s.seen = make(map[token.Pos]bool)
	}
	if s.seen[at.Pos()] {
		return
	}
	s.seen[at.Pos()] = true
	place := parsed.fset.Position(at.Pos())
	s.faults = append(s.faults, fmt.Sprintf("%s:%d: ", s.file.name, place.Line)+fmt.Sprintf(format, args...))
}

// mayEnd gives a call within n that may end the test, not looking into functions that run on another test's goroutine.
func (s *testScan) mayEnd(n ast.Node) (found *ast.CallExpr) {
	ast.Inspect(n, func(n ast.Node) bool {
		if found != nil {
			return false
		}
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		receiver, name := callee(call)
		switch {
		case name == "Run" && isTestName(receiver): // a subtest has a goroutine of its own
			return false
		case name == "Cleanup" && isTestName(receiver):
			return false
		case slices.Contains(endsTest, name) && isTestName(receiver),
			receiver == "" && s.fatal[name],
			receiver == "testenv" && (s.fatal["testenv."+name] || s.env[name]),
			receiver != "" && receiver != "testenv" && s.fatal["."+name] && !slices.Contains(commonMethods, name):
			found = call
			return false
		}
		return true
	})
	return found
}

// commonMethods have names that types without a test have too, so that a call says nothing.
var commonMethods = []string{"Close", "Read", "Write", "Run", "Wait", "Error", "String", "Serve", "Accept", "Err"}

func isTestName(receiver string) bool {
	last := receiver[strings.LastIndexByte(receiver, '.')+1:]
	return slices.Contains([]string{"t", "b", "f", "tb", "outer"}, last)
}

// callee gives what a call is made on, as "a.b", and the name of what is called.
func callee(call *ast.CallExpr) (receiver, name string) {
	fun := call.Fun
	if index, ok := fun.(*ast.IndexExpr); ok { // instantiated
		fun = index.X
	}
	switch f := fun.(type) {
	case *ast.Ident:
		return "", f.Name
	case *ast.SelectorExpr:
		return dotted(f.X), f.Sel.Name
	}
	return "", ""
}

func dotted(e ast.Expr) string {
	switch x := e.(type) {
	case *ast.Ident:
		return x.Name
	case *ast.SelectorExpr:
		return dotted(x.X) + "." + x.Sel.Name
	case *ast.CallExpr:
		receiver, name := callee(x)
		return receiver + "." + name + "()"
	}
	return "?"
}

func calls(n ast.Node, receiver, name string) (found bool) {
	ast.Inspect(n, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			if r, f := callee(call); r == receiver && f == name {
				found = true
			}
		}
		return !found
	})
	return found
}

// function looks at a function: what it runs on other goroutines is judged by other rules than the rest.
func (s *testScan) function(f *ast.FuncDecl) {
	s.body(f.Body, !takesTest(f)) // the part of a program or peer
}

// body looks at statements. Elsewhere means that they do not run on the test's goroutine: there a wait hangs no test,
// as whoever waits for their end does so with testenv.
func (s *testScan) body(n ast.Node, elsewhere bool) {
	ast.Inspect(n, func(n ast.Node) bool {
		switch x := n.(type) {
		case *ast.GoStmt:
			s.goroutine(x.Call)
			return false
		case *ast.SelectStmt:
			s.selects(x, elsewhere)
			for _, clause := range x.Body.List {
				for _, stmt := range clause.(*ast.CommClause).Body {
					s.body(stmt, elsewhere)
				}
			}
			return false
		case *ast.KeyValueExpr: // a callback in a literal
			if f, ok := x.Value.(*ast.FuncLit); ok && !hasTest(f.Type) {
				s.body(f.Body, true)
				return false
			}
		case *ast.ReturnStmt:
			for _, result := range x.Results {
				f, ok := result.(*ast.FuncLit)
				s.body(result, elsewhere || ok && !hasTest(f.Type) && f.Type.Results != nil)
			}
			return false
		case *ast.UnaryExpr:
			if x.Op == token.ARROW && !elsewhere {
				s.fault(x, "waits for a channel that nobody may fill: testenv.Receive")
			}
		case *ast.CallExpr:
			s.call(x, elsewhere)
			if startsGoroutine(x) {
				return false
			}
			if _, name := callee(x); !slices.Contains(callsBack, name) {
				for _, arg := range x.Args {
					if f, ok := arg.(*ast.FuncLit); ok && !hasTest(f.Type) {
						s.body(f.Body, true)
					} else {
						s.body(arg, elsewhere)
					}
				}
				s.body(x.Fun, elsewhere)
				return false
			}
		}
		return true
	})
}

// callsBack are functions that call what they are given on the goroutine of their caller; others keep it as a callback.
var callsBack = []string{"Eventually", "Poll", "Cleanup", "Run", "OnceFunc", "Fuzz", "Play", "Test"}

// startsGoroutine reports whether a call runs its last argument on another goroutine.
func startsGoroutine(call *ast.CallExpr) bool {
	receiver, name := callee(call)
	if len(call.Args) == 0 {
		return false
	}
	if _, literal := call.Args[len(call.Args)-1].(*ast.FuncLit); !literal {
		return false
	}
	return name == "Go" || receiver == "time" && name == "AfterFunc" || receiver == "http" && name == "HandlerFunc"
}

// goroutine looks at what runs on another goroutine.
func (s *testScan) goroutine(call *ast.CallExpr) {
	n := ast.Node(call)
	if literal, ok := call.Fun.(*ast.FuncLit); ok {
		n = literal.Body
	}
	if end := s.mayEnd(n); end != nil {
		_, name := callee(end)
		s.fault(end, "%s may end the test, and runs on another goroutine: testenv.Go takes a function that returns an error", name)
	}
	if literal, ok := call.Fun.(*ast.FuncLit); ok {
		s.body(literal.Body, true)
	}
	for _, arg := range call.Args {
		s.body(arg, false)
	}
}

func (s *testScan) selects(x *ast.SelectStmt, elsewhere bool) {
	for _, clause := range x.Body.List {
		c := clause.(*ast.CommClause)
		if c.Comm == nil {
			return // a default
		}
		if calls(c.Comm, "time", "After") {
			s.fault(c, "a time limit that depends on the machine's speed: testenv.Receive, or NotYet for what must not come")
			return
		}
	}
	if !elsewhere {
		s.fault(x, "waits for channels that nobody may fill: testenv.Receive")
	}
}

// localPort finds a port that is written down.
var localPort = regexp.MustCompile(`^(127\.\d+\.\d+\.\d+|localhost|\[::1?\])?:([1-9]\d*)$`)

func (s *testScan) call(call *ast.CallExpr, elsewhere bool) {
	receiver, name := callee(call)
	if startsGoroutine(call) {
		literal := call.Args[len(call.Args)-1].(*ast.FuncLit)
		if end := s.mayEnd(literal.Body); end != nil {
			_, name := callee(end)
			s.fault(end, "%s may end the test, and runs on another goroutine: testenv.Go takes a function that returns an error", name)
		}
		s.body(literal.Body, true)
		return
	}
	switch receiver + "." + name {
	case "time.Sleep":
		s.fault(call, "sleeps: testenv.Eventually waits for what is meant")
	case "time.After", "time.Tick", "time.NewTimer", "time.NewTicker":
		s.fault(call, "a clock that is the machine's: testenv.Receive, testenv.NotYet or testenv.Poll")
	case "net.Dial", "net.DialTimeout":
		s.fault(call, "connects without a time limit or with one that depends on the machine: testenv.Dial, or Connect elsewhere")
	case "net.Listen", "net.ListenTCP", "net.ListenPacket", "listen.Open":
		for _, arg := range call.Args {
			if text, ok := literalString(arg); ok && localPort.MatchString(text) {
				s.fault(call, "listens on a port that somebody else may have: port 0, or testenv.FreePort")
			}
		}
	case "context.WithTimeout", "context.WithDeadline":
		if !elsewhere && !mentions(call, "Patience") {
			s.fault(call, "a time limit that depends on the machine's speed: testenv.Patience, or a clock of the test's own")
		}
	}
	switch name {
	case "Start", "Run", "Output", "CombinedOutput":
		last := receiver[strings.LastIndexByte(receiver, '.')+1:]
		if !elsewhere && ownProcesses[s.file.name] == "" && (strings.HasPrefix(receiver, "exec.Command") || last == "cmd") {
			s.fault(call, "a program that nobody ends or waits for within a time: testenv.Start, Run or RunCmd")
		}
	case "StartProcess":
		s.fault(call, "a program that nobody ends: testenv.Start")
	case "SetDeadline", "SetReadDeadline", "SetWriteDeadline":
		if len(call.Args) == 1 && calls(call.Args[0], "time.Now()", "Add") && !mentions(call, "Patience") {
			s.fault(call, "a time limit that depends on the machine's speed: testenv.Patient, or Silent for what must not come")
		}
	}
}

// ownProcesses are files whose tests look at a process in a way that testenv.Process has not.
var ownProcesses = map[string]string{
	"multiplexor/mx-ctrl/terminal_test.go": "a session with a terminal",
	"test/bench/guard_test.go":             "a program with a guard of its own, which is killed",
	"test/mxctrl_test.go":                  "so many runs that their output is not kept",
	"test/report/report_test.go":           "go test, which is tested",
}

func mentions(n ast.Node, name string) (found bool) {
	ast.Inspect(n, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && id.Name == name {
			found = true
		}
		return !found
	})
	return found
}

func literalString(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}
