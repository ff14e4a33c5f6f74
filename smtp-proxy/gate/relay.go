package gate

import (
	"context"
	"sync/atomic"

	"postern/internal/netlist"
	"postern/internal/smtp"
)

// Relay decides about recipients that are not ours.
type Relay struct {
	stamps *Stamps
	rule   atomic.Pointer[relayRule]
}

// relayRule says whose mail for recipients that are not ours goes on.
type relayRule struct {
	refuse  bool // of all but those who are trusted
	stamped bool // of all without a stamp
	local   LocalDomains
	clients netlist.List // who is trusted by its address
}

func (g *Relay) set(s Settings) {
	g.rule.Store(&relayRule{s.RefuseRelay, s.StampToRelay && g.stamps.store != nil, s.Local, s.RelayClients})
}

// check decides about a recipient. The refusal is nil if mail for it is taken, else the gate says which rule refused it.
func (g *Relay) check(ctx context.Context, c Client, from, to smtp.Path) *Refusal {
	rule := g.rule.Load()
	switch {
	case !rule.refuse && !rule.stamped, rule.local.Has(to), c.LoggedIn, rule.clients.Has(c.Addr):
		return nil
	}
	if g.stamps.store != nil {
		if allowed, no := g.stamps.allowsRelay(ctx, c.Addr, from); allowed || no != nil {
			return no
		}
	}
	switch {
	case rule.stamped:
		return refuse(NameStamp, 550, "5.7.1", "Relaying denied, fetch your mail first")
	case rule.local.Empty():
		// Nobody has said what is ours: no reason to have mail returned. Postfix, defer_unauth_destination.
		return refuse(NameRelay, 454, "4.7.1", "Relay access denied")
	}
	return refuse(NameRelay, 554, "5.7.1", "Relay access denied")
}
