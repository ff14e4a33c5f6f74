package pool

import (
	"bytes"
	"fmt"
	"log/slog"

	"postern/internal/evloop"
	"postern/internal/mxproto"
	"postern/internal/notify"
)

// reload replaces the workers by ones with new filter rules, two generations side
// by side: a new worker is started and must answer a ping; then an old one is
// retired, and so on until all are new. If new workers end without an answer
// too often the old ones stay.
type reload struct {
	pool      *Pool
	active    bool
	confirmed bool    // a new worker has answered
	probe     *worker // being started, or asked
	rejected  *worker // has answered with an error, and goes when that is through
	due       int     // old workers that are to go as soon as they are idle
	failures  int     // new workers in a row that did not answer
	timer     evloop.Timer
	req       Request

	number  int    // how many rereads there were
	outcome string // of the last one: "" = not known yet
}

// Outcomes of a reread for the reply to health. What is wrong follows the second one.
const (
	rereadDone   = "done"
	rereadFailed = "failed"
)

// ended notes the outcome of a reread; why is what went wrong, or "".
func (r *reload) ended(why string) {
	r.outcome = rereadDone
	if why != "" {
		r.outcome = rereadFailed + " " + Printable(why)
	}
	if p := r.pool; p.OnReread != nil {
		p.OnReread()
	}
}

// Reread makes all workers load the filter rules again.
func (p *Pool) Reread() {
	r := &p.reload
	r.number++
	r.outcome = ""
	if p.limits.ClassicReload || p.limits.Original && p.running()+p.nstarting == 0 {
		p.rereadClassic()
		return
	}
	p.generation++
	p.hold = false
	p.deaths, p.retryAt = 0, 0 // whatever was wrong may have been mended
	if r.active {
		// The rules have changed again: whatever was confirmed is old by now.
		p.log.Add(slog.LevelInfo, "Reread of filter rules begins again")
	}
	r.pool, r.active, r.confirmed, r.due, r.failures = p, true, false, 0, 0
	r.timer.Do = r.goOn
	p.event(slog.LevelInfo, "Reread of filter rules: new workers must answer before the old ones go")
	r.goOn()
}

// rereadClassic ends idle workers now and busy ones when they are done.
func (p *Pool) rereadClassic() {
	p.generation++
	p.forgetOld()
	for _, w := range p.resting() {
		p.kill(w, "Forcing reread of filter rules", false)
	}
	p.reload.ended("")
	p.publish(notify.LetterReread, "")
}

// forgetOld tells the system that no worker with old rules will be started again.
func (p *Pool) forgetOld() {
	if p.os.Forget != nil {
		p.os.Forget(p.generation)
	}
}

// old reports whether the worker has rules older than the newest reread.
func (p *Pool) old(w *worker) bool { return w.generation < p.generation }

// goOn takes the next step that is possible now. It is called whenever that may
// have changed.
func (r *reload) goOn() {
	p := r.pool
	if !r.active || p.stopping || r.probe != nil {
		return
	}
	left := 0
	for _, w := range p.workers {
		if w.child != nil && w.state != killed && p.old(w) {
			left++
		}
	}
	switch {
	case left <= r.due && r.confirmed, left == 0 && p.limits.Original:
		r.finish(left)
	case len(p.stopped) > 0 && p.mayStart():
		w := p.takeSlot()
		r.probe = w
		r.req.Set([]byte(probeLine), fromPool, r)
		p.start(w, &r.req, "Trying new filter rules")
	case len(p.stopped) > 0:
		p.timers.Start(&r.timer, max(p.retryAt, p.lastStart+p.limits.MinStartGap)-p.timers.Now())
	case p.count[killed] > 0 || p.nstarting > 0:
		// A place will become free.
	default:
		r.makeRoom()
	}
}

// probeLine is what a new worker is asked. Any answer will do that is not an
// error.
const (
	probeLine   = "ping"
	probeAnswer = "PONG" // multiplexor-protocol(7)
)

// makeRoom ends an old idle worker in a pool that is full. If all are busy, the
// next one that is done goes.
func (r *reload) makeRoom() {
	if !r.retireOne() && r.due == 0 {
		r.due = 1
	}
}

// retireOne ends an idle old worker and reports whether there was one.
func (r *reload) retireOne() bool {
	p := r.pool
	for _, w := range p.workers {
		if w.available && p.old(w) {
			p.kill(w, "Forcing reread of filter rules", false)
			return true
		}
	}
	return false
}

// Answered: the new worker works, and an old one can go.
func (r *reload) Answered(line []byte) {
	if !r.active {
		r.probe = nil // given up meanwhile
		return
	}
	if r.outdated() {
		return
	}
	if mxproto.IsError(string(line)) {
		r.rejected = r.probe
		r.pool.setFault(fmt.Sprintf("it answers %q to ping", head(bytes.TrimRight(line, "\r\n"))))
		r.Failed(FailAnswer)
		return
	}
	p := r.pool
	r.probe, r.failures = nil, 0
	if !r.confirmed {
		r.confirmed = true
		p.forgetOld()
		p.event(slog.LevelInfo, "New filter rules are in force")
		r.ended("")
		p.publish(notify.LetterReread, "")
	}
	if !r.retireOne() {
		r.due++
	}
	p.timers.Start(&r.timer, 0) // when this worker has been put back
}

// outdated reports whether the rules were to be read again after the probe was
// started: then what it does tells nothing about the newest ones, and another is
// started.
func (r *reload) outdated() bool {
	if r.probe == nil || !r.pool.old(r.probe) {
		return false
	}
	r.probe = nil
	r.pool.timers.Start(&r.timer, 0)
	return true
}

// Failed: the new worker did not get as far as a good answer.
func (r *reload) Failed(why Failure) {
	p := r.pool
	if why == FailShutdown || !r.active {
		r.probe = nil
		return
	}
	if r.outdated() {
		return
	}
	r.probe = nil
	r.failures++
	if r.failures >= p.limits.ReloadFailures {
		why := fmt.Sprintf("%d new workers in a row did not answer", r.failures)
		if p.fault.text != "" && !p.limits.Original {
			why = p.fault.text + ": " + why
		}
		r.giveUp(why)
		return
	}
	p.timers.Start(&r.timer, 0)
}

// NotLoaded is told that the new rules could not be loaded.
func (p *Pool) NotLoaded(err error) {
	if p.reload.active {
		p.reload.giveUp(err.Error())
	}
}

// giveUp stays with the workers that are there. They are not retired until a new
// one has worked: there would be nobody to take their place.
func (r *reload) giveUp(why string) {
	p := r.pool
	r.active = false
	for _, w := range p.workers {
		if w.child != nil {
			w.generation = p.generation
		}
	}
	p.hold, p.heldAt = true, p.timers.Now()
	if p.os.Revert != nil {
		p.os.Revert()
	}
	p.log.Add(slog.LevelError, "Reread of filter rules given up: "+why+"; staying with the workers that have the old rules")
	r.ended(why)
	text := "failed"
	if !p.limits.Original {
		text += " " + why
	}
	p.publish(notify.LetterReread, text)
}

// finish is the good end. Workers that are still busy with old rules go when they
// are done.
func (r *reload) finish(busyOld int) {
	r.active = false
	if !r.confirmed {
		// The old workers have ended by themselves meanwhile.
		r.pool.forgetOld()
		r.ended("")
		r.pool.publish(notify.LetterReread, "")
	}
	r.pool.event(slog.LevelInfo, "Reread of filter rules is through, %d workers have yet to finish a request", busyOld)
}

// settled is told that a worker is about to be idle. It reports whether the worker is
// to go instead.
func (r *reload) settled(w *worker) (retire bool) {
	if w == r.rejected {
		r.rejected = nil
		return true
	}
	if !r.active || !r.pool.old(w) || r.due == 0 {
		return false
	}
	r.due--
	return true
}
