package main

import (
	"strconv"
	"sync/atomic"
	"time"

	"postern/internal/metrics"
	"postern/smtp-proxy/upstream"
)

// counters are what the server counts for its metrics. The labels come from fixed lists, never from clients.
type counters struct {
	connections map[string]*atomic.Uint64 // by listener
	gates       map[string]*atomic.Uint64 // by gate
	replies     [6]atomic.Uint64          // by first digit
	messages    map[string]*atomic.Uint64 // by outcome
	logins      map[string]*atomic.Uint64 // by outcome
	bytes       atomic.Uint64
	upstream    atomic.Uint64
	filterBad   atomic.Uint64
	loadBad     atomic.Uint64

	registry *metrics.Registry
	phases   *metrics.Histograms
	hops     *metrics.Histograms // by next hop
}

// Phases of a message that take time.
const (
	phaseConnect = "connect" // to the next hop, or to get a kept connection
	phaseScan    = "scan"
	phaseReply   = "reply"   // of the next hop, to the end of the content
	phaseMessage = "message" // all of it, from MAIL to our reply
)

// phaseBounds are the upper bounds of the buckets, in seconds: local servers take milliseconds, scans seconds, silent
// servers minutes.
var phaseBounds = []float64{.001, .005, .01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}

// What becomes of a message, in the log and as label of the metrics.
const (
	outcomeAccepted  = "accepted"
	outcomeHeld      = "held"
	outcomeDiscarded = "discarded"
	outcomeDeferred  = "deferred"
	outcomeRefused   = "refused"
)

var outcomes = []string{outcomeAccepted, outcomeHeld, outcomeDiscarded, outcomeDeferred, outcomeRefused}

// What becomes of a login.
const (
	loginAccepted = "accepted"
	loginRefused  = "refused"  // a password that is not right
	loginShutOut  = "shut-out" // not asked, as too many failed
)

var loginOutcomes = []string{loginAccepted, loginRefused, loginShutOut}

func newCounters() *counters {
	m := &counters{connections: map[string]*atomic.Uint64{}, gates: map[string]*atomic.Uint64{}, messages: map[string]*atomic.Uint64{}, logins: map[string]*atomic.Uint64{}}
	for _, name := range mailListeners {
		m.connections[name] = new(atomic.Uint64)
	}
	for _, name := range allGates {
		m.gates[name] = new(atomic.Uint64)
	}
	for _, name := range outcomes {
		m.messages[name] = new(atomic.Uint64)
	}
	for _, name := range loginOutcomes {
		m.logins[name] = new(atomic.Uint64)
	}
	m.registry = metrics.New("smtp_proxy")
	m.phases = m.registry.Histograms("phase_seconds", "How long the phases of messages took.", "phase",
		[]string{phaseConnect, phaseScan, phaseReply, phaseMessage}, phaseBounds...)
	return m
}

// nextHops makes the figures by next hop, once their names are known.
func (m *counters) nextHops(all []upstream.Stats) {
	m.hops = m.registry.Histograms("next_hop_seconds", "How long next hops took for their reply to the end of a message.", "server", hopNames(all), phaseBounds...)
}

func hopNames(all []upstream.Stats) (names []string) {
	for _, s := range all {
		names = append(names, s.Server)
	}
	return names
}

// replied counts how long the next hop took for its reply to a message.
func (m *counters) replied(server string, began time.Time) {
	m.phases.Since(phaseReply, began)
	if server != "" {
		m.hops.Since(server, began)
	}
}

func (m *counters) connection(listener string) { count(m.connections, listener, 1) }
func (m *counters) gate(name string)           { count(m.gates, name, 1) }
func (m *counters) login(outcome string)       { count(m.logins, outcome, 1) }
func (m *counters) upstreamFault()             { m.upstream.Add(1) }
func (m *counters) filterFault()               { m.filterBad.Add(1) }
func (m *counters) loadFault()                 { m.loadBad.Add(1) }

// reply counts a reply by its class.
func (m *counters) reply(code int) {
	if class := code / 100; class < len(m.replies) {
		m.replies[class].Add(1)
	}
}

// message counts a message that was answered.
func (m *counters) message(outcome string, size int64) {
	count(m.messages, outcome, 1)
	m.bytes.Add(uint64(size))
}

func count(set map[string]*atomic.Uint64, name string, n uint64) {
	if c := set[name]; c != nil {
		c.Add(n)
	}
}

// registry returns the metrics of the server.
func (srv *server) registry() *metrics.Registry {
	r := srv.metrics.registry
	classes := []string{"2xx", "3xx", "4xx", "5xx"}
	hops := hopNames(srv.ups.Stats())
	r.Read([]metrics.Metric{
		{Name: "sessions", Help: "Sessions now."},
		{Name: "connections_total", Help: "Connections accepted.", Counter: true, Label: "listener", Values: mailListeners},
		{Name: "refused_total", Help: "Sessions, messages or recipients that a gate refused.", Counter: true, Label: "gate", Values: allGates},
		{Name: "replies_total", Help: "Replies to clients.", Counter: true, Label: "class", Values: classes},
		{Name: "messages_total", Help: "Messages answered.", Counter: true, Label: "outcome", Values: outcomes},
		{Name: "logins_total", Help: "AUTH commands by what became of them.", Counter: true, Label: "outcome", Values: loginOutcomes},
		{Name: "message_bytes_total", Help: "Content of messages answered.", Counter: true},
		{Name: "upstream_faults_total", Help: "Times a next hop failed.", Counter: true},
		{Name: "upstream_connections", Help: "Open connections to next hops."},
		{Name: "upstream_idle_connections", Help: "Those that are kept for later."},
		{Name: "upstream_dialed_total", Help: "Connections opened to next hops.", Counter: true},
		{Name: "upstream_reused_total", Help: "Times a kept connection was used again.", Counter: true},
		{Name: "next_hop_failures_total", Help: "Times a connection to the next hop could not be had.", Counter: true, Label: "server", Values: hops},
		{Name: "next_hop_left_alone", Help: "Whether the next hop is left alone after failures.", Label: "server", Values: hops},
		{Name: "filter_faults_total", Help: "Times the filter failed.", Counter: true},
		{Name: "load_faults_total", Help: "Times the load averages could not be read.", Counter: true},
		{Name: "kept_total", Help: "Messages whose working directory was to be kept.", Counter: true, Label: "outcome", Values: keptOutcomes},
		{Name: "shadow_total", Help: "Messages that the shadow filter was to see.", Counter: true, Label: "outcome", Values: shadowOutcomes},
		{Name: "held_messages", Help: "Messages in the Maildir of hold, counted at most every ten seconds."},
		{Name: "held_bytes", Help: "Their bytes."},
		{Name: "listeners", Help: "Listeners to events."},
	}, srv.readMetrics)
	r.Process(srv.process)
	if srv.shared != nil {
		r.Store(srv.shared.Counts)
	}
	return r
}

// readMetrics puts the values of the metrics.
func (srv *server) readMetrics(put func(name, label string, v float64)) {
	m := srv.metrics
	put("sessions", "", float64(srv.sessionCount()))
	for name, set := range map[string]map[string]*atomic.Uint64{
		"connections_total": m.connections, "refused_total": m.gates, "messages_total": m.messages, "logins_total": m.logins,
	} {
		for label, c := range set {
			put(name, label, float64(c.Load()))
		}
	}
	for class := 2; class < len(m.replies); class++ {
		put("replies_total", strconv.Itoa(class)+"xx", float64(m.replies[class].Load()))
	}
	put("message_bytes_total", "", float64(m.bytes.Load()))
	put("upstream_faults_total", "", float64(m.upstream.Load()))
	put("filter_faults_total", "", float64(m.filterBad.Load()))
	put("load_faults_total", "", float64(m.loadBad.Load()))
	for _, s := range srv.ups.Stats() {
		put("upstream_connections", "", float64(s.Open))
		put("upstream_idle_connections", "", float64(s.Idle))
		put("upstream_dialed_total", "", float64(s.Dialed))
		put("upstream_reused_total", "", float64(s.Reused))
		put("next_hop_failures_total", s.Server, float64(s.Failed))
		alone := 0.0
		if s.Shut {
			alone = 1
		}
		put("next_hop_left_alone", s.Server, alone)
	}
	if srv.kept != nil {
		c := srv.kept.Counts()
		put("kept_total", keptOutcomes[0], float64(c.Kept.Load()))
		put("kept_total", keptOutcomes[1], float64(c.Dropped.Load()))
		put("kept_total", keptOutcomes[2], float64(c.Failed.Load()))
	}
	if srv.shadow != nil {
		for outcome, n := range srv.shadow.counts {
			put("shadow_total", outcome, float64(n.Load()))
		}
	}
	if srv.held != nil {
		if n, bytes, ok := srv.held.count(time.Now()); ok {
			put("held_messages", "", float64(n))
			put("held_bytes", "", float64(bytes))
		}
	}
	put("listeners", "", float64(srv.hub.Stats().Listeners))
}
