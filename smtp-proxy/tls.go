package main

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"postern/internal/tlsconf"
)

// loadTLS reads certificates and keys, for each listener that takes mail; nil without them.
func loadTLS(s *settings) (map[string]*tlsconf.Listener, error) { return s.TLS.Load(mailListeners...) }

// tlsHere is TLS at the listener that the client came to; nil if there is none.
func (s *session) tlsHere() *tlsconf.Listener { return s.conf.tls[s.client.listener] }

// mustSecure reports whether the client has to begin TLS, and show a certificate there, before anything else.
func (s *session) mustSecure() bool {
	here := s.tlsHere()
	return s.client.tls == nil && here != nil && here.Required
}

func (s *session) canStartTLS() bool { return s.tlsHere() != nil && s.client.tls == nil }

// doStartTLS is STARTTLS: RFC 3207.
func (s *session) doStartTLS(arg string) outcome {
	switch {
	case s.tlsHere() == nil:
		return failed(reply(502, "5.5.1", "TLS is not offered"))
	case s.client.tls != nil:
		return failed(reply(503, "5.5.1", "TLS is in use already"))
	case s.tx != nil:
		return failed(reply(503, "5.5.1", "Not within a transaction"))
	case arg != "":
		return failed(reply(501, "5.5.4", "Syntax: STARTTLS"))
	case s.conn.Pending():
		// Bytes that follow in clear would be read by one side as clear and by the other as
		// protected: CVE-2011-0411.
		return closed(gateSync, outOfSync)
	}
	s.say(reply(220, "2.0.0", "Go ahead"))
	if !s.flush() {
		return gone
	}
	if o, ok := s.handshake(); !ok {
		return o
	}
	s.forgetLogin()
	return pending
}

// outOfSync is the reply to a client that goes on where it has to wait.
var outOfSync = reply(554, "5.5.0", "Protocol synchronization error")

// handshake begins TLS.
func (s *session) handshake() (o outcome, ok bool) {
	nc := s.conn.Net()
	if rest := s.conn.TakeBuffered(); len(rest) > 0 {
		nc = &prefixed{nc, rest} // a ClientHello that came with the PROXY header
	}
	here := s.tlsHere()
	tc := tls.Server(nc, here.Config)
	ctx, cancel := context.WithTimeout(s.background(), s.conf.TLS.Timeout)
	defer cancel()
	_ = nc.SetWriteDeadline(time.Now().Add(s.conf.TLS.Timeout))
	if !s.wait.begin(forCommand, s.conf.TLS.Timeout) {
		return gone, false
	}
	defer s.wait.end()
	if err := tc.HandshakeContext(ctx); err != nil {
		s.client.cert = &clientCert{fault: err}
		return dropped(gateHandshake), false
	}
	state := tc.ConnectionState()
	s.client.secure(&state, certOf(here, &state))
	s.conn.Upgrade(tc)
	return o, true
}

// clientCert is what came of asking a client for its certificate.
type clientCert struct {
	verify          string // OK; FAIL: it is not good; NO: there is none, as Sendmail has it; "" if there is no TLS
	subject         string // distinguished name, RFC 4514
	name, authority string // common names of subject and issuer, which are what Postfix tells its milters
	fault           error  // why it is not good, or there is no TLS
}

// certOf looks at the certificate of a client; nil if it was not asked for one.
func certOf(here *tlsconf.Listener, state *tls.ConnectionState) *clientCert {
	if here.Config.ClientAuth == tls.NoClientCert {
		return nil
	}
	cert, err := here.Peer(state)
	if cert == nil {
		return &clientCert{verify: "NO"}
	}
	c := &clientCert{"OK", cert.Subject.String(), cert.Subject.CommonName, cert.Issuer.CommonName, err}
	if err != nil {
		c.verify = "FAIL"
	}
	return c
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
