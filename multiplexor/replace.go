package main

import (
	"fmt"

	"postern/internal/evloop"
)

// heir says how far the worker is that takes the place of one that is to be retired.
type heir int8

const (
	heirNone    heir = iota
	heirAwaited      // it is being started
	heirSettled      // it has answered, or come to nothing
)

// retire ends an idle worker that has served its time. Where there is room for one
// more, the worker that takes its place is started before, and is busy with a ping
// until it has loaded its rules; as long as that takes the old one goes on, so that no
// request has to wait and the pool is not without a free worker. The original ends the
// old one at once and starts one when a request needs it.
func (p *pool) retire(w *worker, reason string) {
	switch {
	case w.heir == heirAwaited:
		p.idle.add(w)
		p.serveQueue()
	case w.heir == heirNone && !p.limits.ClassicReload && len(p.stopped) > 0 && p.mayStart():
		w.heir = heirAwaited
		last := len(p.stopped) - 1
		next := p.stopped[last]
		p.stopped = p.stopped[:last]
		s := &succession{old: w, activation: w.activation, reason: reason}
		s.timer.Do = s.end
		ping := new(request)
		ping.set([]byte(probeLine), fromPool, s)
		p.start(next, ping, fmt.Sprintf("Taking the place of worker %d", w.n))
		p.idle.add(w)
		p.serveQueue()
	default:
		p.kill(w, reason, false)
	}
}

// succession asks the heir for nothing but a sign of life, and ends the old worker
// then.
type succession struct {
	old        *worker
	activation uint64 // of the process that was to be retired
	reason     string
	timer      evloop.Timer
}

// What the heir answers, and whether it does, makes no difference: the old worker has
// served its time. It goes when the heir has been put back among the idle ones.
func (s *succession) answered([]byte) { s.old.pool.timers.Start(&s.timer, 0) }
func (s *succession) failed(failure)  { s.old.pool.timers.Start(&s.timer, 0) }

// end retires the old worker, at once or when it is done.
func (s *succession) end() {
	w := s.old
	if w.child == nil || w.activation != s.activation {
		return
	}
	if w.pool.hold {
		w.heir = heirNone // new workers do not work: it stays
		return
	}
	w.heir = heirSettled
	if w.available {
		w.pool.kill(w, s.reason, false)
	}
}
