package watch

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"postern/internal/notify"
)

// A Problem is something that an administrator should know.
type Problem struct {
	Serious bool
	Text    string
	Since   time.Time // the zero time if that is not known
}

// A View is how a daemon stands at one moment.
type View struct {
	Target
	Reachable bool // by all ways that are set
	Problems  []Problem

	Busy, Free  int // workers or sessions; -1: not known
	Waiting     int // requests in the queue; -1: not known
	Accepted    float64
	Deferred    float64
	Refused     float64
	Held        float64 // messages that wait for a decision; -1: not known
	Events      float64 // a second
	Total, Lost uint64  // events

	Workers []Worker
	Figures []Figure
}

// Outcomes are the letters of messages, refusals for now and refusals for good.
const (
	accepted = string(notify.LetterAccepted)
	deferred = string(notify.LetterDeferred)
	rejected = string(notify.LetterRejected)
)

// Views gives how all daemons stand, in the order of the settings.
func (b *Board) Views() []*View {
	all := make([]*View, len(b.daemons))
	for i, d := range b.daemons {
		all[i] = d.view(time.Now())
	}
	return all
}

// View gives how the daemon of that gateway and kind stands; nil if there is none.
func (b *Board) View(gateway, kind string) *View {
	if d := b.daemon(gateway, kind); d != nil {
		return d.view(time.Now())
	}
	return nil
}

// rateTime is over how many seconds the rates of events are taken.
const rateTime = 10

// view makes the view of a moment.
func (d *daemon) view(now time.Time) *View {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := &View{Target: d.target, Busy: -1, Free: d.free, Waiting: -1, Held: -1, Total: d.total, Lost: d.lost}
	second := now.Unix()
	rate := func(letters string) float64 { return float64(d.rates.sum(letters, second, rateTime)) / rateTime }
	v.Accepted, v.Deferred, v.Refused = rate(accepted), rate(deferred), rate(rejected)
	v.Events = rate("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
	if s := d.scrape(); s != nil {
		v.Figures = s.figures // which nobody changes any more
		s.fill(v)
	}
	d.fillWorkers(v)
	d.judge(v)
	return v
}

// scrape is the last reading of the metrics, nil if there is none.
func (d *daemon) scrape() *scrape {
	if len(d.scrapes) == 0 {
		return nil
	}
	return d.scrapes[len(d.scrapes)-1]
}

// fill puts in what the metrics tell.
func (s *scrape) fill(v *View) {
	count := func(to *int, name, labels string) {
		if n, ok := s.value(name, labels); ok {
			*to = int(n)
		}
	}
	count(&v.Busy, "sessions", "")
	count(&v.Busy, "workers", `state="busy"`)
	count(&v.Free, "workers_free", "")
	count(&v.Waiting, "queue_length", "")
	if n, ok := s.value("held_messages", ""); ok {
		v.Held = n
	}
}

// fillWorkers puts in what the status or, without one, the events tell of the workers.
func (d *daemon) fillWorkers(v *View) {
	if p := d.pool; p != nil {
		v.Workers = slices.Clone(p.Workers)
		v.Busy, v.Free, v.Waiting = p.Busy, p.Idle+p.Stopped, int(p.Queued)
		// Events come at once, and tell what a worker does.
		for i := range v.Workers {
			if w := d.workers[v.Workers[i].Slot]; w != nil && w.State != "" && d.events.Up {
				v.Workers[i] = *w
			}
		}
		return
	}
	for _, slot := range slices.Sorted(maps.Keys(d.workers)) {
		v.Workers = append(v.Workers, *d.workers[slot])
	}
}

// judge says what is wrong, the worst first.
func (d *daemon) judge(v *View) {
	v.Reachable = d.reachable()
	for _, w := range d.ways() {
		if !w.link.Up && w.link.Error != "" {
			v.add(true, w.name+" cannot be read: "+w.link.Error, w.link.Since)
		}
	}
	d.judgeEvents(v)
	if p := d.pool; p != nil && d.status.Up && d.fault.Text == "" && p.Health.Fault != "" {
		v.add(true, "workers come to nothing: "+clean(p.Health.Fault), time.Time{})
	}
	if s := d.scrape(); s != nil && d.metrics.Up {
		s.judge(v)
	}
	slices.SortStableFunc(v.Problems, func(a, b Problem) int { return cmp.Compare(serious(b), serious(a)) })
}

// judgeEvents says what the events tell.
func (d *daemon) judgeEvents(v *View) {
	if !d.events.Up {
		return
	}
	if d.fault.Text != "" {
		v.add(true, "workers come to nothing: "+d.fault.Text, d.fault.Since)
	}
	if d.full.Text != "" && d.target.Kind == Multiplexor {
		v.add(true, "no worker is free", d.full.Since)
	} else if d.full.Text != "" {
		v.add(true, "no session is free", d.full.Since)
	}
	if d.load.Text != "" {
		v.add(true, "the load is too high: clients are told to come later", d.load.Since)
	}
	if why, failed := strings.CutPrefix(d.reload.Text, "failed"); failed {
		v.add(true, "the last reload has failed:"+why, d.reload.Since)
	}
	if names, later := strings.CutPrefix(d.reload.Text, "restart"); later {
		v.add(false, "not in force before a restart:"+names, d.reload.Since)
	}
}

// judge says what the metrics tell.
func (s *scrape) judge(v *View) {
	for i := range s.figures {
		f := &s.figures[i]
		name := strings.TrimSpace(f.Name + " " + f.Labels)
		switch {
		case f.Name == "store_up" && f.Value == 0:
			v.add(true, "the store that gateways share does not answer", time.Time{})
		case f.Name == "queue_size" && f.Value > 0 && float64(v.Waiting) >= f.Value:
			v.add(true, "the queue is full", time.Time{})
		case f.Rate > 0 && troubles[f.Name]:
			v.add(false, fmt.Sprintf("%s grows: %.3g a second. %s", name, f.Rate, f.Help), time.Time{})
		}
	}
}

// troubles are counters that should not grow.
var troubles = map[string]bool{
	"upstream_faults_total": true, "filter_faults_total": true, "load_faults_total": true, "log_lines_dropped_total": true,
	"stamp_failures_total": true, "upstream_failures_total": true, "failures_total": true, "deaths_total": true,
}

func (v *View) add(serious bool, text string, since time.Time) {
	v.Problems = append(v.Problems, Problem{serious, text, since})
}

func serious(p Problem) int {
	if p.Serious {
		return 1
	}
	return 0
}

// A Reason is why something was refused: a gate, or what became of a request.
type Reason struct {
	Kind  string // of the daemons that count it
	Name  string
	Total float64
	Rate  float64 // a second, over the last minute
}

// Reasons adds up over all daemons why something was refused, the most frequent of the last minute first.
func Reasons(views []*View) []Reason {
	sums := map[[2]string]*Reason{}
	for _, v := range views {
		for _, f := range v.Figures {
			if f.Value == 0 || f.Name != "refused_total" && f.Name != "failures_total" && f.Name != "refused_connections_total" {
				continue
			}
			_, name, _ := strings.Cut(f.Labels, "=")
			name = strings.Trim(name, `"`)
			if name == "" {
				name = strings.TrimSuffix(f.Name, "_total")
			}
			key := [2]string{v.Kind, name}
			if sums[key] == nil {
				sums[key] = &Reason{Kind: v.Kind, Name: name}
			}
			sums[key].Total += f.Value
			sums[key].Rate += f.Rate
		}
	}
	var all []Reason
	for _, r := range sums {
		all = append(all, *r)
	}
	slices.SortFunc(all, func(a, b Reason) int {
		return cmp.Or(cmp.Compare(b.Rate, a.Rate), cmp.Compare(b.Total, a.Total), cmp.Compare(a.Name, b.Name))
	})
	return all
}
