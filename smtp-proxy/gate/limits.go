package gate

import (
	"net/netip"
	"sync/atomic"
	"time"

	"postern/internal/connlimit"
	"postern/internal/netlist"
)

// LimitSettings are the limits for sessions.
type LimitSettings struct {
	connlimit.SessionLimits
	Exempt netlist.List // without limits per address
}

// Limits bounds the sessions, in all and of one address. Unlike the other gates it counts: who enters must
// leave.
type Limits struct {
	sessions connlimit.Sessions
	exempt   atomic.Pointer[netlist.List]
}

func newLimits(c Config) *Limits {
	l := &Limits{}
	l.set(c.Settings.Limits)
	l.sessions.Change = c.Slots // which hears of changes, not of the first limit
	return l
}

func (l *Limits) set(s LimitSettings) {
	l.exempt.Store(&s.Exempt)
	l.sessions.Set(s.SessionLimits)
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

// EnterAddress counts a session for its client's address, or returns why it cannot be.
func (l *Limits) EnterAddress(addr netip.Addr) *Refusal {
	switch l.sessions.Enter(addr, l.exempt.Load().Has(addr), time.Now()) {
	case connlimit.Fits:
		return nil
	case connlimit.FullOrigin:
		return refuse(NameAddress, 421, "4.7.0", "Too many sessions from your address")
	case connlimit.FullRate:
		return refuse(NameRate, 421, "4.7.0", "Too many connections from your address, slow down")
	}
	return tooMany()
}

// LeaveAddress ends a session of the address.
func (l *Limits) LeaveAddress(addr netip.Addr) { l.sessions.Leave(addr) }

// Stats returns how many sessions there are, and how many addresses are remembered.
func (l *Limits) Stats() (sessions, addresses int) { return l.sessions.Stats() }

// Of returns how many sessions the address has, counted with those from the same network.
func (l *Limits) Of(addr netip.Addr) int { return l.sessions.Of(addr) }

func tooMany() *Refusal {
	return refuse(NameSessions, 421, "4.3.2", "Too many sessions, try again later")
}
