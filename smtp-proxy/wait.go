package main

import "time"

// How a session waits for its client, and what a drain makes of that.

// rest sends the replies that are due and begins to wait for a command. It is not ok if the proxy or the client ends, and
// the session with it.
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
	d := s.conf.CommandTimeout - s.idle
	if s.mayReturn() {
		d = min(d, s.conf.UpstreamIdle)
	}
	if s.state == stateBarred {
		d = min(d, barredTime)
	}
	switch {
	case s.await(what, d):
		return o, true
	case s.srv.draining.Load():
		return closed(gateDrain, goingDown), false
	}
	return gone, false
}

// waits says what a session waits for the client for, and so what a drain makes of it.
type waits uint8

const (
	forContent waits = iota // or for nothing: the drain waits, too
	forMore                 // a command within a transaction: the drain waits a little
	forCommand              // the beginning of a transaction, or of anything: the drain ends the session
)

// barredTime is how long a client that is not wanted may take to say QUIT.
const barredTime = 30 * time.Second

// mayReturn says whether the session has a connection to the server that others could use while its client says
// nothing: not one that a user has logged in on, or on which content has begun.
func (s *session) mayReturn() bool {
	return s.tx != nil && s.relay.spare() && (s.tx.chunks == nil || s.tx.dir != nil) && s.conf.UpstreamIdle > 0
}

// returnUpstream gives the connection back of a client that has said nothing for a while. The envelope is issued anew
// when the client goes on, see resume.
func (s *session) returnUpstream() {
	s.idle += s.conf.UpstreamIdle
	s.relay.letGo(whenIdle)
}

// await begins to wait for the client, for d at most; false if that is not to be, because the proxy ends.
func (s *session) await(what waits, d time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.srv.draining.Load() {
		if what == forCommand {
			return false
		}
		if what == forMore {
			d = min(d, s.srv.drainGrace)
		}
	}
	s.waits = what
	return s.raw.SetReadDeadline(time.Now().Add(d)) == nil
}

// awake ends the waiting.
func (s *session) awake() {
	s.mu.Lock()
	s.waits = forContent
	s.mu.Unlock()
}

// wake ends the waiting of a session, or shortens it; called by the server that drains.
func (s *session) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.raw.SetWriteDeadline(time.Now().Add(s.srv.drainGrace)) // a reply that is not read
	switch s.waits {
	case forCommand:
		_ = s.raw.SetReadDeadline(time.Unix(1, 0))
	case forMore:
		_ = s.raw.SetReadDeadline(time.Now().Add(s.srv.drainGrace))
	}
}

// goingDown is what a session is told that the drain ends.
var goingDown = reply(421, "4.3.2", "Service is going down, try again later")
