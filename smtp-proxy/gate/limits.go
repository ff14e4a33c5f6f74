package gate

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	"postern/internal/cluster"
	"postern/internal/connlimit"
	"postern/internal/failures"
	"postern/internal/netlist"
	"postern/internal/smtp"
)

// LimitSettings are the limits for sessions.
type LimitSettings struct {
	connlimit.SessionLimits
	Refusals int          // of one address within [connlimit.LoginWindow] that shut it out; 0 for no limit
	Exempt   netlist.List // without limits per address
}

// Limits bounds the sessions, in all and of one address, here and at all gateways, and shuts out addresses that were refused
// too much. Unlike the other gates it counts: who enters must leave.
type Limits struct {
	Refusals failures.Counter // of senders, recipients and messages

	sessions connlimit.Sessions
	cluster  *cluster.Sessions // nil: this gateway counts alone
	exempt   atomic.Pointer[netlist.List]
}

func newLimits(c Config) *Limits {
	l := &Limits{Refusals: failures.Counter{Of: "refusals"}}
	if c.Shared != nil {
		l.cluster = cluster.NewSessions(c.Shared, "smtp")
		l.Refusals.Share(c.Shared)
	}
	l.set(c.Settings.Limits)
	l.sessions.Change = c.Slots // which hears of changes, not of the first limit
	return l
}

func (l *Limits) set(s LimitSettings) {
	l.exempt.Store(&s.Exempt)
	l.sessions.Set(s.SessionLimits)
	l.cluster.Set(s.SessionLimits)
	l.Refusals.Set(s.Refusals, 0)
}

// Enter takes a slot for a session whose client is not known yet, or returns why there is none.
func (l *Limits) Enter() *Refusal {
	if !l.sessions.EnterTotal() {
		return tooMany()
	}
	return nil
}

// Leave gives a slot back.
func (l *Limits) Leave() { l.sessions.LeaveTotal() }

// EnterAddress counts a session for its client's address, here and at all gateways, or returns why it cannot be. Who comes in
// calls leave at the end.
func (l *Limits) EnterAddress(ctx context.Context, addr netip.Addr) (leave func(), no *Refusal) {
	exempt := l.exempt.Load().Has(addr)
	if !exempt && l.Refusals.Shut(addr) {
		return nil, full(connlimit.Banned)
	}
	if f := l.sessions.Enter(addr, exempt, time.Now()); f != connlimit.Fits {
		return nil, full(f)
	}
	if exempt {
		return func() { l.sessions.Leave(addr) }, nil
	}
	key, most := l.Refusals.Shared(addr)
	if f := l.cluster.Enter(ctx, addr, cluster.Ban{Key: key, Most: most}); f != connlimit.Fits {
		l.sessions.Leave(addr)
		return nil, full(f)
	}
	return func() {
		l.sessions.Leave(addr)
		l.cluster.Leave(addr)
	}, nil
}

// full is the reply to a session that does not fit.
func full(f connlimit.Fullness) *Refusal {
	switch f {
	case connlimit.FullOrigin:
		return refuse(NameAddress, 421, "4.7.0", "Too many sessions from your address")
	case connlimit.FullRate:
		return refuse(NameRate, 421, "4.7.0", "Too many connections from your address, slow down")
	case connlimit.Banned:
		return refuse(NameRefusals, 421, "4.7.0", "Too much was refused to your address, try again later")
	}
	return tooMany()
}

// Refused counts something that was refused for good to a client.
func (l *Limits) Refused(ctx context.Context, addr netip.Addr) {
	if addr.IsValid() && l.Refusals.Limited() && !l.exempt.Load().Has(addr) {
		l.Refusals.Failed(ctx, addr, "")
	}
}

// Banned returns the reply to an address that was refused too much, here or at all gateways; nil for others.
func (l *Limits) Banned(ctx context.Context, addr netip.Addr) *smtp.Reply {
	if l.exempt.Load().Has(addr) || !l.Refusals.ShutByAny(ctx, addr) {
		return nil
	}
	return &full(connlimit.Banned).Reply
}

// Close ends what goes on beside the sessions.
func (l *Limits) Close() { l.cluster.Close() }

// Stats returns how many sessions there are, and how many addresses are remembered.
func (l *Limits) Stats() (sessions, addresses int) { return l.sessions.Stats() }

// Of returns how many sessions the address has, counted with those from the same network.
func (l *Limits) Of(addr netip.Addr) int { return l.sessions.Of(addr) }

func tooMany() *Refusal {
	return refuse(NameSessions, 421, "4.3.2", "Too many sessions, try again later")
}
