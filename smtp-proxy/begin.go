package main

import (
	"errors"
	"os"
	"time"

	"postern/internal/proxyheader"
	"postern/smtp-proxy/gate"
)

// begin leads the session through the gates to the greeting.
func (s *session) begin() outcome {
	if o, ok := s.identify(); !ok {
		return o
	}
	s.announce()
	r := s.count() // handshakes are expensive: there are not more of them than sessions
	if s.client.listener == listenSMTPS {
		if r != nil {
			return dropped(r.Gate) // nothing can be said to a client that expects TLS
		}
		if o, ok := s.handshake(); !ok {
			return o
		}
	}
	if r == nil {
		r = s.srv.gates.Check(s.background(), s.client.forGates())
	}
	if r != nil {
		return closed(r.Gate, r.Reply)
	}
	s.openStatus()
	if s.conf.GreetingDelay > 0 {
		if o, ok := s.delayGreeting(s.conf.GreetingDelay); !ok {
			return o
		}
	}
	return s.greet()
}

// identify finds out who the client is, if a load balancer says so; if it is not ok, the session ends with
// the outcome.
func (s *session) identify() (o outcome, ok bool) {
	if s.conf.proxyNets.Has(s.client.peer.Addr()) {
		return s.readProxyHeader()
	}
	if len(s.conf.proxyNets) > 0 && s.conn.Pending() {
		window, err := s.conn.Window()
		if err == nil && proxyheader.Starts(window) {
			s.srv.log.Info("PROXY header from a stranger", "session", s.id, "peer", s.client.peer.String())
			return dropped(gateProxy), false
		}
	}
	return o, true
}

// admit counts the client that XCLIENT has named, and asks the gates anew.
func (s *session) admit() *gate.Refusal {
	if r := s.count(); r != nil {
		return r
	}
	return s.srv.gates.Check(s.background(), s.client.forGates())
}

// strict reports whether bare line feeds of this client are refused.
func (s *session) strict() bool {
	addr := s.client.addr.Addr()
	switch {
	case s.conf.bareReject.Has(addr):
		return true
	case s.conf.bareNormalize.Has(addr):
		return false
	}
	return s.conf.BareNewline == "reject"
}

// delayGreeting waits before the greeting. A client that talks now, an early talker, does not follow the
// protocol: RFC 5321, 3.1.
func (s *session) delayGreeting(delay time.Duration) (o outcome, ok bool) {
	if s.conn.Buffered() == 0 {
		if !s.wait.begin(forCommand, delay) {
			return o, true // and be told
		}
		_, err := s.conn.Window()
		s.wait.end()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return o, true
		}
		if err != nil {
			return gone, false
		}
	}
	return earlyTalker, false
}

var earlyTalker = closed(gateEarly, reply(554, "5.5.0", "You talk before the greeting"))

// greet asks the filter about the client and greets it. After a 5xx in place of the greeting the session
// waits for QUIT and does nothing else: RFC 5321, 3.1.
func (s *session) greet() outcome {
	switch r := s.askRelayok(); {
	case r == nil:
		return done(reply(220, "", s.conf.host+" ESMTP Postern"))
	case r.Permanent():
		return outcome{class: classBarred, reply: *r}
	default:
		return closed(gateFilter, *r)
	}
}
