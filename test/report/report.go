package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// event is what `go test -json` writes (go doc test2json); build events name
// ImportPath instead of Package.
type event struct {
	Action      string
	Package     string
	Test        string
	Elapsed     float64 // seconds
	Output      string
	FailedBuild string
}

// omission is a line of the closing table.
type omission struct{ what, why string }

// report gathers what a run of go test tells.
type report struct {
	out          io.Writer
	leftOut      []omission
	failedStages []string

	output    map[string]map[string][]string // package -> test, "" for the package itself -> lines
	failed    map[string][]string            // package -> its failed tests
	summaries []string                       // go test's last line of each package
	failures  int                            // packages that failed
	passed    int                            // packages that passed
}

// take deals with one event.
func (r *report) take(e event) {
	switch e.Action {
	case "build-output":
		io.WriteString(r.out, e.Output)
	case "output":
		r.keep(e)
	case "skip":
		if e.Test != "" {
			r.leftOut = append(r.leftOut, omission{short(e.Package) + " " + e.Test, r.reason(e)})
		}
		r.forget(e)
	case "fail":
		if e.Test != "" {
			if r.failed == nil {
				r.failed = make(map[string][]string)
			}
			r.failed[e.Package] = append(r.failed[e.Package], e.Test)
			return
		}
		r.failures++
		r.showFailure(e)
		r.forget(e)
	case "pass":
		if e.Test == "" {
			r.passed++
			fmt.Fprintf(r.out, "test: %s passed in %.1f s\n", short(e.Package), e.Elapsed)
		}
		r.forget(e)
	}
}

// keep holds a line of output until it is known whether its test failed.
func (r *report) keep(e event) {
	if strings.HasPrefix(e.Output, "=== ") { // RUN, PAUSE, CONT: no news
		return
	}
	if e.Test == "" && isSummary(e.Output) {
		r.summaries = append(r.summaries, e.Output)
		return
	}
	if r.output == nil {
		r.output = make(map[string]map[string][]string)
	}
	if r.output[e.Package] == nil {
		r.output[e.Package] = make(map[string][]string)
	}
	r.output[e.Package][e.Test] = append(r.output[e.Package][e.Test], e.Output)
}

// isSummary says whether line is go test's last word about a package.
func isSummary(line string) bool {
	return strings.HasPrefix(line, "ok  \t") || strings.HasPrefix(line, "FAIL\t") || strings.HasPrefix(line, "?   \t")
}

// forget drops the output of a test that passed, or of a package that ended.
func (r *report) forget(e event) {
	if e.Test == "" {
		delete(r.output, e.Package)
	} else {
		delete(r.output[e.Package], e.Test)
	}
}

// reason finds why a test skipped itself: the last line that it wrote, without
// the place in the source.
func (r *report) reason(e event) string {
	lines := r.output[e.Package][e.Test]
	for _, line := range slices.Backward(lines) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "--- ") || strings.HasPrefix(line, "=== ") {
			continue
		}
		if place, text, found := strings.Cut(line, ": "); found && strings.Contains(place, ".go:") {
			return text
		}
		return line
	}
	return "no reason given"
}

// showFailure prints what the failed tests of a package wrote, and what was
// written outside of any test, such as a panic.
func (r *report) showFailure(e event) {
	fmt.Fprintf(r.out, "test: %s FAILED after %.1f s\n", short(e.Package), e.Elapsed)
	for _, test := range append(r.failed[e.Package], "") {
		for _, line := range r.output[e.Package][test] {
			io.WriteString(r.out, line)
		}
		delete(r.output[e.Package], test)
	}
	// A test that was running when the process died has no end of its own.
	for _, lines := range r.output[e.Package] {
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "--- PASS") }) {
			for _, line := range lines {
				io.WriteString(r.out, line)
			}
		}
	}
}

// close prints the table of what was left out, the stages that failed, and the
// summaries, and says whether all is well. If complete, it is not when anything
// was left out.
func (r *report) close(complete bool) bool {
	ok := r.failures == 0 && len(r.failedStages) == 0 && r.passed > 0
	if len(r.leftOut) == 0 {
		fmt.Fprintln(r.out, "\nNothing was left out.")
	} else {
		fmt.Fprintf(r.out, "\nLeft out of this run (%d):\n", len(r.leftOut))
		w := tabwriter.NewWriter(r.out, 0, 8, 2, ' ', 0)
		for _, o := range r.leftOut {
			fmt.Fprintf(w, "  %s\t%s\n", o.what, o.why)
		}
		w.Flush()
		if complete {
			fmt.Fprintln(r.out, "CI=true lets nothing be left out: FAILED")
			ok = false
		}
	}
	for _, stage := range r.failedStages {
		fmt.Fprintf(r.out, "FAILED: %s\n", stage)
	}
	fmt.Fprintln(r.out)
	slices.SortFunc(r.summaries, func(a, b string) int { return strings.Compare(packageOf(a), packageOf(b)) })
	for _, line := range r.summaries {
		io.WriteString(r.out, line)
	}
	return ok
}

// packageOf gives the package that a summary line is about.
func packageOf(line string) string {
	_, rest, _ := strings.Cut(line, "\t")
	return rest
}

// short gives an import path without the module's name.
func short(pkg string) string { return strings.TrimPrefix(pkg, "postern/") }
