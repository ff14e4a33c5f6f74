package main

import (
	"net/netip"
	"time"

	"postern/internal/connlimit"
	"postern/internal/failures"
)

// limits bounds the sessions, and knows who has failed to log in too often.
type limits struct {
	sessions connlimit.Sessions
	logins   failures.Logins
}

// refusal is why a client may not come in; "" if it may.
type refusal string

const (
	tooMany         refusal = "too many sessions"
	tooManyFrom     refusal = "too many sessions from this address"
	tooManyFailures refusal = "too many failed logins from this address"
)

// enter takes a slot for a session; the caller gives it back with leave if there was no refusal.
func (l *limits) enter(addr netip.Addr) refusal {
	if !l.sessions.EnterTotal() {
		return tooMany
	}
	switch l.sessions.Enter(addr, false, time.Now()) {
	case connlimit.Fits:
	case connlimit.FullOrigin:
		l.sessions.LeaveTotal()
		return tooManyFrom
	default:
		l.sessions.LeaveTotal()
		return tooMany
	}
	if l.logins.Shut(addr) {
		l.leave(addr)
		return tooManyFailures
	}
	return ""
}

// leave gives a slot back.
func (l *limits) leave(addr netip.Addr) {
	l.sessions.Leave(addr)
	l.sessions.LeaveTotal()
}

// count returns how many sessions there are.
func (l *limits) count() int {
	n, _ := l.sessions.Stats()
	return n
}
