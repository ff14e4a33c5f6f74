package main

import (
	"postern/internal/connlimit"
	"postern/internal/notify"
	"postern/internal/stamp"
	"postern/internal/store"
	"postern/smtp-proxy/gate"
)

// Names of the gates within a session, in the log and as label of the metrics, beside those of package gate.
const (
	gateProxy     = "proxy-header"
	gateHandshake = "tls"
	gateEarly     = "early-talker"
	gateFilter    = "filter"
	gateLogins    = "logins"
	gateErrors    = "errors"
	gateRefusals  = gate.NameRefusals
	gateJunk      = "junk"
	gateMany      = "transactions"
	gateTimeout   = "timeout"
	gateLine      = "line"
	gateDrain     = "drain"
	gateNewline   = "bare-newline"
	gateSync      = "synchronization"
	gateForeign   = "foreign-protocol"
)

// allGates are the names of the gates in the order of smtp-proxy(8).
var allGates = []string{
	gate.NameSessions, gateProxy, gate.NameAddress, gate.NameRate, gateHandshake, gate.NameRefuseFile, gate.NameLoad, gate.NamePressure,
	gate.NameWorkers, gate.NameStamp, gate.NameRelay, gateEarly, gateFilter, gateLogins, gateErrors, gateRefusals, gateJunk, gateMany,
	gateTimeout, gateLine, gateDrain, gateNewline, gateSync, gateForeign,
}

// newGates makes the gates of a server.
func newGates(srv *server, s *settings) (*gate.Gates, error) {
	c := gate.Config{Log: srv.log, Slots: srv.slots, LoadChanged: srv.loadChanged, LoadFault: srv.metrics.loadFault, Settings: s.gates()}
	if srv.filter != nil && bool(s.WorkerGate) {
		c.Ask = srv.mx.Ask
	}
	switch {
	case s.shared != nil:
		srv.shared = store.Open(s.shared, srv.log)
		if bool(s.ClusterLimits) {
			srv.logins.Share(srv.shared)
			c.Shared = srv.shared
		}
		c.Stamps = stamp.NewShared(srv.shared, s.ClientipMaxage, s.ClientipIPv6Prefix)
	case s.ClientipDir != "":
		dir, err := stamp.OpenDir(s.ClientipDir, s.ClientipMaxage, s.ClientipOwner)
		if err != nil {
			return nil, err
		}
		dir.IPv6 = s.ClientipIPv6Prefix
		c.Stamps = dir
	}
	return gate.New(c), nil
}

// gates returns what the settings say to the gates.
func (s *settings) gates() gate.Settings {
	return gate.Settings{
		Limits: gate.LimitSettings{
			SessionLimits: connlimit.SessionLimits{Total: s.MaxSessions, PerOrigin: s.MaxSessionsPerAddress, Rate: s.MaxRatePerAddress},
			Refusals:      s.MaxRefusalsPerAddress,
			Exempt:        s.limitExemptNets,
		},
		Load: s.load, LoadFile: s.LoadavgFile, Pressure: s.pressure, PressureDir: s.PressureDir, RefuseFile: s.RefuseFile,
		StampExempt: s.exemptNets, StampToRelay: s.ClientipScope != "session", StoreDownOpen: s.StoreDown == "open", Senders: s.senders,
		RefuseRelay: bool(s.RefuseRelay), Local: s.local, RelayClients: s.relayNets,
	}
}

// loadChanged tells listeners whether the load gate is shut.
func (srv *server) loadChanged(shut bool) {
	text := "0"
	if shut {
		text = "1"
	}
	srv.publish(notify.LetterGate, text)
}

// forGates returns what the gates know of the client.
func (c *client) forGates() gate.Client { return gate.Client{Addr: c.addr.Addr(), LoggedIn: c.known()} }
