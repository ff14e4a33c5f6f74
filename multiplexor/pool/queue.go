package pool

import (
	"log/slog"
	"time"
)

// queue holds the requests that wait, oldest first.
type queue struct {
	head, tail *Request
	len        int
}

func (q *queue) push(r *Request) {
	r.list, r.prev, r.next = q, q.tail, nil
	if q.tail == nil {
		q.head = r
	} else {
		q.tail.next = r
	}
	q.tail = r
	q.len++
}

func (q *queue) remove(r *Request) {
	if r.list == nil {
		return
	}
	if r.prev == nil {
		q.head = r.next
	} else {
		r.prev.next = r.next
	}
	if r.next == nil {
		q.tail = r.prev
	} else {
		r.next.prev = r.prev
	}
	r.list, r.prev, r.next = nil, nil, nil
	q.len--
}

// mayWait reports whether the queue is any use to a request that got no worker. It
// is not when there is none, but some that are ending, and none can be started: an
// error now is better than the same error later.
func (p *Pool) mayWait(why Failure) bool {
	return p.limits.QueueSize > 0 && (why == FailNoFree || p.deaths == 0 || p.count[idle]+p.count[busy]+p.nstarting > 0)
}

// enqueue makes a request wait. One that finds the queue full is not refused at
// once: as long as requests are finished it will have a place in a moment, and
// refusing it would only make its client ask again.
func (p *Pool) enqueue(r *Request, why Failure) {
	if p.queue.len >= p.limits.QueueSize {
		if p.limits.QueueSize == 0 || p.stuck {
			p.turnAway(r, why)
			return
		}
		p.overflow.push(r)
		if p.overflow.len == 1 {
			p.timers.Start(&p.overflowTimer, overflowWait)
		}
		return
	}
	p.queue.push(r)
	if p.limits.LogEvents {
		p.event(slog.LevelInfo, "All workers are busy: Queueing request (%d queued)", p.queue.len)
	}
	if r.wait.Do == nil {
		r.wait.Do = func() { r.pool.waitedTooLong(r) }
	}
	r.pool, r.since = p, p.timers.Now()
	p.timers.Start(&r.wait, p.limits.QueueTimeout)
}

// overflowWait is how long nothing may leave the queue before requests that have
// no place in it are refused.
const overflowWait = 100 * time.Millisecond

func (p *Pool) turnAway(r *Request, why Failure) {
	if p.limits.QueueSize > 0 {
		p.event(slog.LevelInfo, "Cannot queue request: request queue is full")
	}
	p.refuse(r, why)
}

// overflowed: the queue has been full for a while.
func (p *Pool) overflowed() {
	p.stuck = true
	for r := p.overflow.head; r != nil; r = p.overflow.head {
		p.overflow.remove(r)
		p.turnAway(r, FailNoFree)
	}
}

// room is told that the queue has a free place.
func (p *Pool) room() {
	p.stuck = false
	r := p.overflow.head
	if r == nil {
		return
	}
	p.overflow.remove(r)
	p.enqueue(r, FailNoFree)
	if p.overflow.head == nil {
		p.timers.Stop(&p.overflowTimer)
	} else {
		p.timers.Start(&p.overflowTimer, overflowWait)
	}
}

// waitedTooLong refuses a request whose time in the queue is over.
func (p *Pool) waitedTooLong(r *Request) {
	p.queue.remove(r)
	p.waited(p.timers.Now() - r.since)
	p.tell(r, FailQueue)
	p.room()
}

// Withdraw takes back a request whose asker has gone, if it still waits.
func (p *Pool) Withdraw(r *Request) bool {
	if r.list == nil {
		return false
	}
	if r.list == &p.overflow {
		p.overflow.remove(r)
		return true
	}
	p.queue.remove(r)
	p.timers.Stop(&r.wait)
	p.room()
	return true
}

// serveQueue gives what waits to whoever can take it. It is called whenever that
// may have changed.
func (p *Pool) serveQueue() {
	for p.queue.head != nil && !p.stopping {
		r := p.queue.head
		w, _ := p.acquire(r.Kind)
		if w == nil {
			return
		}
		p.waited(p.timers.Now() - r.since)
		p.Withdraw(r)
		if r.Kind == KindRecipok && p.domainFull(r) {
			p.unacquire(w)
			p.tell(r, FailDomain)
			continue
		}
		p.give(w, r)
	}
}
