package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// server is one next hop: its idle connections, how many there are in all, and whether it works.
type server struct {
	endpoint
	conf    *Config
	dialer  func(ctx context.Context) (*stream, error)
	slots   chan struct{} // one per connection in use, if there is a limit
	shares  shares
	breaker breaker
	plain   plainUntil
	setup   atomic.Pointer[tlsSetup]

	mu     sync.Mutex
	kept   []*Conn // the one that became idle last is at the end
	shut   bool
	reaper *time.Timer

	slow   atomic.Int64 // connections that the server has not greeted for a while
	open   atomic.Int64
	dialed atomic.Int64
	reused atomic.Int64
	failed atomic.Int64
}

// get gives a kept connection, unless it must be fresh, or a new one.
func (s *server) get(ctx context.Context, client Client, w want) (*Conn, error) {
	origin := client.Origin
	client.Origin = netip.Prefix{} // no connection is kept for it
	if err := s.acquire(ctx, origin); err != nil {
		return nil, err
	}
	c, err := s.find(ctx, client, w)
	if err != nil {
		s.leave(origin)
		return nil, s.wrap(err)
	}
	c.origin = origin
	return c, nil
}

func (s *server) find(ctx context.Context, client Client, w want) (*Conn, error) {
	for c := s.take(client, w); c != nil; c = s.take(client, w) {
		err := s.renew(ctx, c, client)
		if err == nil {
			s.reused.Add(1)
			return c, nil
		}
		c.close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	// Kept connections are no sign that there can be new ones: only those are tried, or not.
	if !s.breaker.allow(time.Now()) {
		return nil, errShut
	}
	s.makeRoom()
	hurry := time.AfterFunc(s.conf.HurryTime, s.hurry) // it may have a process for each and none for a new one
	c, err := s.dial(ctx, client, w)
	if !hurry.Stop() {
		s.slow.Add(-1)
	}
	if err != nil {
		s.open.Add(-1)
		s.failed.Add(1)
		// That a client was refused, went away, or wanted more than others, is no reason to leave the server
		// alone.
		if ctx.Err() == nil && !errors.Is(err, errThisClient) && !errors.Is(err, errInClear) {
			s.breaker.failure(time.Now(), s.conf.RetryTime)
		}
		return nil, err
	}
	s.breaker.success()
	s.dialed.Add(1)
	return c, nil
}

// hurry closes idle connections; none is kept until the server has greeted.
func (s *server) hurry() {
	s.slow.Add(1)
	for c := s.oldest(); c != nil; c = s.oldest() {
		c.quit()
	}
}

// wrap makes an [*Error] of any error.
func (s *server) wrap(err error) error {
	var e *Error
	if errors.As(err, &e) {
		return err
	}
	return &Error{Server: s.name, Reply: replyDown, Err: err}
}

// acquire waits until fewer connections are in use than the limits, by all and by those of one origin.
func (s *server) acquire(ctx context.Context, origin netip.Prefix) error {
	if err := s.wait(ctx, s.shares.of(origin)); err != nil {
		s.shares.forget(origin)
		return err
	}
	if err := s.wait(ctx, s.slots); err != nil {
		s.shares.leave(origin)
		return err
	}
	return nil
}

// wait takes one of the places of a limit; there is none if it is nil.
func (s *server) wait(ctx context.Context, slots chan struct{}) error {
	if slots == nil {
		return nil
	}
	select {
	case slots <- struct{}{}:
		return nil
	default:
	}
	if s.breaker.shut(time.Now()) {
		return &Error{Server: s.name, Reply: replyDown, Err: errShut} // not worth waiting for
	}
	timer := time.NewTimer(s.conf.ConnectTimeout)
	defer timer.Stop()
	select {
	case slots <- struct{}{}:
		return nil
	case <-timer.C:
		return &Error{Server: s.name, Reply: replyBusy, Err: errBusy}
	case <-ctx.Done():
		return &Error{Server: s.name, Reply: replyBusy, Err: fmt.Errorf("%w: %w", errBusy, ctx.Err())}
	}
}

// leave undoes acquire.
func (s *server) leave(origin netip.Prefix) {
	if s.slots != nil {
		<-s.slots
	}
	s.shares.leave(origin)
}

// makeRoom counts one more connection, and closes idle ones if there are too many with it.
func (s *server) makeRoom() {
	n := s.open.Add(1)
	for s.slots != nil && n > int64(cap(s.slots)) {
		old := s.oldest()
		if old == nil {
			return // the limit on those in use has seen to it
		}
		old.quit()
		n = s.open.Load()
	}
}

// take gives the connection that became idle last and may be used for client, if it is still good: not
// old, not closed by the server, and with nothing to read on it.
func (s *server) take(client Client, w want) *Conn {
	now := time.Now()
	for !w.fresh {
		c := s.pop(client, w)
		if c == nil {
			return nil
		}
		if now.Sub(c.idle) < s.keepTime(c) && s.good(c, now) && c.stream.quiet() == nil {
			c.ended, c.looked = false, now
			return c
		}
		c.close()
	}
	return nil
}

// good says whether a connection may be used for one more session.
func (s *server) good(c *Conn, now time.Time) bool {
	return now.Sub(c.born) < s.conf.MaxAge && c.setup == s.setup.Load()
}

func (s *server) pop(client Client, w want) *Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.kept) - 1; i >= 0; i-- {
		if c := s.kept[i]; s.suits(c, client) && (!w.secret || c.private()) {
			s.kept = append(s.kept[:i], s.kept[i+1:]...)
			return c
		}
	}
	return nil
}

// suits says whether a connection can be used for a client.
func (s *server) suits(c *Conn, client Client) bool { return !s.bound(c) || c.client == client }

// bound says whether a connection is of use for one client only: a PROXY header cannot be taken back, and not
// every server takes XCLIENT a second time.
func (s *server) bound(c *Conn) bool {
	switch s.conf.ClientIP {
	case ClientIPProxy1, ClientIPProxy2:
		return true
	case ClientIPXClient:
		return c.caps.xclient == nil
	}
	return false
}

// boundTime is how long a connection is kept for its one client to send another message.
const boundTime = 10 * time.Second

// keepTime is how long a connection may be idle.
func (s *server) keepTime(c *Conn) time.Duration {
	if s.bound(c) {
		return min(boundTime, s.conf.IdleTime)
	}
	return s.conf.IdleTime
}

// oldest takes the connection that has been idle longest.
func (s *server) oldest() *Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.kept) == 0 {
		return nil
	}
	c := s.kept[0]
	s.kept = append(s.kept[:0], s.kept[1:]...)
	return c
}

// put keeps a connection, or closes it if there are enough.
func (s *server) put(c *Conn) {
	now := time.Now()
	c.idle = now
	c.stream.giveBackOut()
	s.mu.Lock()
	keep := !s.shut && s.slow.Load() <= 0 && len(s.kept) < s.conf.MaxIdle && s.good(c, now)
	if keep {
		s.kept = append(s.kept, c)
		if s.reaper == nil {
			s.reaper = time.AfterFunc(s.keepTime(c), s.reap)
		}
	}
	s.mu.Unlock()
	if !keep {
		c.quit()
	}
}

// reap closes connections that were idle for too long.
func (s *server) reap() {
	var old []*Conn
	now := time.Now()
	next := s.conf.IdleTime
	s.mu.Lock()
	s.reaper = nil
	s.kept = slices.DeleteFunc(s.kept, func(c *Conn) bool {
		left := s.keepTime(c) - now.Sub(c.idle)
		if left <= 0 {
			old = append(old, c)
			return true
		}
		next = min(next, left)
		return false
	})
	if len(s.kept) > 0 {
		s.reaper = time.AfterFunc(next, s.reap)
	}
	s.mu.Unlock()
	for _, c := range old {
		c.quit()
	}
}

// close closes the idle connections; those in use are closed when they are given back.
func (s *server) close() {
	s.mu.Lock()
	kept := s.kept
	s.kept, s.shut = nil, true
	if s.reaper != nil {
		s.reaper.Stop()
		s.reaper = nil
	}
	s.mu.Unlock()
	for _, c := range kept {
		c.quit()
	}
}
