package daemon

import (
	"sync"
	"sync/atomic"

	"postern/internal/metrics"
)

// state is what a load balancer is told; it only grows.
type state struct{ n atomic.Int32 }

const (
	starting int32 = iota
	ready
	draining
)

func (s *state) set(to int32) {
	for was := s.n.Load(); was < to && !s.n.CompareAndSwap(was, to); was = s.n.Load() {
	}
}

// text is the state as the metrics want it.
func (s *state) text() string { return [...]string{"starting", metrics.Ready, "draining"}[s.n.Load()] }

// reloads counts what became of them.
type reloads struct {
	mu sync.Mutex
	n  metrics.Reloads
}

func (r *reloads) count(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n.LastFailed = err != nil
	if err != nil {
		r.n.Failed++
	} else {
		r.n.Done++
	}
}

func (r *reloads) read() metrics.Reloads {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}
