package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// test is one test, or a part of one.
type test struct {
	name  string
	began time.Time
	took  float64 // seconds, of one that has ended
	lines []string
	waits bool // for the other parallel ones
}

// pkg is a package whose tests run.
type pkg struct {
	name   string
	began  time.Time
	tests  map[string]*test // those that run, and those that failed; "" is for the package itself
	failed []string         // tests, in the order they ended
	crash  []string         // what was written from a panic on
}

func newPkg(name string, began time.Time) *pkg {
	return &pkg{name: name, began: began, tests: make(map[string]*test)}
}

// take deals with an event of a test.
func (p *pkg) take(e event) {
	t := p.of(e)
	switch e.Action {
	case "run", "cont":
		t.began, t.waits = e.Time, false
	case "pause":
		t.waits = true
	case "output":
		p.keep(e)
	case "fail":
		p.failed = append(p.failed, e.Test)
	}
}

func (p *pkg) of(e event) *test {
	t := p.tests[e.Test]
	if t == nil {
		t = &test{name: e.Test, began: e.Time}
		p.tests[e.Test] = t
	}
	return t
}

// keep holds a line of output until it is known whether its test failed. From a
// panic on it is the whole process that writes, whatever test the line is said
// to be of.
func (p *pkg) keep(e event) {
	switch {
	case strings.HasPrefix(e.Output, "=== "): // RUN, PAUSE, CONT: no news
	case len(p.crash) > 0 && !strings.HasPrefix(e.Output, "--- "), isCrash(e.Output):
		p.crash = append(p.crash, e.Output)
	default:
		t := p.of(e)
		t.lines = append(t.lines, e.Output)
	}
}

// forget drops a test that passed or was skipped.
func (p *pkg) forget(name string) { delete(p.tests, name) }

// reason finds why a test skipped itself: the last line that it wrote, without
// the place in the source.
func (p *pkg) reason(name string) string {
	for _, line := range slices.Backward(p.tests[name].lines) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "--- ") {
			continue
		}
		if place, text, found := strings.Cut(line, ": "); found && strings.Contains(place, ".go:") {
			return text
		}
		return line
	}
	return "no reason given"
}

// running gives the tests that have begun and not ended, without those whose
// parts are running and those that wait for their turn; the longest first.
func (p *pkg) running() []*test {
	var all []*test
	for name, t := range p.tests {
		if name == "" || t.waits || slices.Contains(p.failed, name) || p.hasPart(name) {
			continue
		}
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b *test) int { return a.began.Compare(b.began) })
	return all
}

func (p *pkg) hasPart(name string) bool {
	for other, t := range p.tests {
		if strings.HasPrefix(other, name+"/") && !slices.Contains(p.failed, other) && !t.waits {
			return true
		}
	}
	return false
}

// unfinished gives the names of the tests that were running, as PACKAGE TEST.
func (p *pkg) unfinished() []string {
	var names []string
	for _, t := range p.running() {
		names = append(names, p.name+" "+t.name)
	}
	return names
}

// showFailure prints what the failed tests of a package wrote and, if its
// process died, which tests were running then, what those wrote, and their
// goroutines.
func (p *pkg) showFailure(w io.Writer, at time.Time) {
	write := func(lines []string) {
		for _, line := range lines {
			io.WriteString(w, line)
		}
	}
	for _, name := range p.failed {
		write(p.tests[name].lines)
	}
	running := p.running()
	for _, t := range running {
		fmt.Fprintf(w, "--- RUNNING when the package died: %s (%.1f s)\n", t.name, at.Sub(t.began).Seconds())
		write(t.lines)
	}
	write(ofTests(p.crash, running))
	if outside := p.tests[""]; outside != nil {
		write(outside.lines)
	}
}
