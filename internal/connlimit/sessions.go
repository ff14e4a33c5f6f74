package connlimit

import (
	"math"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// sessionTable bounds the table of origins of [Sessions], in entries: forgotten ones are dropped from it first.
const sessionTable = 100000

// SessionLimits are the limits of [Sessions]; 0 stands for none.
type SessionLimits struct {
	Total     int     // sessions at a time
	PerOrigin int     // of them from one origin
	Rate      float64 // new sessions per second from one origin
}

// Sessions counts sessions: in all, per origin, and how fast new ones come from an origin. It is ready for use by its
// literal, without limits, and for any number of goroutines.
type Sessions struct {
	Change func(free, before int) // called with the lock held when a slot was taken or given back; may be nil

	mu     sync.Mutex
	limits SessionLimits
	total  int
	seen   map[netip.Prefix]*entry
}

// entry is what is known of an origin.
type entry struct {
	sessions int
	limiter  *rate.Limiter
	last     time.Time
}

// Fullness says which limit a session ran into.
type Fullness int

// The limits.
const (
	Fits       Fullness = iota // none
	FullTotal                  // sessions in all
	FullOrigin                 // sessions from the origin
	FullRate                   // new sessions per second from the origin
	Banned                     // failures of the origin; not a limit of [Sessions]
)

// Set puts limits into force. It may be called at any time.
func (s *Sessions) Set(limits SessionLimits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.free()
	s.limits = limits
	if free := s.free(); free != before && s.Change != nil {
		s.Change(free, before)
	}
	for _, e := range s.seen {
		e.limiter = nil
	}
}

// EnterTotal takes a slot for a session whose client is not known yet; it reports whether there was one.
func (s *Sessions) EnterTotal() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.limits.Total > 0 && s.total >= s.limits.Total {
		return false
	}
	s.total++
	s.tell(-1)
	return true
}

// LeaveTotal gives a slot back.
func (s *Sessions) LeaveTotal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	s.tell(1)
}

func (s *Sessions) tell(more int) {
	if s.Change != nil && s.limits.Total > 0 {
		free := s.free()
		s.Change(free, max(free-more, 0))
	}
}

// free returns how many more sessions there may be.
func (s *Sessions) free() int {
	if s.limits.Total == 0 {
		return math.MaxInt32
	}
	return max(s.limits.Total-s.total, 0) // Set may have made it less than there are
}

// Enter counts a session for the origin of its client; Leave must follow if it fits. Clients that are exempt are
// counted, but have no limit, as those without an address.
func (s *Sessions) Enter(addr netip.Addr, exempt bool, now time.Time) Fullness {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entry(Origin(addr), now)
	if e == nil {
		return FullTotal
	}
	if e.limiter == nil && s.limits.Rate > 0 {
		e.limiter = rate.NewLimiter(rate.Limit(s.limits.Rate), max(1, int(s.limits.Rate)))
	}
	e.last = now
	switch {
	case !addr.IsValid() || exempt:
	case e.limiter != nil && !e.limiter.AllowN(now, 1):
		return FullRate
	case s.limits.PerOrigin > 0 && e.sessions >= s.limits.PerOrigin:
		return FullOrigin
	}
	e.sessions++
	return Fits
}

// entry returns the entry of an origin, or nil if the table is full.
func (s *Sessions) entry(origin netip.Prefix, now time.Time) *entry {
	if s.seen == nil {
		s.seen = make(map[netip.Prefix]*entry)
	}
	e := s.seen[origin]
	if e != nil {
		return e
	}
	if len(s.seen) >= sessionTable {
		s.forget(now)
	}
	if len(s.seen) >= sessionTable {
		return nil
	}
	e = &entry{}
	s.seen[origin] = e
	return e
}

// Leave ends a session of the origin.
func (s *Sessions) Leave(addr netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	origin := Origin(addr)
	e := s.seen[origin]
	if e == nil {
		return
	}
	if e.sessions--; e.sessions <= 0 && e.limiter == nil {
		delete(s.seen, origin)
	}
}

// forget drops the origins without sessions that have been away for ten seconds.
func (s *Sessions) forget(now time.Time) {
	for origin, e := range s.seen {
		if e.sessions == 0 && now.Sub(e.last) > 10*time.Second {
			delete(s.seen, origin)
		}
	}
}

// Stats returns how many sessions there are, and how many origins are remembered.
func (s *Sessions) Stats() (sessions, origins int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total, len(s.seen)
}

// Of returns how many sessions the origin of an address has.
func (s *Sessions) Of(addr netip.Addr) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.seen[Origin(addr)]; e != nil {
		return e.sessions
	}
	return 0
}
