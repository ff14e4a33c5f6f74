package gate

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"postern/internal/netlist"
	"postern/internal/smtp"
	"postern/internal/stamp"
	"postern/internal/store"
)

// StampStore gives the fresh stamp of an address, if there is one. With an error there is none.
type StampStore interface {
	Look(ctx context.Context, addr netip.Addr) (stamp.Stamp, bool, error)
}

// Stamps is POP3 before SMTP: shut for clients without a fresh stamp.
type Stamps struct {
	store StampStore // nil: nobody needs a stamp
	log   *slog.Logger
	rule  atomic.Pointer[stampRule]
}

// stampRule says who needs a stamp, and for what.
type stampRule struct {
	exempt   netlist.List
	toRelay  bool    // only to relay; else to connect
	downOpen bool    // while the store cannot be asked, clients may connect without
	senders  Senders // which user may send as whom; nil: all as anybody
}

func (g *Stamps) set(s Settings) {
	g.rule.Store(&stampRule{s.StampExempt, s.StampToRelay, s.StoreDownOpen, s.Senders})
}

// Name returns the gate's name.
func (g *Stamps) Name() string { return NameStamp }

// Check refuses a client that needs a stamp to connect and has none. When the store cannot be asked, the settings
// decide.
func (g *Stamps) Check(ctx context.Context, c Client) *smtp.Reply {
	rule := g.rule.Load()
	if g.store == nil || rule.toRelay || rule.exempt.Has(c.Addr) {
		return nil
	}
	st, fresh, err := g.look(ctx, c.Addr)
	switch {
	case err != nil && rule.downOpen:
		return nil
	case err != nil:
		return shut(421, "4.7.0", "Stamps cannot be looked up, try again later")
	case !fresh:
		return shut(421, "4.7.0", "Fetch your mail first")
	}
	g.log.Info("let in by a stamp", "client", c.Addr.String(), "user", st.User)
	return nil
}

// allowsRelay reports whether the client may relay by its stamp, as that sender: the stamp may be newer than MAIL was.
// That the client need not have one to connect does not let it, nor does a store that cannot be asked.
func (g *Stamps) allowsRelay(ctx context.Context, addr netip.Addr, from smtp.Path) (allowed bool, no *Refusal) {
	rule := g.rule.Load()
	if rule.toRelay && rule.exempt.Has(addr) {
		return true, nil
	}
	st, fresh, err := g.look(ctx, addr)
	switch {
	case err != nil:
		return false, refuse(NameStamp, 451, "4.3.0", "Stamps cannot be looked up, try again later")
	case !fresh:
		return false, nil
	case rule.binds(addr, from) && !rule.senders.has(st.User, from):
		return false, g.notTheUsers(addr, st.User, from)
	}
	return true, nil
}

// binds reports whether a client without a login may send as from only if its stamp is of a user who may. The null
// sender names nobody.
func (r *stampRule) binds(addr netip.Addr, from smtp.Path) bool {
	return r.senders != nil && !from.Null() && !r.exempt.Has(addr)
}

// notTheUsers refuses a sender that the user of the stamp may not be.
func (g *Stamps) notTheUsers(addr netip.Addr, user string, from smtp.Path) *Refusal {
	g.log.Info("sender is not the one of the stamp", "client", addr.String(), "user", user, "from", from.Address)
	return refuse(NameStamp, 553, "5.7.1", "Sender address is not one of the user who has fetched mail")
}

// checkSender refuses a sender that is not the one of the stamp's user. Who needs no stamp, or has logged in, is not
// asked.
func (g *Stamps) checkSender(ctx context.Context, c Client, from smtp.Path) *Refusal {
	rule := g.rule.Load()
	if g.store == nil || c.LoggedIn || !rule.binds(c.Addr, from) {
		return nil
	}
	st, fresh, err := g.look(ctx, c.Addr)
	switch {
	case err != nil:
		return refuse(NameStamp, 451, "4.3.0", "Stamps cannot be looked up, try again later")
	case !fresh && rule.toRelay:
		return nil // it can send to us alone
	case !fresh:
		return refuse(NameStamp, 450, "4.7.0", "Fetch your mail first")
	case !rule.senders.has(st.User, from):
		return g.notTheUsers(c.Addr, st.User, from)
	}
	return nil
}

func (g *Stamps) look(ctx context.Context, addr netip.Addr) (stamp.Stamp, bool, error) {
	if !addr.IsValid() {
		return stamp.Stamp{}, false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	st, fresh, err := g.store.Look(ctx, addr)
	if err != nil {
		if !errors.Is(err, store.ErrDown) { // that is said once
			g.log.Error("stamp cannot be looked up", "client", addr.String(), "error", err)
		}
		return stamp.Stamp{}, false, err
	}
	return st, fresh, nil
}
