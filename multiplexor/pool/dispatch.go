package pool

import (
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"postern/internal/mxproto"
	"postern/internal/notify"
)

// Submit takes a request. Its asker is told the outcome, now or later.
func (p *Pool) Submit(r *Request) {
	switch {
	case p.stopping:
		p.tell(r, FailShutdown)
		return
	case r.Kind == KindRecipok && p.domainFull(r):
		p.tell(r, FailDomain)
		return
	case p.poisoned(r):
		p.tell(r, FailPoison)
		return
	case p.queue.head != nil && r.origin == FromClient:
		p.enqueue(r, FailNoFree) // others have waited longer
		return
	}
	w, why := p.acquire(r.Kind)
	switch {
	case w != nil:
		p.give(w, r)
	case r.origin == FromClient && p.mayWait(why):
		p.enqueue(r, why)
	default:
		p.refuse(r, why)
	}
}

func (p *Pool) refuse(r *Request, why Failure) {
	switch {
	case why == FailNoFree && r.origin == FromClient:
		p.event(slog.LevelWarn, "No free workers")
	case why == FailStart && r.origin == FromClient:
		p.logRefused()
	}
	p.tell(r, why)
}

// acquire finds a worker for a request: an idle one, one that is just being
// started, or a slot in which a process may be started now.
func (p *Pool) acquire(k Kind) (*worker, Failure) {
	for w := p.idle.take(k); w != nil; w = p.idle.take(k) {
		if w.greeting {
			w.child.ReadNow()
			switch {
			case w.dying || w.state != idle:
				continue
			case w.greeting:
				p.logChoice(w, k)
				return w, 0 // it is still loading
			}
		}
		switch w.child.Look() {
		case OutputQuiet:
			p.logChoice(w, k)
			return w, 0
		case OutputClosed:
			w.OutputEnded()
		case OutputNoisy:
			p.log.Add(slog.LevelError, fmt.Sprintf("Worker %d (pid %d) wrote something although it had no request", w.n, w.pid()))
			p.kill(w, "Unexpected output", true)
		}
	}
	if len(p.loading) > 0 {
		w := p.loading[0]
		p.loading = p.loading[1:]
		return w, 0
	}
	if len(p.stopped) == 0 {
		return nil, FailNoFree
	}
	if !p.mayStart() {
		return nil, FailStart
	}
	w := p.takeSlot()
	p.logChoice(w, k)
	return w, 0
}

// logChoice logs who gets a request, if that is wanted. The original counted starts
// from 0.
func (p *Pool) logChoice(w *worker, k Kind) {
	if p.limits.LogScheduling {
		p.log.AddEach(slog.LevelInfo, fmt.Sprintf("Scheduling %v worker %d for cmdno %d (activated=%d, last=%d)", w.state, w.n, k.number(), max(w.activation, 1)-1, w.lastKind.number()))
	}
}

// unacquire puts back a worker that acquire gave.
func (p *Pool) unacquire(w *worker) {
	switch {
	case w.starting:
		p.loading = append(p.loading, w)
	case w.state == stopped:
		p.stopped = append(p.stopped, w)
	default:
		p.idle.add(w)
	}
}

func (p *Pool) give(w *worker, r *Request) {
	switch {
	case w.starting:
		p.reserve(w, r)
	case w.state == stopped:
		p.start(w, r, startReason(r))
	default:
		p.assign(w, r)
	}
}

func startReason(r *Request) string {
	switch {
	case r.origin == FromMap:
		return "About to handle map request"
	case r.origin == fromTick:
		return "About to run tick"
	case r.Kind == KindScan:
		return "About to perform scan"
	}
	line := r.Bare()
	return fmt.Sprintf("About to execute command '%s'", line[:min(len(line), 100)])
}

// assign hands the request to an idle worker.
func (p *Pool) assign(w *worker, r *Request) {
	now := p.timers.Now()
	w.req = r
	w.begun = now
	if w.working {
		w.forget() // what it wrote before has not ended it
	}
	if !w.used {
		w.used, w.first = true, now
	}
	if r.Kind.counted() {
		w.lastKind = r.Kind
	}
	p.enterDomain(r)
	if r.origin == FromClient {
		w.queueID = r.queueID()
	}
	p.setState(w, busy)
	w.setTag(r.line)
	if r.origin != fromTick && p.Events != nil {
		p.publish(notify.LetterStatus, strconv.Itoa(w.n)+" "+w.Tag())
	}
	err := w.child.Send(r.line)
	if err != nil && !r.retried && r.origin == FromClient {
		p.retry(w, r)
		return
	}
	if r.logged() {
		p.statistic(w, "StartFilter", "") // of the worker that it stays with
	}
	if err != nil {
		p.talkFailed(w)
		return
	}
	if w.child.Waiting() {
		w.arm(phaseWrite, p.limits.ClientTimeout)
		return
	}
	if r.origin == fromPool {
		w.arm(phaseAnswer, p.limits.ReloadTimeout)
		return
	}
	w.arm(phaseAnswer, p.limits.BusyTimeout)
}

// answer is the good end of a request: line goes to the asker.
func (p *Pool) answer(w *worker, line []byte) {
	r := w.req
	w.answers++
	p.deaths = 0
	if r.origin != fromPool || !mxproto.IsError(string(line)) {
		p.setWorking(w, true)
	}
	if p.hold && !p.old(w) && w.answers == 1 && w.started > p.heldAt {
		p.hold = false // whatever was wrong with the rules, it is repaired
	}
	scan := r.logged()
	if r.origin != fromPool {
		p.counters.answer(r.Kind)
	}
	p.conclude(w, r) // first: who has its answer finds the request counted
	r.asker.Answered(line)
	p.setState(w, idle)
	p.settle(w)
	p.endScan(w, scan)
}

// fail is the bad end of the worker's request, if it has one. The worker stays
// Busy; the caller decides what becomes of it, and then calls endScan with what
// fail returns.
func (p *Pool) fail(w *worker, why Failure) (scan bool) {
	r := w.req
	if r == nil {
		return false
	}
	scan = r.logged()
	if why != FailShutdown {
		p.noteDeath(r)
	}
	p.conclude(w, r)
	p.tell(r, why)
	return scan
}

// conclude counts a request that has ended and frees the worker of it.
func (p *Pool) conclude(w *worker, r *Request) {
	w.disarm()
	w.req = nil
	p.leaveDomain(r)
	if r.origin == fromPool {
		return
	}
	w.requests++
	if p.Timings != nil {
		p.Timings.Ended(r.Kind.Label(), p.timers.Now()-w.begun)
	}
	if r.Kind == KindScan {
		w.scans++
		p.messages++
	}
	if r.Kind.counted() {
		p.loads.record(r.Kind, p.timers.Now(), p.timers.Now()-w.begun, p.count[busy])
	}
}

// endScan writes the statistics line of a finished scan.
func (p *Pool) endScan(w *worker, scan bool) {
	if scan {
		p.statistic(w, "EndFilter", "numRequests="+strconv.Itoa(w.requests))
	}
}

// logged reports whether the statistics have a line for the request: a scan with
// something after the verb.
func (r *Request) logged() bool { return r.Kind == KindScan && len(r.line) > len("scan \n") }

// busyReason is why a worker that does not answer in time is killed. It may be the
// message and not the worker that is to blame.
const busyReason = "Busy timeout"

func (p *Pool) busyTimeout(w *worker) {
	why := FailTimeout
	if p.count[busy] > 3 {
		why = FailOverloaded
	}
	client := w.req.origin == FromClient
	scan := p.fail(w, why)
	if client {
		p.publish(notify.LetterBusyTimeout, "")
	}
	p.kill(w, busyReason, true)
	p.endScan(w, scan)
}

// retry: the worker has gone and has not read a byte of the line, so that another
// one may have it. That is tried once.
func (p *Pool) retry(w *worker, r *Request) {
	r.retried = true
	p.leaveDomain(r)
	w.req = nil
	p.kill(w, "Error talking to worker process", true)
	p.Submit(r)
}

// talkFailed: the line could not be written, or not all of it.
func (p *Pool) talkFailed(w *worker) {
	const reason = "Error talking to worker process"
	p.blame(w, reason)
	scan := p.fail(w, FailTalk)
	p.kill(w, reason, true)
	p.endScan(w, scan)
}

// weighInterval is the least time between two looks at a worker's memory.
const weighInterval = time.Second

// tooBig reports whether a worker uses more memory than it may.
func (p *Pool) tooBig(w *worker) bool {
	if p.limits.MaxResident <= 0 || w.weighed > 0 && p.timers.Now()-w.weighed < weighInterval {
		return false
	}
	w.weighed = p.timers.Now()
	u, ok := w.child.Usage()
	return ok && u.Resident > p.limits.MaxResident
}

// settle decides what becomes of a worker that has finished a request.
func (p *Pool) settle(w *worker) {
	age := p.timers.Now() - w.first
	switch {
	case p.stopping:
		p.kill(w, "Terminating", false)
	case p.reload.settled(w):
		p.kill(w, "Forcing reread of filter rules", false)
	case p.hold:
		p.idle.add(w)
		p.serveQueue()
	case w.requests < 3*p.limits.MaxRequests && p.queue.head != nil:
		p.idle.add(w)
		p.serveQueue()
	case p.tooBig(w):
		p.retire(w, "Worker uses too much memory")
	case w.requests >= w.limit:
		p.retire(w, fmt.Sprintf("Worker has processed %d requests", w.requests))
	case p.limits.MaxLifetime > 0 && age > p.limits.MaxLifetime:
		p.retire(w, fmt.Sprintf("Worker has exceeded maximum lifetime of %d seconds", p.limits.MaxLifetime/time.Second))
	case p.old(w) && !p.reload.active:
		p.kill(w, "New generation -- forcing reread of filter rules", false)
	default:
		p.idle.add(w)
	}
}
