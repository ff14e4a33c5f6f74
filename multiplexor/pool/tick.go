package pool

import (
	"fmt"
	"log/slog"
	"time"

	"postern/internal/evloop"
)

// tick is one kind of tick request: sent to a worker, its answer ignored, and sent
// again an interval after that.
type tick struct {
	pool  *Pool
	n     int
	every time.Duration
	timer evloop.Timer
	req   Request
}

// StartTicks starts the given number of kinds.
func (p *Pool) StartTicks(kinds int, every time.Duration) {
	for n := range kinds {
		t := &tick{pool: p, n: n, every: every}
		t.timer.Do = t.send
		t.again()
	}
}

func (t *tick) again() { t.pool.timers.Start(&t.timer, t.every) }

func (t *tick) send() {
	t.req.Set(fmt.Appendf(nil, "tick %d", t.n), fromTick, t)
	t.pool.Submit(&t.req)
}

// Answered has the next tick come after the interval.
func (t *tick) Answered([]byte) { t.again() }

// Failed does so, too: whatever went wrong, there is a next time.
func (t *tick) Failed(why Failure) {
	switch why {
	case FailShutdown:
		return
	case FailNoFree:
		t.pool.event(slog.LevelWarn, "Tick %d skipped -- no free workers", t.n)
	case FailStart:
		t.pool.event(slog.LevelWarn, "Tick %d skipped -- unable to activate worker", t.n)
	}
	t.again()
}
