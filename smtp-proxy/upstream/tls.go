package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"postern/internal/smtp"
)

// handshakeError says that TLS was begun and did not come about.
type handshakeError struct {
	err   error
	local bool // the server is on this host
}

func (e *handshakeError) Error() string { return "TLS handshake: " + e.err.Error() }
func (e *handshakeError) Unwrap() error { return e.err }

// plainUntil remembers that TLS, which need not be, did not work with a server.
type plainUntil struct {
	mu    sync.Mutex
	until time.Time
}

// plainTime is how long a server whose TLS failed is spoken to without.
const plainTime = 10 * time.Minute

func (p *plainUntil) note(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until = now.Add(plainTime)
}

func (p *plainUntil) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until = time.Time{}
}

func (p *plainUntil) holds(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return now.Before(p.until)
}

// tlsSetup is what TLS with a server begins with. Whatever came of another one is not used again.
type tlsSetup struct {
	conf *tls.Config
	seen tls.ClientSessionCache
}

func newTLSSetup(conf *tls.Config) *tlsSetup {
	if conf == nil {
		conf = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return &tlsSetup{conf, tls.NewLRUClientSessionCache(8)}
}

// UseTLS puts other roots and client certificates into force. Connections that began with the old ones serve
// to the end of their sessions, and idle ones are closed.
func (set *Set) UseTLS(conf *tls.Config) {
	for _, s := range set.servers {
		s.setup.Store(newTLSSetup(conf))
		s.plain.forget()
		for c := s.oldest(); c != nil; c = s.oldest() {
			c.quit()
		}
	}
}

// startTLS does what Config.TLS says: RFC 3207.
func (c *Conn) startTLS(ctx context.Context, w want, deadline time.Time) error {
	mode := c.srv.conf.TLS
	if c.srv.tls || c.srv.network != "tcp" || mode == TLSNone {
		return nil
	}
	if mode == TLSMay && c.srv.plain.holds(time.Now()) && (!w.secret || c.stream.local()) {
		return nil
	}
	if !c.caps.StartTLS {
		if mode == TLSMay {
			return nil
		}
		return c.fail(errNoTLS, replyNoTLS)
	}
	// Nothing is ever sent behind STARTTLS, and what the server sends behind its reply ends the connection.
	r, err := c.ask(smtp.StartTLS, deadline)
	if err != nil {
		return err
	}
	if r.Code != 220 {
		if mode == TLSMay {
			return nil
		}
		return c.fail(fmt.Errorf("%w: reply to STARTTLS is %q", errNoTLS, clip(r.String())), replyNoTLS)
	}
	if err := c.handshake(ctx, deadline); err != nil {
		return err
	}
	return c.hello(c.srv.conf.Helo, deadline) // what it said before counts for nothing: RFC 3207, 4.2
}

// handshake goes on within TLS.
func (c *Conn) handshake(ctx context.Context, deadline time.Time) error {
	conf := c.setup.conf.Clone()
	conf.ServerName = c.srv.serverName()
	conf.InsecureSkipVerify = c.srv.conf.TLS != TLSVerify
	conf.ClientSessionCache = c.setup.seen
	nc := tls.Client(c.stream.nc, conf)
	if err := c.stream.nc.SetDeadline(deadline); err != nil {
		return c.fail(err, replyLost)
	}
	if err := nc.HandshakeContext(ctx); err != nil {
		reply := replyNoTLS
		var cert *tls.CertificateVerificationError
		if errors.As(err, &cert) {
			reply = replyBadCert
		}
		return c.fail(&handshakeError{err, c.stream.local()}, reply)
	}
	return c.stream.upgrade(nc)
}

// private says whether passwords may go over the connection: within TLS, on this host, or in clear if the
// settings want that. With TLSMay clear is what an attacker on the way has made of it, or may have.
func (c *Conn) private() bool {
	return c.stream.tls || c.srv.conf.TLS == TLSNone || c.stream.local()
}
