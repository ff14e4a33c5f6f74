package main

import (
	"net"

	"postern/internal/metrics"
)

// meters are the figures of the server. No label has a value that a client chooses.
type meters struct {
	registry    *metrics.Registry
	connections *metrics.Counters
	logins      *metrics.Counters
	stamps      *metrics.Counters
	refusals    *metrics.Counter
	stampFaults *metrics.Counter
	faults      *metrics.Counter
}

func newMeters(srv *server) *meters {
	r := metrics.New("pop3_stamp")
	m := &meters{
		registry:    r,
		connections: r.Counters("connections_total", "Clients that connected, by listener.", "listener", listenPOP3, listenPOP3S),
		logins:      r.Counters("logins_total", "Logins, by outcome.", "outcome", "success", "failure", "deferred"),
		stamps:      r.Counters("stamps_total", "Stamps that were written and removed.", "what", "written", "revoked", "expired"),
		refusals:    r.Counter("refused_connections_total", "Clients that were over a limit."),
		stampFaults: r.Counter("stamp_failures_total", "Stamps that could not be written."),
		faults:      r.Counter("upstream_failures_total", "Failures of the upstream server."),
	}
	r.Read([]metrics.Metric{{Name: "sessions", Help: "Sessions now."}}, func(put func(name, label string, v float64)) {
		put("sessions", "", float64(srv.limits.count()))
	})
	return m
}

func (m *meters) connection(listener string) { m.connections.Inc(listener) }
func (m *meters) login(outcome string)       { m.logins.Inc(outcome) }
func (m *meters) stamp(what string)          { m.stamps.Inc(what) }
func (m *meters) refused()                   { m.refusals.Inc() }
func (m *meters) stampFailed()               { m.stampFaults.Inc() }
func (m *meters) upstreamFault()             { m.faults.Inc() }

func (m *meters) serve(l net.Listener) error { return m.registry.Serve(l) }
