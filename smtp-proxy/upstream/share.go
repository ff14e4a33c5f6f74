package upstream

import (
	"net/netip"
	"sync"
)

// shares bounds how many connections to a server the clients of one origin have at a time.
type shares struct {
	max int // 0 = no limit

	mu   sync.Mutex
	seen map[netip.Prefix]*share
}

type share struct {
	slots chan struct{} // one per connection
	users int           // those who have one or wait for one
}

// of gives the places for an origin, nil if there is no limit. leave or forget must follow.
func (s *shares) of(origin netip.Prefix) chan struct{} {
	if s.max == 0 || !origin.IsValid() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == nil {
		s.seen = make(map[netip.Prefix]*share)
	}
	own := s.seen[origin]
	if own == nil {
		own = &share{slots: make(chan struct{}, s.max)}
		s.seen[origin] = own
	}
	own.users++
	return own.slots
}

// unlocked returns when the lock has been free.
func (s *shares) unlocked() {
	s.mu.Lock()
	defer s.mu.Unlock()
}

// leave gives a place back.
func (s *shares) leave(origin netip.Prefix) { s.end(origin, true) }

// forget is for who has got none.
func (s *shares) forget(origin netip.Prefix) { s.end(origin, false) }

func (s *shares) end(origin netip.Prefix, had bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.seen[origin]
	if own == nil {
		return
	}
	if had {
		<-own.slots
	}
	if own.users--; own.users == 0 {
		delete(s.seen, origin)
	}
}
