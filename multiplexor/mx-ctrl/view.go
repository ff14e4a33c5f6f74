package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"postern/internal/mxproto"
)

// view is what top shows at one moment.
type view struct {
	socket  string
	current *snapshot
	paused  bool
	failure error     // why current is not newer; nil if it is the newest
	now     time.Time // for the clock in the corner
}

// line is one line of the view, without control characters.
type line struct {
	text    string
	heading bool
}

// lines returns the view for a screen of that many columns and rows. With 0 rows
// there is no limit, and no line is filled up or cut.
func (v *view) lines(columns, rows int) []line {
	all := v.head(columns)
	for _, text := range slices.Concat(v.summary(), v.averages()) {
		all = append(all, line{text, false})
	}
	all = append(all, line{}, line{fmt.Sprintf("%-*s", columns, v.tableHead()), true})
	for _, text := range v.table(rows, len(all)) {
		all = append(all, line{text, false})
	}
	if rows > 0 {
		all = all[:min(len(all), rows)]
		for i := range all {
			all[i].text = all[i].text[:min(len(all[i].text), columns)]
		}
	}
	return all
}

// head returns the title, with the time on the right, and what is wrong if so.
func (v *view) head(columns int) []line {
	title := "mx-ctrl top  " + safeLine(v.socket)
	clock := v.now.Format(time.TimeOnly)
	if v.paused {
		clock = "PAUSED  " + clock
	}
	if len(title)+2+len(clock) > columns && columns > 0 {
		title = title[:max(0, columns-2-len(clock))]
	}
	all := []line{{title + strings.Repeat(" ", max(2, columns-len(title)-len(clock))) + clock, true}}
	if v.failure != nil {
		since := v.now.Sub(v.current.at)
		text := fmt.Sprintf("No answer for %s: %s", age(int64(since.Seconds())), safeLine(explain(v.failure)))
		all = append(all, line{text, true})
	}
	return all
}

func (v *view) summary() []string {
	s, l := &v.current.status, &v.current.load
	busy, slots := int64(inState(v.current.workers, 'B')), int64(len(v.current.workers))
	return []string{
		fmt.Sprintf("Up %s, %d scans done, %d workers started", age(s.Uptime), s.Messages, s.Activations),
		fmt.Sprintf("Workers %d: %s", slots, count(v.current.workers, true)),
		fmt.Sprintf("Busy    %9s  [%s]", fmt.Sprintf("%d/%d", busy, slots), bar('#', busy, slots, maxWorkerCells)),
		fmt.Sprintf("Queue   %9s  [%s]", fmt.Sprintf("%d/%d", l.Queued, l.QueueSize), bar('#', l.Queued, l.QueueSize, maxQueueCells)),
	}
}

func (v *view) averages() []string {
	l := &v.current.load
	row := func(name, form string, value func(i int) any) string {
		text := fmt.Sprintf("%-12s", name)
		for i := range commandNames {
			text += fmt.Sprintf(" %10s", fmt.Sprintf(form, value(i)))
		}
		return text
	}
	return []string{
		"",
		row(fmt.Sprintf("Last %d s", l.Seconds), "%s", func(i int) any { return strings.ToLower(commandNames[i]) }),
		row("Number", "%d", func(i int) any { return l.Commands[i].Count }),
		row("Per second", "%.1f", func(i int) any { return rate(l.Commands[i].Count, l.Seconds) }),
		row("Average ms", "%.1f", func(i int) any { return l.Commands[i].Milliseconds }),
		row("Busy then", "%.1f", func(i int) any { return l.Commands[i].Busy }),
		row("Running now", "%d", func(i int) any { return l.Running[i] }),
	}
}

// tableHead names the columns; those of memory and processor time are there if the
// multiplexor tells about them.
func (v *view) tableHead() string {
	if v.current.usage == nil {
		return "SLOT STATE       PID    FOR NOW      LAST     DOING"
	}
	return "SLOT STATE       PID    FOR MEMORY    CPU NOW      LAST     DOING"
}

// uses words what a worker uses, as two columns.
func (v *view) uses(w mxproto.Worker) string {
	if v.current.usage == nil {
		return ""
	}
	u, ok := v.current.usage[w.Slot]
	if !ok {
		return fmt.Sprintf(" %6s %6s", "", "")
	}
	return fmt.Sprintf(" %6s %6s", size(u.Memory), cpuTime(u.CPU))
}

// inOrder sorts workers as they are shown: busy ones first, the longest busy before
// the others.
func inOrder(workers []mxproto.Worker) []mxproto.Worker {
	sorted := slices.Clone(workers)
	slices.SortStableFunc(sorted, func(a, b mxproto.Worker) int {
		if a.State == b.State && a.State == 'B' {
			return cmp.Compare(b.Ago, a.Ago)
		}
		return cmp.Compare(order[a.State], order[b.State])
	})
	return sorted
}

// order is which workers come first when not all fit.
var order = map[byte]int{'B': 0, 'K': 1, 'I': 2, 'S': 3}

// table lists the workers in order.
// If they do not all fit into rows, of which used are taken, the last row says how
// many are left out.
func (v *view) table(rows, used int) []string {
	sorted := inOrder(v.current.workers)
	var all []string
	for i, w := range sorted {
		if rows > 0 && used+i >= rows-1 && i < len(sorted)-1 {
			return append(all, "... and "+count(sorted[i:], false))
		}
		text := fmt.Sprintf("%4d %-8s %6s %6s%s %-8s %-8s %s", w.Slot, mxproto.StateNames[w.State], safeLine(w.PID), age(w.Ago), v.uses(w), safeLine(w.Now), safeLine(w.Last), safeLine(w.Tag))
		all = append(all, strings.TrimRight(text, " "))
	}
	return all
}

// count says how many workers are in each state, leaving out those in which none
// is unless all is set.
func count(workers []mxproto.Worker, all bool) string {
	var parts []string
	for _, state := range []byte("BIKS") {
		if n := inState(workers, state); n > 0 || all {
			parts = append(parts, fmt.Sprintf("%d %s", n, mxproto.StateNames[state]))
		}
	}
	return strings.Join(parts, ", ")
}

func inState(workers []mxproto.Worker, state byte) int {
	n := 0
	for _, w := range workers {
		if w.State == state {
			n++
		}
	}
	return n
}

// age words a number of seconds in at most six columns, up to a hundred days.
func age(secs int64) string {
	switch {
	case secs < 0:
		return "-"
	case secs < 60:
		return fmt.Sprintf("%ds", secs)
	case secs < 3600:
		return fmt.Sprintf("%dm%02ds", secs/60, secs%60)
	case secs < 24*3600:
		return fmt.Sprintf("%dh%02dm", secs/3600, secs/60%60)
	}
	return fmt.Sprintf("%dd%02dh", secs/86400, secs/3600%24)
}
