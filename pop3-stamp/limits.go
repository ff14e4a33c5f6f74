package main

import (
	"context"
	"net/netip"
	"time"

	"postern/internal/cluster"
	"postern/internal/connlimit"
	"postern/internal/failures"
	"postern/internal/store"
)

// limits bounds the sessions, and knows who has failed to log in too often.
type limits struct {
	sessions connlimit.Sessions
	cluster  *cluster.Sessions // nil: this gateway counts alone
	logins   failures.Counter
}

// share has sessions and failed logins counted over all gateways.
func (l *limits) share(c *store.Client) {
	l.cluster = cluster.NewSessions(c, "pop3")
	l.logins.Share(c)
}

// set puts limits into force.
func (l *limits) set(s *settings) {
	sessions := connlimit.SessionLimits{Total: s.MaxSessions, PerOrigin: s.MaxSessionsPerAddress}
	l.sessions.Set(sessions)
	l.cluster.Set(sessions)
	l.logins.Set(s.MaxLoginFailures, s.LoginDelay)
}

// refusal is why a client may not come in; "" if it may.
type refusal string

const (
	tooMany         refusal = "too many sessions"
	tooManyFrom     refusal = "too many sessions from this address"
	tooManyFailures refusal = "too many failed logins from this address"
)

// refusals are what a limit says.
var refusals = map[connlimit.Fullness]refusal{
	connlimit.FullTotal: tooMany, connlimit.FullOrigin: tooManyFrom, connlimit.Banned: tooManyFailures,
}

// enter takes a slot for a session; the caller gives it back with leave if there was no refusal.
func (l *limits) enter(ctx context.Context, addr netip.Addr) refusal {
	if !l.sessions.EnterTotal() {
		return tooMany
	}
	if f := l.enterAddress(ctx, addr); f != connlimit.Fits {
		l.sessions.LeaveTotal()
		return refusals[f]
	}
	return ""
}

// enterAddress counts a session for its address, here and at all gateways.
func (l *limits) enterAddress(ctx context.Context, addr netip.Addr) connlimit.Fullness {
	if l.logins.Shut(addr) {
		return connlimit.Banned
	}
	if f := l.sessions.Enter(addr, false, time.Now()); f != connlimit.Fits {
		return f
	}
	key, most := l.logins.Shared(addr)
	f := l.cluster.Enter(ctx, addr, cluster.Ban{Key: key, Most: most})
	if f != connlimit.Fits {
		l.sessions.Leave(addr)
	}
	return f
}

// leave gives a slot back.
func (l *limits) leave(addr netip.Addr) {
	l.cluster.Leave(addr)
	l.sessions.Leave(addr)
	l.sessions.LeaveTotal()
}

// count returns how many sessions there are.
func (l *limits) count() int {
	n, _ := l.sessions.Stats()
	return n
}
