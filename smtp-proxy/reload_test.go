package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"postern/internal/config"
)

// atStart are the functions that look at settings once, at the start, or that only say something of them.
var atStart = []string{
	"Validate", "askServer", "askUpstream", "check", "checkKept", "checkNumbers", "checkPlaces", "checkStamps", "stamps", "directories", "execs", "explain", "followWorkers", "guarded", "heldMaildir", "holdConfig", "idleFilter", "keeps", "listeners", "loadTLS",
	"newGates", "newFilter", "newKept", "newReplay", "newServer", "newShadow", "newSpool", "newUpstreams", "open", "program", "reachable", "relayWarnings", "release", "silent",
	"start", "upstreamConfig", "upstreamShare", "uselessWarnings", "warnings", "withHeld",
}

// What sessions do not look at under the name of the setting.
var (
	derived = []string{"maxloadavg", "clientip-senders", "max-pressure", "local-domains", "tls-cert", "tls-min", "tls-client-cert", "tls-client-ca",
		"upstream-tls-ca", "upstream-tls-cert", "upstream-tls-key"} // read anew at each reload
	partly = []string{"max-header-size", "upstream-timeout"} // without a filter, and between replies
)

// fieldsOf gives the settings of a struct by the name of their field.
func fieldsOf(t reflect.Type, names map[string]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		_, command := f.Tag.Lookup("cmd")
		_, embedded := f.Tag.Lookup("embed")
		switch {
		case command || !f.IsExported():
		case f.Anonymous || embedded:
			fieldsOf(f.Type, names)
		case f.Tag.Get("name") != "":
			names[f.Name] = f.Tag.Get("name")
		}
	}
}

// TestChangedSettingsAreInForceOrNamed: after a reload each setting that has changed is in force, or is named as one that needs
// a restart. It can be in force only if something looks at it that is not of the start.
func TestChangedSettingsAreInForceOrNamed(t *testing.T) {
	t.Parallel()
	fields := map[string]string{}
	fieldsOf(reflect.TypeFor[settings](), fields)
	used := map[string][]string{} // setting -> functions that are not of the start
	files, err := filepath.Glob("*.go")
	must(t, err)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		must(t, err)
		for _, decl := range f.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || slices.Contains(atStart, fn.Name.Name) {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				// Not what packages, a filter, its messages and results call so.
				if sel, ok := n.(*ast.SelectorExpr); ok && fields[sel.Sel.Name] != "" && !isOne(sel.X, "mxproto", "os", "filter", "Stages", "f", "m", "r") {
					used[fields[sel.Sel.Name]] = append(used[fields[sel.Sel.Name]], fn.Name.Name)
				}
				return true
			})
		}
	}
	parser := config.Parser{Program: programName}
	result, err := parser.Parse(&settings{}, nil)
	must(t, err)
	var all []string
	for _, s := range result.Settings {
		all = append(all, s.Name)
		inForce := len(used[s.Name]) > 0 && !slices.Contains(partly, s.Name) || slices.Contains(derived, s.Name)
		if !inForce && !slices.Contains(fixed, s.Name) {
			t.Errorf("%s: nothing looks at it but the start, and a reload does not say so; functions that look at it: %q", s.Name, used[s.Name])
		}
	}
	for _, name := range fixed {
		if !slices.Contains(all, name) {
			t.Errorf("%s is no setting", name)
		}
	}
}

func isOne(x ast.Expr, names ...string) bool {
	switch x := x.(type) {
	case *ast.Ident:
		return slices.Contains(names, x.Name)
	case *ast.SelectorExpr:
		return slices.Contains(names, x.Sel.Name)
	}
	return false
}
