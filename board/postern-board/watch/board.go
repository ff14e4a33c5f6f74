package watch

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"postern/internal/notify/listener"
)

// Options are what a board is told beside its targets.
type Options struct {
	Interval time.Duration // between questions to a daemon, and for an answer
	History  int           // lines kept of all daemons together
	Log      *slog.Logger
}

// A Board watches daemons.
type Board struct {
	opt     Options
	daemons []*daemon
	history history
	took    atomic.Uint64
}

// New makes a board.
func New(targets []Target, opt Options) *Board {
	b := &Board{opt: opt}
	b.history.most = opt.History
	for _, t := range targets {
		b.daemons = append(b.daemons, newDaemon(t))
	}
	return b
}

// refusedPause is how long the board waits after a daemon did not want it, or speaks something else.
const refusedPause = 30 * time.Second

// Run watches until ctx ends.
func (b *Board) Run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	for _, d := range b.daemons {
		for _, w := range d.ways() {
			all.Go(func() { w.watch(b, ctx, d) })
		}
	}
}

// listen follows the events of a daemon.
func (b *Board) listen(ctx context.Context, d *daemon) {
	f := listener.Follower{
		Source:   listener.Source{Name: d.target.Gateway, Dial: d.target.Notify.Dial},
		Interest: listener.Interest{Letters: "*"},
	}
	for {
		err := f.Follow(ctx, func(e listener.Event) error {
			if line, keep := d.take(&e, time.Now()); keep {
				b.history.add(line)
			}
			b.took.Add(1)
			return nil
		})
		if ctx.Err() != nil {
			return
		}
		b.opt.Log.Warn("events", "gateway", d.target.Gateway, "kind", d.target.Kind, "error", err)
		d.note(&d.events, err)
		if !pause(ctx, refusedPause) {
			return
		}
	}
}

// readMetrics reads the metrics of a daemon again and again.
func (b *Board) readMetrics(ctx context.Context, d *daemon) {
	r := newReader(&d.target, b.opt.Interval)
	defer r.client.CloseIdleConnections()
	for {
		s, err := r.read(ctx)
		if ctx.Err() != nil {
			return
		}
		d.note(&d.metrics, err)
		if err == nil {
			d.keep(s, time.Now())
		}
		if !pause(ctx, b.opt.Interval) {
			return
		}
	}
}

// askStatus asks a multiplexor for its status again and again.
func (b *Board) askStatus(ctx context.Context, d *daemon) {
	for {
		within, cancel := context.WithTimeoutCause(ctx, b.opt.Interval, errors.New("no answer in time"))
		p, err := askPool(within, &d.target, time.Now())
		cancel()
		if ctx.Err() != nil {
			return
		}
		d.note(&d.status, err)
		if err == nil {
			d.mu.Lock()
			d.pool = p
			d.mu.Unlock()
		}
		if !pause(ctx, b.opt.Interval) {
			return
		}
	}
}

// note notes what came of the last attempt to reach the daemon.
func (d *daemon) note(l *Link, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l.set(err, time.Now())
}

// keep keeps a reading of the metrics, and those of the minute before.
func (d *daemon) keep(s *scrape, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s.at = now
	for len(d.scrapes) > 1 && now.Sub(d.scrapes[1].at) >= time.Minute {
		d.scrapes = d.scrapes[1:]
	}
	if n := len(d.scrapes); n > 0 {
		d.scrapes[n-1].figures = nil // what is compared later has its index
	}
	d.scrapes = append(d.scrapes, s)
	s.rate(d.scrapes[0])
}

// rate computes how fast counters grow since an earlier reading. One that has become smaller began again.
func (s *scrape) rate(before *scrape) {
	took := s.at.Sub(before.at).Seconds()
	for i := range s.figures {
		f := &s.figures[i]
		was, known := before.value(f.Name, f.Labels)
		if f.Counter && known && took > 0 && f.Value >= was {
			f.Rate = (f.Value - was) / took
		}
	}
}

// Reachable is how many daemons, of how many, can be watched by all ways that are set.
func (b *Board) Reachable() (reachable, all int) {
	for _, d := range b.daemons {
		d.mu.Lock()
		if d.reachable() {
			reachable++
		}
		d.mu.Unlock()
	}
	return reachable, len(b.daemons)
}

// daemon gives the daemon of that gateway and kind; nil if there is none.
func (b *Board) daemon(gateway, kind string) *daemon {
	for _, d := range b.daemons {
		if d.target.Gateway == gateway && d.target.Kind == kind {
			return d
		}
	}
	return nil
}

// Took is how many events were taken from all daemons.
func (b *Board) Took() uint64 { return b.took.Load() }

// Newest gives the last lines of the daemon of that gateway and kind, the newest first.
func (b *Board) Newest(gateway, kind string, n int) []Line {
	d := b.daemon(gateway, kind)
	if d == nil {
		return nil
	}
	return b.history.newest(&b.history.all, n, func(l *Line) bool { return l.Target == &d.target })
}

// Refusals gives the last lines about something refused, the newest first.
func (b *Board) Refusals(n int) []Line {
	return b.history.newest(&b.history.refusals, n, func(*Line) bool { return true })
}

// Find gives the last lines about a session, or an address and the sessions from there: the newest first.
func (b *Board) Find(query string, n int) []Line {
	if query == "" {
		return nil
	}
	return b.history.find(query, n)
}

// pause waits; it is false if ctx ended meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
