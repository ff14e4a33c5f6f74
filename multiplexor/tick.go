package main

import (
	"fmt"
	"time"

	"postern/internal/evloop"
)

// tick is one kind of tick request: sent to a worker, its answer ignored, and sent
// again an interval after that.
type tick struct {
	pool  *pool
	n     int
	every time.Duration
	timer evloop.Timer
	req   request
}

// startTicks starts the given number of kinds.
func (p *pool) startTicks(kinds int, every time.Duration) {
	for n := range kinds {
		t := &tick{pool: p, n: n, every: every}
		t.timer.Do = t.send
		t.again()
	}
}

func (t *tick) again() { t.pool.timers.Start(&t.timer, t.every) }

func (t *tick) send() {
	t.req.set(fmt.Appendf(nil, "tick %d", t.n), fromTick, t)
	t.pool.submit(&t.req)
}

func (t *tick) answered([]byte) { t.again() }

// failed: whatever went wrong, there is a next time.
func (t *tick) failed(why failure) {
	switch why {
	case failShutdown:
		return
	case failNoFree:
		t.pool.event(levelWarning, "Tick %d skipped -- no free workers", t.n)
	case failStart:
		t.pool.event(levelWarning, "Tick %d skipped -- unable to activate worker", t.n)
	}
	t.again()
}
