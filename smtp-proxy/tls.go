package main

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"postern/internal/smtp"
	"postern/internal/tlsconf"
)

// loadTLS reads certificates and keys, for each listener that takes mail; nil without them.
func loadTLS(s *settings) (map[string]*tlsconf.Listener, error) { return s.TLS.Load(mailListeners...) }

// tlsHere is TLS at the listener that the client came to; nil if there is none.
func (s *session) tlsHere() *tlsconf.Listener { return s.conf.tls[s.client.listener] }

// mustSecure says whether the client has to begin TLS, and show a certificate there, before anything else.
func (s *session) mustSecure() bool {
	here := s.tlsHere()
	return s.client.tls == nil && here != nil && here.Required
}

// inClear are the commands that a client who has to begin TLS may use, RFC 3207, 4, or that come to nothing without
// others: BDAT takes its octets off the line.
var inClear = []string{smtp.Ehlo, smtp.Helo, smtp.Noop, smtp.Quit, smtp.Rset, smtp.Help, smtp.StartTLS, smtp.Bdat}

func (s *session) canStartTLS() bool { return s.tlsHere() != nil && s.client.tls == nil }

// doStartTLS is STARTTLS: RFC 3207.
func (s *session) doStartTLS(arg string) {
	switch {
	case s.tlsHere() == nil:
		s.fail(reply(502, "5.5.1", "TLS is not offered"))
		return
	case s.client.tls != nil:
		s.fail(reply(503, "5.5.1", "TLS is in use already"))
		return
	case s.tx != nil:
		s.fail(reply(503, "5.5.1", "Not within a transaction"))
		return
	case arg != "":
		s.fail(reply(501, "5.5.4", "Syntax: STARTTLS"))
		return
	case s.conn.Pending():
		// Bytes that follow in clear would be read by one side as clear and by the other as
		// protected: CVE-2011-0411.
		s.close(gateSync, reply(554, "5.5.0", "Protocol synchronization error"))
		return
	}
	s.say(reply(220, "2.0.0", "Go ahead"))
	if !s.flush() || !s.handshake() {
		s.closing = true
		return
	}
	s.forgetUpstream()
}

// handshake begins TLS.
func (s *session) handshake() bool {
	nc := s.conn.Net()
	if rest := s.conn.TakeBuffered(); len(rest) > 0 {
		nc = &prefixed{nc, rest} // a ClientHello that came with the PROXY header
	}
	here := s.tlsHere()
	tc := tls.Server(nc, here.Config)
	ctx, cancel := context.WithTimeout(s.background(), s.conf.TLS.Timeout)
	defer cancel()
	_ = nc.SetWriteDeadline(time.Now().Add(s.conf.TLS.Timeout))
	if !s.await(forCommand, s.conf.TLS.Timeout) {
		return false
	}
	defer s.awake()
	if err := tc.HandshakeContext(ctx); err != nil {
		s.gate, s.client.cert = gateHandshake, &clientCert{fault: err}
		s.srv.meters.gate(gateHandshake)
		return false
	}
	state := tc.ConnectionState()
	s.client.secure(&state, certOf(here, &state))
	s.conn.Upgrade(tc)
	s.openName = false
	return true
}

// clientCert is what came of asking a client for its certificate.
type clientCert struct {
	verify          string // OK; FAIL: it is not good; NO: there is none, as Sendmail has it; "" if there is no TLS
	subject, issuer string // distinguished names, RFC 4514
	fault           error  // why it is not good, or there is no TLS
}

// certOf looks at the certificate of a client; nil if it was not asked for one.
func certOf(here *tlsconf.Listener, state *tls.ConnectionState) *clientCert {
	if here.Config.ClientAuth == tls.NoClientCert {
		return nil
	}
	cert, err := here.Peer(state)
	switch {
	case cert == nil:
		return &clientCert{verify: "NO"}
	case err != nil:
		return &clientCert{"FAIL", cert.Subject.String(), cert.Issuer.String(), err}
	}
	return &clientCert{verify: "OK", subject: cert.Subject.String(), issuer: cert.Issuer.String()}
}

// log gives what the log says of it.
func (c *clientCert) log() []any {
	switch {
	case c == nil || c.verify == "NO":
		return nil
	case c.verify == "":
		return []any{"fault", clip(c.fault.Error())} // of the whole handshake
	case c.fault != nil:
		return []any{"certificate", clip(c.subject), "fault", clip(c.fault.Error())}
	}
	return []any{"certificate", clip(c.subject)}
}

// prefixed is a connection from which some bytes were read already.
type prefixed struct {
	net.Conn
	rest []byte
}

// Read gives those bytes first.
func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.rest) > 0 {
		n := copy(b, p.rest)
		p.rest = p.rest[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}
