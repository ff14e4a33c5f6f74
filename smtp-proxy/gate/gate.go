// Package gate decides who may come in: by limits, by the load of the machine, by what the filter can take, by stamps, and
// by where mail is to go. It knows of a client what [Client] says, and nothing of sessions.
package gate

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"postern/internal/netlist"
	"postern/internal/smtp"
	"postern/internal/store"
)

// Names of the gates, in the log and as label of the metrics.
const (
	NameSessions   = "sessions"
	NameAddress    = "address"
	NameRate       = "rate"
	NameRefusals   = "refusals"
	NameRefuseFile = "refuse-file"
	NameLoad       = "load"
	NamePressure   = "pressure"
	NameWorkers    = "workers"
	NameStamp      = "stamp"
	NameRelay      = "relay"
)

// Client is who asks.
type Client struct {
	Addr     netip.Addr // in its canonical form; not valid for a UNIX socket
	LoggedIn bool
}

// Gate is one condition for coming in.
type Gate interface {
	// Name returns the name in the log and the metrics.
	Name() string
	// Check returns the reply to a client that may not come in, or nil.
	Check(ctx context.Context, c Client) *smtp.Reply
}

// Refusal is a gate that is shut: which, and what the client is told.
type Refusal struct {
	Gate  string
	Reply smtp.Reply
}

// refuse makes a refusal.
func refuse(gate string, code int, enhanced, text string) *Refusal {
	return &Refusal{gate, smtp.NewReply(code, enhanced, text)}
}

// shut makes the reply of a gate that is shut.
func shut(code int, enhanced, text string) *smtp.Reply {
	r := smtp.NewReply(code, enhanced, text)
	return &r
}

// readingAge is how long a value read from the kernel is taken as the present one: a flood of
// connections must not become a flood of file reads.
const readingAge = time.Second

// Config is what the gates of a server are made of.
type Config struct {
	Log         *slog.Logger
	Slots       func(free, before int)                                    // hears of each change of the free slots for sessions
	LoadChanged func(shut bool)                                           // hears of each change of the load gate
	LoadFault   func()                                                    // hears of each reading of the load averages that failed
	Ask         func(ctx context.Context, request string) (string, error) // asks the multiplexor; nil: workers do not matter
	Stamps      StampStore                                                // nil: nobody needs a stamp
	Shared      *store.Client                                             // where sessions and refusals of all gateways are counted; nil: nowhere
	Settings    Settings
}

// Settings are what can change while the gates are in use.
type Settings struct {
	Limits        LimitSettings
	Load          LoadLimits
	LoadFile      string
	Pressure      []PressureLimit
	PressureDir   string
	RefuseFile    string
	StampExempt   netlist.List
	StampToRelay  bool    // a stamp is needed to relay only; else to connect
	StoreDownOpen bool    // while stamps cannot be looked up, clients may connect without
	Senders       Senders // as whom each user may send; nil: as anybody
	RefuseRelay   bool    // of all but those who are trusted
	Local         LocalDomains
	RelayClients  netlist.List // who is trusted by its address
}

// Gates are the gates of a server.
type Gates struct {
	Limits  *Limits  // asked where a session begins and ends
	Load    *Load    // in the list, and looked at while nobody comes
	Workers *Workers // in the list, and told of the multiplexor's events

	pressure *Pressure
	refuse   *RefuseFile
	stamps   *Stamps
	relay    *Relay
}

// New makes the gates.
func New(c Config) *Gates {
	g := &Gates{
		Limits: newLimits(c), Load: &Load{log: c.Log, now: time.Now, change: c.LoadChanged, fault: c.LoadFault},
		Workers: &Workers{ask: c.Ask, log: c.Log, now: time.Now}, pressure: &Pressure{log: c.Log, now: time.Now},
		refuse: &RefuseFile{}, stamps: &Stamps{store: c.Stamps, log: c.Log},
	}
	g.relay = &Relay{stamps: g.stamps}
	g.set(c.Settings)
	return g
}

// Set puts settings into force. It may be called at any time.
func (g *Gates) Set(s Settings) {
	g.Limits.set(s.Limits)
	g.set(s)
}

func (g *Gates) set(s Settings) {
	g.Load.set(s.Load, s.LoadFile)
	g.pressure.set(s.Pressure, s.PressureDir)
	g.refuse.set(s.RefuseFile)
	g.relay.set(s)
	g.stamps.set(s)
}

// list returns the gates that need nothing but what is known of the client, in the order in which they are asked: that
// of smtp-proxy(8), which is that of cost.
func (g *Gates) list() []Gate {
	return []Gate{g.refuse, g.Load, g.pressure, g.Workers, g.stamps}
}

// Check returns the first gate that is shut for the client, or nil. Nothing is asked of workers or stamps before the
// cheaper gates are known to be open.
func (g *Gates) Check(ctx context.Context, c Client) *Refusal {
	for _, gate := range g.list() {
		if r := gate.Check(ctx, c); r != nil {
			return &Refusal{gate.Name(), *r}
		}
	}
	return nil
}

// Each calls f with what each gate makes of the client, in their order.
func (g *Gates) Each(ctx context.Context, c Client, f func(gate string, r *smtp.Reply)) {
	for _, gate := range g.list() {
		f(gate.Name(), gate.Check(ctx, c))
	}
}

// Relay returns why mail of the client from a sender for a recipient is not taken, or nil.
func (g *Gates) Relay(ctx context.Context, c Client, from, to smtp.Path) *Refusal {
	return g.relay.check(ctx, c, from, to)
}

// Sender decides whether the client may send as from: nil if it may.
func (g *Gates) Sender(ctx context.Context, c Client, from smtp.Path) *Refusal {
	return g.stamps.checkSender(ctx, c, from)
}

// Locks returns the locks that a session needs, by name.
func (g *Gates) Locks() map[string]sync.Locker {
	return map[string]sync.Locker{"load gate": &g.Load.mu, "pressure gate": &g.pressure.mu, "worker gate": &g.Workers.mu}
}
