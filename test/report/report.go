package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// event is what `go test -json` writes (go doc test2json); build events name
// ImportPath instead of Package.
type event struct {
	Time        time.Time
	Action      string
	Package     string
	Test        string
	Elapsed     float64 // seconds
	Output      string
	FailedBuild string
}

// omission is a line of the closing table.
type omission struct{ what, why string }

// quick begins the reason of a test that a quick run leaves to the full one, as
// package testenv gives it. That is no omission.
const quick = "quick run: "

// impossible begins the reason of a test that this machine cannot run, whatever is installed, as package testenv gives it.
const impossible = "not possible here: "

// report gathers what a run of go test tells.
type report struct {
	out          io.Writer
	leftOut      []omission
	failedStages []string
	notes        []string
	total        int // how many packages there are, if known

	packages  map[string]*pkg // those that run
	ended     []test          // tests that are no part of another
	summaries []string        // go test's last line of each package
	failures  []string        // PACKAGE TEST of what failed, or PACKAGE alone
	failed    int             // packages that failed
	passed    int             // packages that passed
	empty     int             // packages without tests
	postponed int             // tests that a quick run leaves out
}

// take deals with one event.
func (r *report) take(e event) {
	if e.Action == "build-output" {
		io.WriteString(r.out, e.Output)
		return
	}
	p := r.of(e)
	switch {
	case e.Action == "output" && e.Test == "" && isSummary(e.Output):
		r.summaries = append(r.summaries, e.Output)
	case e.Test != "":
		p.take(e)
		r.testEnds(p, e)
	case e.Action == "output":
		p.keep(e)
	default:
		r.packageEnds(p, e)
	}
}

// of gives the package of an event.
func (r *report) of(e event) *pkg {
	if r.packages == nil {
		r.packages = make(map[string]*pkg)
	}
	p := r.packages[e.Package]
	if p == nil && e.Package != "" {
		p = newPkg(short(e.Package), e.Time)
		r.packages[e.Package] = p
	}
	return p
}

func (r *report) testEnds(p *pkg, e event) {
	if e.Action != "pass" && e.Action != "fail" && e.Action != "skip" {
		return
	}
	if !strings.Contains(e.Test, "/") {
		r.ended = append(r.ended, test{name: p.name + " " + e.Test, took: e.Elapsed})
	}
	switch e.Action {
	case "fail":
		r.failures = append(r.failures, p.name+" "+e.Test)
		return // shown with its package
	case "skip":
		if why := p.reason(e.Test); strings.HasPrefix(why, quick) {
			r.postponed++
		} else {
			r.leftOut = append(r.leftOut, omission{p.name + " " + e.Test, why})
		}
	}
	p.forget(e.Test)
}

func (r *report) packageEnds(p *pkg, e event) {
	switch e.Action {
	case "pass":
		r.passed++
		r.say("%s passed in %.1f s", p.name, e.Elapsed)
	case "fail":
		r.failed++
		r.failures = append(r.failures, p.unfinished()...)
		if len(p.failed) == 0 && len(p.unfinished()) == 0 {
			r.failures = append(r.failures, p.name)
		}
		r.say("%s FAILED after %.1f s", p.name, e.Elapsed)
		p.showFailure(r.out, e.Time)
	case "skip":
		r.empty++
	default:
		return
	}
	delete(r.packages, e.Package)
}

// say prints a line of the run, with how far it is.
func (r *report) say(format string, args ...any) {
	where := ""
	if r.total > 0 {
		where = fmt.Sprintf("[%*d/%d] ", len(fmt.Sprint(r.total)), r.done(), r.total)
	}
	fmt.Fprintf(r.out, "test: "+where+format+"\n", args...)
}

// done is how many packages have ended.
func (r *report) done() int { return r.passed + r.failed + r.empty }

// isSummary says whether line is go test's last word about a package.
func isSummary(line string) bool {
	for _, begin := range []string{"ok  \t", "FAIL\t", "?   \t", "\t"} { // the last with -cover, of one without tests
		if rest, ok := strings.CutPrefix(line, begin); ok && begin != "\t" || ok && strings.Contains(rest, "\t\tcoverage: ") {
			return true
		}
	}
	return false
}

// close prints what a reader should know of the run as a whole, what was left
// out of it, the stages that failed, and the summaries, and says whether all is
// well. If complete, it is not when anything was left out.
func (r *report) close(complete bool) bool {
	ok := r.failed == 0 && len(r.failedStages) == 0 && r.passed > 0
	r.closeSlowest(10)
	if r.postponed > 0 {
		fmt.Fprintf(r.out, "\n%d tests were left to `make test`: they need peers, root or time.\n", r.postponed)
	}
	if len(r.leftOut) == 0 {
		fmt.Fprintln(r.out, "\nNothing was left out.")
	} else {
		fmt.Fprintf(r.out, "\nLeft out of this run (%d):\n", len(r.leftOut))
		w := tabwriter.NewWriter(r.out, 0, 8, 2, ' ', 0)
		for _, o := range r.leftOut {
			fmt.Fprintf(w, "  %s\t%s\n", o.what, o.why)
		}
		w.Flush()
		if complete && slices.ContainsFunc(r.leftOut, func(o omission) bool { return !strings.HasPrefix(o.why, impossible) }) {
			fmt.Fprintln(r.out, "CI=true lets nothing be left out: FAILED")
			ok = false
		}
	}
	for _, note := range r.notes {
		fmt.Fprintf(r.out, "Note: %s\n", note)
	}
	for _, stage := range r.failedStages {
		fmt.Fprintf(r.out, "FAILED: %s\n", stage)
	}
	for _, name := range r.failures {
		fmt.Fprintf(r.out, "FAILED: %s\n", name)
	}
	fmt.Fprintln(r.out)
	slices.SortFunc(r.summaries, func(a, b string) int { return strings.Compare(packageOf(a), packageOf(b)) })
	for _, line := range r.summaries {
		io.WriteString(r.out, line)
	}
	return ok
}

// closeSlowest prints the n tests that took longest. The time that a parallel
// test waits for its turn does not count.
func (r *report) closeSlowest(n int) {
	slices.SortStableFunc(r.ended, func(a, b test) int { return int(1000 * (b.took - a.took)) })
	if len(r.ended) == 0 {
		return
	}
	fmt.Fprintln(r.out, "\nThe slowest tests:")
	for _, t := range r.ended[:min(n, len(r.ended))] {
		fmt.Fprintf(r.out, "%8.1f s  %s\n", t.took, t.name)
	}
}

// packageOf gives the package that a summary line is about.
func packageOf(line string) string {
	_, rest, _ := strings.Cut(line, "\t")
	return strings.TrimSpace(rest)
}

// short gives an import path without the module's name.
func short(pkg string) string { return strings.TrimPrefix(pkg, "postern/") }
