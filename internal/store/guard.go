package store

import (
	"sync"
	"time"
)

// patience is how many requests in a row must fail until the server counts as down.
const patience = 3

// guard keeps callers from waiting for a server that does not answer: when it is down, one of them at a time tries
// whether it is back, and all others hear at once that it is not.
type guard struct {
	now   func() time.Time
	every time.Duration                                      // between tries while it is down
	told  func(down bool, lasted time.Duration, cause error) // of each change, one at a time

	mu       sync.Mutex
	failures int // in a row
	down     bool
	since    time.Time
	next     time.Time // when somebody may try again
}

// allow reports whether a request may be tried.
func (g *guard) allow() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.down {
		return true
	}
	now := g.now()
	if now.Before(g.next) {
		return false
	}
	g.next = now.Add(g.every)
	return true
}

// done notes how a request ended: with err, the server did not answer.
func (g *guard) done(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	if err == nil {
		g.failures = 0
		if g.down {
			g.down = false
			g.told(false, now.Sub(g.since), nil)
		}
		return
	}
	if g.failures++; g.failures >= patience && !g.down {
		g.down, g.since = true, now
		g.next = now.Add(g.every)
		g.told(true, 0, err)
	}
}

func (g *guard) isDown() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.down
}
