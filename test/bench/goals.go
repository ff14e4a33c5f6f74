package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A goal is something aimed at, with what was reached.
type goal struct{ part, about, want, reached, verdict string }

// goals are those that were measured, in their order.
type goals struct {
	part string // being measured
	list []goal
}

// add notes a goal and says whether it was met.
func (g *goals) add(met bool, about, want, format string, args ...any) {
	g.list = append(g.list, goal{g.part, about, want, fmt.Sprintf(format, args...), pick(met, "met", "NOT MET")})
}

// unmeasured notes a goal for which something is missing.
func (g *goals) unmeasured(about, want, why string) {
	g.list = append(g.list, goal{g.part, about, want, why, "not measured"})
}

// table gives the summary.
func (g *goals) table() string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "part\tgoal\twanted\treached\t")
	count := map[string]int{}
	for _, goal := range g.list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", goal.part, goal.about, goal.want, goal.reached, goal.verdict)
		count[goal.verdict]++
	}
	w.Flush()
	fmt.Fprintf(&text, "\n%d goals: %d met, %d not met, %d not measured\n", len(g.list), count["met"], count["NOT MET"], count["not measured"])
	return text.String()
}

// An extreme is a goal that holds at several points: how often it was met, and
// the value that is farthest from it.
type extreme struct {
	atLeast bool // the limit is a lower one
	limit   float64
	met     int
	points  int
	value   float64
	where   string
}

// point adds a value.
func (e *extreme) point(value float64, where string) {
	better := value <= e.limit
	worse := value > e.value
	if e.atLeast {
		better, worse = value >= e.limit, value < e.value
	}
	if better {
		e.met++
	}
	if e.points == 0 || worse {
		e.value, e.where = value, where
	}
	e.points++
}

// addTo notes the goal, unless it was measured nowhere.
func (e *extreme) addTo(g *goals, about, unit string) {
	want := fmt.Sprintf("%s %.4g%s", pick(e.atLeast, "at least", "at most"), e.limit, unit)
	if e.points == 0 {
		g.unmeasured(about, want, "no such point, or no such peer")
		return
	}
	g.add(e.met == e.points, about, want, "%d of %d points; worst %.3g%s at %s", e.met, e.points, e.value, unit, e.where)
}

// inTurns measures n rows in so many rounds. Each round begins with another row,
// so that none is always measured after the same one.
func inTurns(rounds, n int, measure func(round, row int) error) error {
	for round := range rounds {
		for i := range n {
			if err := measure(round, (round+i)%n); err != nil {
				return err
			}
		}
	}
	return nil
}

// medianRatio compares runs of the same turns: what slows the machine down for longer than a turn slows both.
func medianRatio(a, b []float64) float64 {
	ratios := make([]float64, min(len(a), len(b)))
	for i := range ratios {
		ratios[i] = a[i] / b[i]
	}
	return median(ratios)
}

// median gives the middle one of values, 0 if there is none.
func median(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	switch n := len(values); {
	case n == 0:
		return 0
	case n%2 == 1:
		return values[n/2]
	default:
		return (values[n/2-1] + values[n/2]) / 2
	}
}

// percentile gives the duration below which a share p of them lies, 0 <= p <= 1.
// They are sorted; 0 if there is none.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(p*float64(len(sorted))), len(sorted)-1)]
}

// micro gives microseconds.
func micro(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// spread describes durations.
func spread(d []time.Duration) string {
	slices.Sort(d)
	at := func(p float64) time.Duration { return percentile(d, p).Round(time.Microsecond) }
	return fmt.Sprintf("%d: p50 %v, p90 %v, p99 %v, max %v", len(d), at(0.5), at(0.9), at(0.99), at(1))
}
