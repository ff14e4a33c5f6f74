package main

import (
	"sync"
	"sync/atomic"
	"time"
)

// drain is how sessions are brought to their end.
type drain struct {
	draining   atomic.Bool
	stopping   chan struct{} // closed when draining begins
	stopOnce   sync.Once
	drainGrace time.Duration // for the next command of a transaction
}

// waiter is how a session waits for its client, and what a drain makes of that.
type waiter struct {
	*drain
	conn interface { // below TLS, if there is TLS
		SetReadDeadline(time.Time) error
		SetWriteDeadline(time.Time) error
		Close() error
	}
	idle time.Duration // how long the client has said nothing before its connection to the next hop was let go

	mu sync.Mutex
	waits
}

// waits says what a session waits for the client for, and so what a drain makes of it.
type waits uint8

const (
	forContent waits = iota // or for nothing: the drain waits, too
	forMore                 // a command within a transaction: the drain waits a little
	forCommand              // the beginning of a transaction, or of anything: the drain ends the session
)

// begin begins to wait for the client, for d at most; false if that is not to be, because the proxy ends.
func (w *waiter) begin(what waits, d time.Duration) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.draining.Load() {
		if what == forCommand {
			return false
		}
		if what == forMore {
			d = min(d, w.drainGrace)
		}
	}
	w.waits = what
	return w.conn.SetReadDeadline(time.Now().Add(d)) == nil
}

// end ends the waiting.
func (w *waiter) end() {
	w.mu.Lock()
	w.waits = forContent
	w.mu.Unlock()
}

// wake ends the waiting of a session, or shortens it; called by the server that drains.
func (w *waiter) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.conn.SetWriteDeadline(time.Now().Add(w.drainGrace)) // a reply that is not read
	switch w.waits {
	case forCommand:
		_ = w.conn.SetReadDeadline(time.Unix(1, 0))
	case forMore:
		_ = w.conn.SetReadDeadline(time.Now().Add(w.drainGrace))
	}
}

// rest sends the replies that are due and begins to wait for a command. It is not ok if the proxy or the
// client ends, and the session with it.
func (s *session) rest() (o outcome, ok bool) {
	if !s.flush() {
		return gone, false
	}
	what := forCommand
	switch {
	case s.tx != nil && s.tx.chunks != nil:
		what = forContent
	case s.tx != nil:
		what = forMore
	}
	d := s.conf.CommandTimeout - s.wait.idle
	if s.mayReturn() {
		d = min(d, s.conf.UpstreamIdle)
	}
	if s.closing.state == stateBarred {
		d = min(d, barredTime)
	}
	switch {
	case s.wait.begin(what, d):
		return o, true
	case s.srv.draining.Load():
		return closed(gateDrain, goingDown), false
	}
	return gone, false
}

// barredTime is how long a client that is not wanted may take to say QUIT.
const barredTime = 30 * time.Second

// mayReturn reports whether the session has a connection to the next hop that others could use while its
// client says nothing: not one that a user has logged in on, or on which content has begun.
func (s *session) mayReturn() bool {
	return s.tx != nil && s.relay.spare() && (s.tx.chunks == nil || s.tx.filtered != nil) && s.conf.UpstreamIdle > 0
}

// returnUpstream lets the connection go of a client that has said nothing for a while. The envelope is issued
// anew when the client goes on: see resume.
func (s *session) returnUpstream() {
	s.wait.idle += s.conf.UpstreamIdle
	s.relay.letGo(whenIdle)
}

// goingDown is what a session is told that the drain ends.
var goingDown = reply(421, "4.3.2", "Service is going down, try again later")
