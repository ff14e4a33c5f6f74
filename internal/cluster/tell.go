package cluster

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"postern/internal/store"
)

// tell says to the store what has changed, and from time to time what has not, until ctx ends. It is the only one to do so:
// a store that hangs holds up nobody else.
func (s *Sessions) tell(ctx context.Context) {
	defer close(s.ended)
	renew := time.NewTicker(renewal)
	defer renew.Stop()
	for wake, again := s.wake, (<-chan time.Time)(nil); ; {
		select {
		case <-ctx.Done():
			return
		case now := <-renew.C:
			s.due(now)
		case <-wake:
			time.Sleep(gather)
		case <-again:
		}
		wake, again = s.wake, nil
		if s.flush(ctx) != nil {
			wake, again = nil, time.After(retry)
		}
	}
}

// due marks the origins whose lease must be renewed, and forgets those that have left for so long that the store has, too.
func (s *Sessions) due(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for origin, e := range s.seats {
		switch age := now.Sub(e.said); {
		case e.empty() && age >= Lease:
			delete(s.seats, origin)
			delete(s.stale, origin)
		case e.sessions > 0 && s.limits.PerOrigin > 0 && age >= renewal/2:
			s.stale[origin] = struct{}{}
		}
	}
}

// flush tells the store of all that it does not know.
func (s *Sessions) flush(ctx context.Context) error {
	for {
		words, steps := s.take()
		if len(steps) == 0 {
			return nil
		}
		_, err := s.client.RunAll(ctx, steps...)
		s.told(words, err)
		if err != nil {
			return err
		}
	}
}

// word is what is said of an origin, and what there was before.
type word struct {
	origin      netip.Prefix
	left        int
	now, before time.Time // of seat.said
}

// take takes a batch of what is to be told.
func (s *Sessions) take() (words []word, steps []store.Step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for origin := range s.stale {
		if len(steps) == batch {
			break
		}
		delete(s.stale, origin)
		e := s.seats[origin]
		if e == nil || e.said.IsZero() && s.limits.PerOrigin == 0 {
			continue
		}
		sure := 0
		if e.asked == 0 {
			sure = 1
		}
		s.last++
		w := word{origin, e.left, time.Now(), e.said}
		words = append(words, w)
		steps = append(steps, store.Step{
			Script: tellScript, Keys: []string{s.key(origin)},
			Args: []any{s.gateway, s.last, e.sessions, sure, e.left, Lease.Microseconds()},
		})
		e.left, e.said = 0, w.now
	}
	return words, steps
}

// told notes that a batch was told: those of it that have no session are forgotten; or that it may not have been, and is to be
// told again. Where nothing was said, because the store is down, there is nothing that it could have heard.
func (s *Sessions) told(words []word, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range words {
		e := s.seats[w.origin]
		if e != nil {
			e.untold -= w.left
		}
		_, stale := s.stale[w.origin]
		switch {
		case e == nil:
		case err != nil:
			s.stale[w.origin] = struct{}{}
			if errors.Is(err, store.ErrDown) {
				e.unsay(w)
				s.drop(w.origin, e)
			}
		case e.empty() && !stale:
			delete(s.seats, w.origin)
		}
	}
}

// unsay takes a word back that was not sent.
func (e *seat) unsay(w word) {
	e.left += w.left
	if e.said.Equal(w.now) {
		e.said = w.before
	}
}
