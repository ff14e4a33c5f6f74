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
type handshakeError struct{ err error }

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

func (p *plainUntil) holds(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return now.Before(p.until)
}

// startTLS does what Config.TLS says: RFC 3207.
func (c *Conn) startTLS(ctx context.Context, deadline time.Time) error {
	mode := c.srv.conf.TLS
	if c.srv.tls || c.srv.network != "tcp" || mode == TLSNone || mode == TLSMay && c.srv.plain.holds(time.Now()) {
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
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.srv.conf.TLSConfig != nil {
		conf = c.srv.conf.TLSConfig.Clone()
	}
	conf.ServerName = c.srv.serverName()
	conf.InsecureSkipVerify = c.srv.conf.TLS != TLSVerify
	if conf.ClientSessionCache == nil {
		conf.ClientSessionCache = c.srv.tlsSeen
	}
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
		return c.fail(&handshakeError{err}, reply)
	}
	return c.stream.upgrade(nc)
}
