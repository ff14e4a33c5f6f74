package pool

import (
	"fmt"

	"postern/internal/evloop"
)

// replacementState is how far the worker is that takes the place of one that is to be retired.
type replacementState int8

const (
	notReplaced         replacementState = iota
	replacementStarting                  // it is being started
	replacementReady                     // it has answered, or come to nothing
)

// retire ends an idle worker that has served its time. Where there is room for one
// more, the worker that takes its place is started before, and is busy with a ping
// until it has loaded its rules; as long as that takes the old one goes on, so that no
// request has to wait and the pool is not without a free worker. The original ends the
// old one at once and starts one when a request needs it.
func (p *Pool) retire(w *worker, reason string) {
	switch {
	case w.replacement == replacementStarting:
		p.idle.add(w)
		p.serveQueue()
	case w.replacement == notReplaced && !p.limits.ClassicReload && len(p.stopped) > 0 && p.mayStart():
		w.replacement = replacementStarting
		next := p.takeSlot()
		s := &replacement{old: w, activation: w.activation, reason: reason}
		s.timer.Do = s.end
		ping := new(Request)
		ping.Set([]byte(probeLine), fromPool, s)
		p.start(next, ping, fmt.Sprintf("Taking the place of worker %d", w.n))
		p.idle.add(w)
		p.serveQueue()
	default:
		p.kill(w, reason, false)
	}
}

// replacement asks the new worker for nothing but a sign of life, and ends the old one
// then.
type replacement struct {
	old        *worker
	activation uint64 // of the process that was to be retired
	reason     string
	timer      evloop.Timer
}

// Answered ends the old worker when the new one has been put back among the idle ones.
func (s *replacement) Answered([]byte) { s.old.pool.timers.Start(&s.timer, 0) }

// Failed does the same: the old worker has served its time, whatever becomes of the new one.
func (s *replacement) Failed(Failure) { s.old.pool.timers.Start(&s.timer, 0) }

// end retires the old worker, at once or when it is done.
func (s *replacement) end() {
	w := s.old
	if w.child == nil || w.activation != s.activation {
		return
	}
	if w.pool.hold {
		w.replacement = notReplaced // new workers do not work: it stays
		return
	}
	w.replacement = replacementReady
	if w.available {
		w.pool.kill(w, s.reason, false)
	}
}
