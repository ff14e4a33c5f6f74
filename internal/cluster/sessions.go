// Package cluster counts sessions over all gateways that share a store: how many an origin has at a time, and how fast
// new ones come from it. The server runs the rule as one step, by its own clock alone.
package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"net/netip"
	"sync"
	"time"

	"postern/internal/connlimit"
	"postern/internal/store"
)

const (
	// Lease is how long the sessions of a gateway count that does not say any more that it has them.
	Lease = 30 * time.Second

	renewal  = Lease / 3            // how often it says so
	retry    = time.Second          // how long it waits when the store does not answer
	batch    = 200                  // origins that are written at once
	gather   = 5 * time.Millisecond // how long sessions that end are collected, to be told together
	second   = 1_000_000.0          // in the microseconds of the scripts
	farewell = 2 * time.Second      // that the last word may take at the end
)

// Ban is a count of failures in the store, under "=" in a hash, that shuts an origin out.
type Ban struct {
	Key  string
	Most int // failures that do; 0 for no limit
}

// Sessions counts the sessions of this gateway for all. The store adds those that come; it is told which have left, and from
// time to time how many there are, so that nothing that is lost on the way is lost for long. It is safe for any
// number of goroutines; nil counts nothing.
type Sessions struct {
	client  *store.Client
	kind    string // of sessions: those of different protocols are not counted together
	gateway string // name of this process, which no other has
	wake    chan struct{}
	end     context.CancelFunc
	ended   chan struct{}

	mu     sync.Mutex
	limits connlimit.SessionLimits
	seats  map[netip.Prefix]*seat
	stale  map[netip.Prefix]struct{} // those of which the store does not know how many there are now
	last   uint64                    // number of what was said to the store last
}

// seat is what this gateway has of an origin.
type seat struct {
	sessions int       // that came in
	asked    int       // of which the store has not decided yet
	left     int       // that ended since the store was told
	untold   int       // of those that have left: what the store is not known to have heard
	said     time.Time // when it was told last, and may have heard; zero for never
}

// empty reports whether there is nothing to remember.
func (e *seat) empty() bool { return e.sessions <= 0 && e.asked == 0 }

// NewSessions begins to count sessions of a kind in a store.
func NewSessions(c *store.Client, kind string) *Sessions {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Sessions{
		client: c, kind: kind, gateway: rand.Text(), wake: make(chan struct{}, 1), end: cancel, ended: make(chan struct{}),
		seats: make(map[netip.Prefix]*seat), stale: make(map[netip.Prefix]struct{}),
	}
	go s.tell(ctx)
	return s
}

// Close tells the store what there is at the end, if it listens, and ends. The store stays open.
func (s *Sessions) Close() {
	if s == nil {
		return
	}
	s.end()
	<-s.ended
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	_ = s.flush(ctx)
}

// Set puts limits into force; that for sessions in all is each gateway's own. It may be called at any time.
func (s *Sessions) Set(limits connlimit.SessionLimits) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.limits.PerOrigin == 0 && limits.PerOrigin > 0 {
		for origin := range s.seats {
			s.stale[origin] = struct{}{} // nobody was told of them
		}
	}
	s.limits = limits
}

// Enter counts a session, unless it is one too many over all gateways, or comes too soon, or one of the bans holds. Leave must
// follow if it fits. It takes one round trip, and the store's time-out at most; while the store does not answer, everybody fits.
func (s *Sessions) Enter(ctx context.Context, addr netip.Addr, bans ...Ban) connlimit.Fullness {
	if s == nil || !addr.IsValid() {
		return connlimit.Fits
	}
	origin := connlimit.Origin(addr)
	keys, most := []string{s.key(origin)}, []any{}
	for _, b := range bans {
		if b.Most > 0 {
			keys, most = append(keys, b.Key), append(most, b.Most)
		}
	}
	left := s.leaving(origin) // before: while the store is asked, it may be told, too
	f := s.enter(ctx, origin, keys, most)
	if f != connlimit.FullOrigin || !left && !s.leaving(origin) {
		return f
	}
	// The store is being told of a session that has ended here.
	for until := time.Now().Add(retry); s.leaving(origin) && time.Now().Before(until); {
		time.Sleep(gather)
	}
	return s.enter(ctx, origin, keys, most)
}

// enter asks once.
func (s *Sessions) enter(ctx context.Context, origin netip.Prefix, keys []string, most []any) connlimit.Fullness {
	args := s.ask(origin, len(most) > 0)
	if args == nil {
		s.decided(origin, connlimit.Fits, unasked)
		return connlimit.Fits
	}
	result, err := s.client.Run(ctx, enterScript, keys, append(args, most...)...)
	f, h := verdict(result, err)
	s.decided(origin, f, h)
	return f
}

// leaving reports whether sessions have ended of which the store was not told.
func (s *Sessions) leaving(origin netip.Prefix) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.seats[origin]
	return e != nil && e.untold > 0
}

// verdict reads what the store says of a session.
func verdict(result any, err error) (connlimit.Fullness, hearing) {
	if errors.Is(err, store.ErrDown) {
		return connlimit.Fits, unheard
	}
	n, _ := result.(int64)
	switch f := connlimit.Fullness(n); {
	case err != nil || result == nil:
		return connlimit.Fits, unsure
	case f == connlimit.FullOrigin, f == connlimit.FullRate, f == connlimit.Banned:
		return f, heard
	case result == int64(connlimit.Fits):
		return connlimit.Fits, heard
	case n == first:
		return connlimit.Fits, anew
	}
	return connlimit.Fits, unsure
}

// first is what the script says for Fits if the store knew of no session of this gateway.
const first = -1

// hearing is what the store knows of a session.
type hearing uint8

const (
	unasked hearing = iota // it need not know
	unheard                // nothing
	unsure                 // it may know
	anew                   // this one, and none of those before
	heard                  // this one and those before
)

// ask returns what is to be said to the store; nil if there is nothing to ask.
func (s *Sessions) ask(origin netip.Prefix, bans bool) []any {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.seats[origin]
	if e == nil {
		e = &seat{}
		s.seats[origin] = e
	}
	e.asked++
	every, saved := 0.0, 0.0
	if s.limits.Rate > 0 {
		every = second / s.limits.Rate
		saved = every * (max(1, float64(int(s.limits.Rate))) - 1)
	}
	if s.limits.PerOrigin == 0 && every == 0 && !bans {
		return nil
	}
	s.last++
	return []any{s.gateway, s.last, s.limits.PerOrigin, Lease.Microseconds(), int64(every), int64(saved)}
}

// decided notes whether a session came in, and what the store knows of it.
func (s *Sessions) decided(origin netip.Prefix, f connlimit.Fullness, h hearing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.seats[origin]
	e.asked--
	if f == connlimit.Fits {
		e.sessions++
	}
	if h >= unsure && s.limits.PerOrigin > 0 {
		e.said = time.Now()
	}
	doubt := h == unheard || h == unsure || h == anew && e.sessions > 1
	s.drop(origin, e)
	if doubt {
		s.mark(origin)
	}
}

// drop forgets an origin without sessions of which the store was told nothing.
func (s *Sessions) drop(origin netip.Prefix, e *seat) {
	if e.empty() && e.said.IsZero() {
		delete(s.seats, origin)
		delete(s.stale, origin)
	}
}

// Leave ends a session.
func (s *Sessions) Leave(addr netip.Addr) {
	if s == nil || !addr.IsValid() {
		return
	}
	origin := connlimit.Origin(addr)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.seats[origin]; e != nil {
		e.sessions--
		e.left++
		e.untold++
		s.drop(origin, e)
	}
	s.mark(origin)
}

// mark has the store be told soon how many sessions an origin has. The lock is held.
func (s *Sessions) mark(origin netip.Prefix) {
	if s.seats[origin] != nil {
		s.stale[origin] = struct{}{}
	}
	select {
	case s.wake <- struct{}{}:
	default: // it is to be woken already
	}
}

// key is where the sessions of an origin are. What is in braces decides of the node of a Cluster: the counts of failures
// of an origin are beside its sessions.
func (s *Sessions) key(origin netip.Prefix) string {
	return s.client.Key("sessions:" + s.kind + ":{" + origin.String() + "}")
}
