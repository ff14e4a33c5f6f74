package upstream

import (
	"sync"
	"time"
)

// breaker keeps a server that fails from being asked again by every session: behind the second failure in a
// row it is left alone, for twice as long each time; then one session may try.
type breaker struct {
	mu     sync.Mutex
	fails  int
	until  time.Time
	pause  time.Duration
	trying bool // the one that may try has not come back
}

const firstPause = time.Second

// allow says whether the server may be tried.
func (b *breaker) allow(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fails < 2 {
		return true
	}
	if now.Before(b.until) {
		return false
	}
	b.until, b.trying = now.Add(b.pause), true // the others wait for what comes of this try
	return true
}

func (b *breaker) failure(now time.Time, most time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fails >= 2 && !b.trying && now.Before(b.until) {
		return // one of many that were under way when it was given up: it says nothing new
	}
	b.trying = false
	b.fails++
	if b.fails < 2 {
		return
	}
	b.pause = min(max(2*b.pause, firstPause), most)
	b.until = now.Add(b.pause)
}

func (b *breaker) success() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fails, b.pause, b.trying = 0, 0, false
}

// shut says whether the server is being left alone.
func (b *breaker) shut(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.fails >= 2 && now.Before(b.until)
}
