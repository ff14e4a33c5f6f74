package watch

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"postern/internal/notify"
	"postern/internal/notify/listener"
	"postern/internal/printable"
	"postern/internal/sockspec"
)

// Bounds of what is kept of one daemon.
const (
	maxWorkers  = 4096    // slots of a multiplexor
	maxSessions = 1 << 16 // open sessions whose client is known
	maxTag      = 120     // bytes of what a worker says it does
)

// A Link is one of the ways to a daemon.
type Link struct {
	Up    bool
	Since time.Time // of this state
	Error string    // why it is not up, "" before the first attempt is through
}

// set notes what came of the last attempt.
func (l *Link) set(err error, now time.Time) {
	if up := err == nil; up != l.Up || l.Since.IsZero() {
		l.Up, l.Since = up, now
	}
	l.Error = ""
	if err != nil {
		l.Error = clean(err.Error())
	}
}

// A Worker is what is known of a slot of a multiplexor.
type Worker struct {
	Slot  int
	State string
	Since time.Time
	Tag   string // what it does, in its own words
}

// A standing is a state that has a beginning.
type standing struct {
	Text  string
	Since time.Time
}

func (s *standing) set(text string, at time.Time) {
	if s.Text != text {
		s.Text, s.Since = text, at
	}
}

// said is what the events of a run of a daemon say of how things stand.
type said struct {
	free    int // -1: not known
	working int // -1: not known
	full    standing
	fault   standing
	load    standing
	reload  standing // why the last one has failed, or what it left for a restart
	workers map[int]*Worker
	clients map[string]string // address, by session
}

func nothingSaid() said {
	return said{free: -1, working: -1, workers: map[int]*Worker{}, clients: map[string]string{}}
}

// daemon is all that is known of one.
type daemon struct {
	target Target

	mu     sync.Mutex
	events Link
	run    uint64 // of the daemon, 0 if not known
	total  uint64 // messages
	lost   uint64
	rates  rates

	said // in this run

	metrics Link
	scrapes []*scrape // the last minute, oldest first
	status  Link
	pool    *Pool
}

func newDaemon(t Target) *daemon {
	return &daemon{target: t, said: nothingSaid()}
}

// A way is one of those by which a daemon is watched.
type way struct {
	name  string
	link  *Link
	watch func(b *Board, ctx context.Context, d *daemon)
}

// ways are those that are set.
func (d *daemon) ways() (set []way) {
	none := sockspec.Spec{}
	if d.target.Notify != none {
		set = append(set, way{"events", &d.events, (*Board).listen})
	}
	if d.target.Metrics != none {
		set = append(set, way{"metrics", &d.metrics, (*Board).readMetrics})
	}
	if d.target.Status != none {
		set = append(set, way{"status", &d.status, (*Board).askStatus})
	}
	return set
}

// reachable says whether all ways are up. The daemon is locked.
func (d *daemon) reachable() bool {
	return !slices.ContainsFunc(d.ways(), func(w way) bool { return !w.link.Up })
}

// take takes an event into account. It returns the line to be kept, if there is one.
func (d *daemon) take(e *listener.Event, now time.Time) (l Line, keep bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch e.Kind {
	case listener.Up:
		d.events.set(nil, now)
		if !e.Extended || e.Run != d.run { // what an earlier run has said is over
			d.run, d.said = e.Run, nothingSaid()
		}
	case listener.Down:
		d.events.set(e.Err, now)
	case listener.Lost:
		d.lost += e.Lost
	case listener.State:
		d.apply(e.Message, e.Time)
	case listener.Happened:
		if e.Letter < 'A' || e.Letter > 'Z' {
			return l, false
		}
		d.total++
		d.rates.add(e.Letter, now.Unix())
		d.apply(e.Message, e.Time)
		return d.line(e), strings.IndexByte(passing, e.Letter) < 0
	}
	return l, false
}

// line makes the line of a message.
func (d *daemon) line(e *listener.Event) Line {
	m := notify.Message{Letter: e.Letter, Text: short(e.Text, maxText)}
	l := Line{Time: e.Time, Target: &d.target, Message: m}
	l.Session, l.Address = parties(m)
	switch {
	case l.Session == "":
	case e.Letter == notify.LetterConnected:
		if len(d.clients) >= maxSessions { // of many the end was missed
			clear(d.clients)
		}
		d.clients[l.Session] = l.Address
	case e.Letter == notify.LetterDisconnected:
		delete(d.clients, l.Session)
	case l.Address == "":
		l.Address = d.clients[l.Session]
	}
	return l
}

// apply takes into account what a message says of how things stand.
func (d *daemon) apply(m notify.Message, at time.Time) {
	switch m.Letter {
	case notify.LetterFree:
		d.free = m.Free()
	case notify.LetterWorking:
		d.working = number(m.Text)
	case notify.LetterNone:
		d.full.set("full", at)
	case notify.LetterSome:
		d.full.set("", at)
	case notify.LetterFault:
		d.fault.set(clean(m.Text), at)
	case notify.LetterGate:
		d.load.set(strings.Trim(m.Text, "0"), at)
	case notify.LetterReread:
		d.reload = standing{clean(m.Text), at}
	case notify.LetterStatus:
		d.applyWorker(m, at)
	}
}

// applyWorker takes what an S message says of a worker.
func (d *daemon) applyWorker(m notify.Message, at time.Time) {
	slot := m.Worker()
	if slot < 0 {
		return
	}
	w := d.workers[slot]
	if w == nil {
		if len(d.workers) >= maxWorkers {
			return
		}
		w = &Worker{Slot: slot}
		d.workers[slot] = w
	}
	if _, state, ok := m.StateChange(); ok {
		w.State, w.Since, w.Tag = strings.ToLower(state), at, ""
		return
	}
	w.Tag = printable.Text(short(m.Status(), maxTag))
}

// number reads a count; -1 is none.
func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return -1
	}
	return n
}

// short cuts a text to so many bytes.
func short(s string, most int) string { return strings.Clone(s[:min(len(s), most)]) }
