package main

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"postern/internal/namedfile"
	"postern/internal/smtp"
	"postern/internal/stamp"
)

// Names of the gates, in the log and as label of the metrics.
const (
	gateSessions  = "sessions"
	gateAddress   = "address"
	gateRate      = "rate"
	gateProxy     = "proxy-header"
	gateRefuse    = "refuse-file"
	gateLoad      = "load"
	gatePressure  = "pressure"
	gateWorkers   = "workers"
	gateStamp     = "stamp"
	gateRelay     = "relay"
	gateEarly     = "early-talker"
	gateErrors    = "errors"
	gateRefusals  = "refusals"
	gateLogins    = "logins"
	gateJunk      = "junk"
	gateMany      = "transactions"
	gateTimeout   = "timeout"
	gateDrain     = "drain"
	gateFilter    = "filter"
	gateForeign   = "foreign-protocol"
	gateNewline   = "bare-newline"
	gateLine      = "line"
	gateSync      = "synchronization"
	gateHandshake = "tls"
)

var allGates = []string{
	gateSessions, gateAddress, gateRate, gateProxy, gateRefuse, gateLoad, gatePressure, gateWorkers, gateStamp, gateRelay, gateEarly, gateErrors,
	gateRefusals, gateLogins, gateJunk, gateMany, gateTimeout, gateDrain, gateFilter, gateForeign, gateNewline, gateLine, gateSync, gateHandshake,
}

// refusal is a gate that is shut: which, and what the client is told before the connection ends.
type refusal struct {
	gate  string
	reply smtp.Reply
}

func shut(gate string, reply smtp.Reply) *refusal { return &refusal{gate, reply} }

// admission asks the gates that need nothing but the client's address.
type admission struct {
	load     *loadGate
	pressure *pressureGate
	workers  *workerGate // nil: no filter, or the gate is off
	log      *slog.Logger

	mu         sync.Mutex
	stamps     *stampGate // nil: none wanted
	relaying   relaying
	refuseFile string
}

// set takes over the settings that can change while running.
func (a *admission) set(s *settings) {
	a.load.set(s.load, s.LoadavgFile)
	a.pressure.set(s.pressure, s.PressureDir)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refuseFile = s.RefuseFile
	a.relaying = relaying{refuse: bool(s.RefuseRelay), local: s.local, clients: s.relayNets}
	if a.stamps != nil {
		g := *a.stamps
		g.exempt, g.session = s.exemptNets, s.ClientipScope == "session"
		a.stamps = &g
	}
}

// stampGate gives the gate of the moment, or nil.
func (a *admission) stampGate() *stampGate {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stamps
}

// check gives the first gate that is shut for a client, in the order of cost: nothing is asked of
// workers, stamps or servers before the cheaper gates are known to be open.
func (a *admission) check(ctx context.Context, addr netip.Addr) *refusal {
	for i := 0; ; i++ {
		name, r := a.gate(ctx, i, addr)
		if name == "" {
			return nil
		}
		if r.Code != 0 {
			return shut(name, r)
		}
	}
}

// gate asks gate number i, from 0. The reply is empty if the gate is open; the name is empty behind the
// last gate.
func (a *admission) gate(ctx context.Context, i int, addr netip.Addr) (name string, r smtp.Reply) {
	switch i {
	case 0:
		if text, refused := a.maintenance(); refused {
			return gateRefuse, reply(421, "4.3.2", text)
		}
		return gateRefuse, r
	case 1:
		if a.load.closed() {
			return gateLoad, reply(421, "4.3.2", "System load is too high, try again later")
		}
		return gateLoad, r
	case 2:
		if a.pressure.closed() {
			return gatePressure, reply(421, "4.3.2", "System is too busy, try again later")
		}
		return gatePressure, r
	case 3:
		if a.workers != nil && a.workers.closed(ctx) {
			return gateWorkers, reply(421, "4.3.2", "No filter is free, try again later")
		}
		return gateWorkers, r
	case 4:
		if g := a.stampGate(); g != nil && g.session && !g.allows(ctx, addr) {
			return gateStamp, reply(421, "4.7.0", "Fetch your mail first")
		}
		return gateStamp, r
	}
	return "", r
}

// maintenance looks for the refuse-file and gives its first line.
func (a *admission) maintenance() (text string, refused bool) {
	a.mu.Lock()
	file := a.refuseFile
	a.mu.Unlock()
	if file == "" {
		return "", false
	}
	data, err := namedfile.Head(file, 400)
	if err != nil {
		return "", false
	}
	first, _, _ := strings.Cut(string(data), "\n")
	if first = strings.TrimSpace(first); first == "" {
		first = "Service is down for maintenance, try again later"
	}
	return first, true
}

// stampGate is POP3 before SMTP.
type stampGate struct {
	store   stamp.Store
	exempt  []netip.Prefix
	session bool // a stamp is needed to connect; else only to relay
	log     *slog.Logger
}

// allows says whether the client has a fresh stamp or needs none. When the store cannot be asked the
// answer is no; the cause is in the log.
func (g *stampGate) allows(ctx context.Context, addr netip.Addr) bool {
	return within(addr, g.exempt) || g.fresh(ctx, addr)
}

// allowsRelay says whether the client may relay by its stamp. That it need not have one to connect does not let it.
func (g *stampGate) allowsRelay(ctx context.Context, addr netip.Addr) bool {
	if g.session {
		return g.fresh(ctx, addr)
	}
	return g.allows(ctx, addr)
}

func (g *stampGate) fresh(ctx context.Context, addr netip.Addr) bool {
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
