package gate

import (
	"context"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"postern/internal/smtp"
)

// StampStore tells whether there is a fresh stamp for an address. With an error it is false.
type StampStore interface {
	Fresh(ctx context.Context, addr netip.Addr) (bool, error)
}

// Stamps is POP3 before SMTP: shut for clients without a fresh stamp.
type Stamps struct {
	store StampStore // nil: nobody needs a stamp
	log   *slog.Logger
	rule  atomic.Pointer[stampRule]
}

// stampRule says who needs a stamp, and for what.
type stampRule struct {
	exempt  []netip.Prefix
	toRelay bool // only to relay; else to connect
}

func (g *Stamps) set(s Settings) { g.rule.Store(&stampRule{s.StampExempt, s.StampToRelay}) }

// Name returns the gate's name.
func (g *Stamps) Name() string { return NameStamp }

// Check refuses a client that needs a stamp to connect and has none.
func (g *Stamps) Check(ctx context.Context, c Client) *smtp.Reply {
	if g.store == nil || g.rule.Load().toRelay || g.allows(ctx, c.Addr) {
		return nil
	}
	return shut(421, "4.7.0", "Fetch your mail first")
}

// allows reports whether the client has a fresh stamp or needs none. When the store cannot be asked the
// answer is no; the cause is in the log.
func (g *Stamps) allows(ctx context.Context, addr netip.Addr) bool {
	return within(addr, g.rule.Load().exempt) || g.fresh(ctx, addr)
}

// allowsRelay reports whether the client may relay by its stamp. That it need not have one to connect does not let it.
func (g *Stamps) allowsRelay(ctx context.Context, addr netip.Addr) bool {
	if g.rule.Load().toRelay {
		return g.allows(ctx, addr)
	}
	return g.fresh(ctx, addr)
}

func (g *Stamps) fresh(ctx context.Context, addr netip.Addr) bool {
	if !addr.IsValid() {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	fresh, err := g.store.Fresh(ctx, addr)
	if err != nil {
		g.log.Error("stamp cannot be looked up, refusing", "client", addr.String(), "error", err)
		return false
	}
	return fresh
}
