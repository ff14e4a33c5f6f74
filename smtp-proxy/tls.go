package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// loadTLS reads certificate and key; nil without them.
func loadTLS(s *settings) (*tls.Config, error) {
	if s.TLSCert == "" {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(s.TLSCert, s.TLSKey)
	if err != nil {
		return nil, fmt.Errorf("load certificate %q: %w", s.TLSCert, err)
	}
	least := uint16(tls.VersionTLS12)
	if s.TLSMin == "1.3" {
		least = tls.VersionTLS13
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: least}, nil
}

// loadUpstreamTLS reads what TLS with the server behind needs beside upstream-tls; nil if that is nothing.
func loadUpstreamTLS(s *settings) (*tls.Config, error) {
	if s.UpstreamTLSCA == "" && s.UpstreamTLSCert == "" {
		return nil, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.UpstreamTLSCA != "" {
		text, err := os.ReadFile(s.UpstreamTLSCA)
		if err != nil {
			return nil, fmt.Errorf("load authorities: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("load authorities: no certificate in %q", s.UpstreamTLSCA)
		}
	}
	if s.UpstreamTLSCert != "" {
		cert, err := tls.LoadX509KeyPair(s.UpstreamTLSCert, s.UpstreamTLSKey)
		if err != nil {
			return nil, fmt.Errorf("load certificate %q: %w", s.UpstreamTLSCert, err)
		}
		conf.Certificates = []tls.Certificate{cert}
	}
	return conf, nil
}

func (s *session) canStartTLS() bool { return s.conf.tls != nil && s.tls == nil }

// doStartTLS is STARTTLS: RFC 3207.
func (s *session) doStartTLS(arg string) {
	switch {
	case s.conf.tls == nil:
		s.fail(reply(502, "5.5.1", "TLS is not offered"))
		return
	case s.tls != nil:
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
		s.refuse(gateSync, reply(554, "5.5.0", "Protocol synchronization error"))
		return
	}
	s.say(reply(220, "2.0.0", "Go ahead"))
	if !s.flush() || !s.handshake() {
		s.closing = true
		return
	}
	s.forgetUpstream()
}

// handshake begins TLS. Whatever the client said before is forgotten: RFC 3207, 4.2.
func (s *session) handshake() bool {
	nc := s.conn.Net()
	if rest := s.conn.TakeBuffered(); len(rest) > 0 {
		nc = &prefixed{nc, rest} // a ClientHello that came with the PROXY header
	}
	tc := tls.Server(nc, s.conf.tls)
	ctx, cancel := context.WithTimeout(s.background(), s.conf.TLSTimeout)
	defer cancel()
	_ = nc.SetDeadline(time.Now().Add(s.conf.TLSTimeout))
	if err := tc.HandshakeContext(ctx); err != nil {
		s.gate = gateHandshake
		s.srv.meters.gate(gateHandshake)
		s.srv.log.Debug("TLS handshake", "session", s.id, "client", s.client.String(), "error", err)
		return false
	}
	_ = nc.SetDeadline(time.Time{})
	state := tc.ConnectionState()
	s.tls = &state
	s.conn.Upgrade(tc)
	s.helo, s.esmtp = "", false
	return true
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

// tlsNames gives version, cipher and its strength as filters know them.
func tlsNames(state *tls.ConnectionState) (version, cipher, bits string) {
	version = strings.Replace(tls.VersionName(state.Version), "TLS 1.", "TLSv1.", 1)
	cipher = tls.CipherSuiteName(state.CipherSuite)
	strength := 128
	if strings.Contains(cipher, "256") || strings.Contains(cipher, "CHACHA20") {
		strength = 256
	}
	return version, cipher, strconv.Itoa(strength)
}
