package pool

import (
	"log/slog"
	"syscall"
	"time"
)

// stopStepWait is the time between the steps of stop.
const stopStepWait = 9 * time.Second

// Stop ends the pool: what waits is refused, idle workers see end of file, busy
// ones may finish. After 9 seconds SIGTERM is sent to those left, after 18
// SIGKILL. gone is called when no process is left.
func (p *Pool) Stop(gone func()) {
	if p.stopping {
		return
	}
	p.stopping, p.gone = true, gone
	p.overflowed()
	for r := p.queue.head; r != nil; r = p.queue.head {
		p.Withdraw(r)
		p.tell(r, FailShutdown)
	}
	for _, w := range p.workers {
		switch {
		case w.starting && w.req != nil:
			p.unreserve(w, FailShutdown) // the process may never come
		case w.state == idle:
			p.kill(w, "Terminating", false)
		}
		if w.state == killed {
			w.disarm() // the steps of stop apply
		}
	}
	p.timers.Start(&p.stopTimer, stopStepWait)
	p.checkGone()
}

// Stopping reports whether the end has begun.
func (p *Pool) Stopping() bool { return p.stopping }

// escalate is the next step of stop.
func (p *Pool) escalate() {
	p.stopStep++
	name, last := "SIGTERM", p.stopStep > 1
	if last {
		name = "SIGKILL"
	}
	p.log.Add(slog.LevelInfo, "Still some workers alive: Sending "+name)
	for _, w := range p.workers {
		switch {
		case w.child == nil:
		case last:
			p.fail(w, FailShutdown)
			w.child.Signal(syscall.SIGCONT)
			w.child.Kill()
		default:
			p.terminate(w)
		}
	}
	if last {
		p.count[killed], p.nstarting = 0, 0
		p.finish()
		return
	}
	p.timers.Start(&p.stopTimer, stopStepWait)
}

// terminate gives up the request of a worker and sends it SIGTERM, whatever it was told before.
func (p *Pool) terminate(w *worker) {
	p.fail(w, FailShutdown)
	w.child.Signal(syscall.SIGCONT)
	p.kill(w, "Terminating", true)
	w.child.Signal(syscall.SIGTERM)
	w.disarm()
}

// Abandon gives up all requests at once. Workers get SIGTERM: nobody will be there to end one
// that hangs. The pool is of no use afterwards.
func (p *Pool) Abandon() {
	for _, w := range p.workers {
		switch {
		case w.child != nil:
			p.terminate(w)
		case w.starting && w.req != nil:
			p.unreserve(w, FailShutdown)
		}
	}
}

func (p *Pool) checkGone() {
	if p.stopping && p.running() == 0 && p.nstarting == 0 {
		p.finish()
	}
}

func (p *Pool) finish() {
	if gone := p.gone; gone != nil {
		p.gone = nil
		p.timers.Stop(&p.stopTimer)
		gone()
	}
}
