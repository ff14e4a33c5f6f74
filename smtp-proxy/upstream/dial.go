package upstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"postern/internal/smtp"
)

// dialerOf gives the function that opens a connection to an endpoint.
func (set *Set) dialerOf(e endpoint) (func(context.Context) (*stream, error), error) {
	switch e.network {
	case "exec":
		return func(ctx context.Context) (*stream, error) { return startProgram(e, set.conf.Log) }, nil
	case "maildir":
		m, err := newMaildirServer(e.address, set.conf.Helo, set.conf.Log)
		if err != nil {
			return nil, err
		}
		set.maildir = append(set.maildir, m)
		return m.dial, nil
	}
	d := net.Dialer{Timeout: set.conf.ConnectTimeout}
	network := e.network
	if source := set.conf.Source; network == "tcp" && source.IsValid() {
		d.LocalAddr = &net.TCPAddr{IP: source.Unmap().AsSlice(), Zone: source.Zone()}
		if network = "tcp6"; source.Unmap().Is4() {
			network = "tcp4"
		}
	}
	return func(ctx context.Context) (*stream, error) {
		nc, err := d.DialContext(ctx, network, e.address)
		if err != nil {
			return nil, err
		}
		return newStream(nc), nil
	}, nil
}

// dial opens a connection and brings it to where MAIL can be sent. If TLS is wanted but need not be, and the
// handshake fails, another connection goes without, but not with passwords.
func (s *server) dial(ctx context.Context, client Client, w want) (*Conn, error) {
	c, err := s.dialOnce(ctx, client, w)
	var handshake *handshakeError
	if errors.As(err, &handshake) && s.conf.TLS == TLSMay && !s.tls && ctx.Err() == nil {
		s.plain.note(time.Now())
		if w.secret && !handshake.local {
			return nil, fmt.Errorf("%w: %w", errInClear, err)
		}
		s.conf.Log.Warn("TLS failed, going on without", "server", s.name, "error", handshake.err)
		c, err = s.dialOnce(ctx, client, want{})
	}
	return c, err
}

func (s *server) dialOnce(ctx context.Context, client Client, w want) (*Conn, error) {
	st, err := s.dialer(ctx)
	if err != nil {
		return nil, &Error{Server: s.name, Reply: replyDown, Err: err}
	}
	c := &Conn{srv: s, stream: st, setup: s.setup.Load(), born: time.Now()}
	c.dot.W = contentWriter{c}
	if s.conf.Log.Enabled(ctx, slog.LevelDebug) {
		c.log = s.conf.Log
	}
	deadline := time.Now().Add(s.conf.HelloTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	// A context that ends closes the connection under the hand of whoever reads.
	stop := context.AfterFunc(ctx, func() { _ = st.sock.Close() })
	err = c.begin(ctx, client, w, deadline)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		st.close()
		return nil, err
	}
	return c, nil
}

// begin does all that comes in front of MAIL.
func (c *Conn) begin(ctx context.Context, client Client, w want, deadline time.Time) error {
	if err := c.sendProxyHeader(client); err != nil {
		return c.fail(err, replyLost)
	}
	if c.srv.tls {
		if err := c.handshake(ctx, deadline); err != nil {
			return err
		}
	}
	if err := c.greeting(deadline); err != nil {
		return err
	}
	if err := c.hello(c.srv.conf.Helo, deadline); err != nil {
		return err
	}
	if err := c.startTLS(ctx, w, deadline); err != nil {
		return err
	}
	return c.tellClient(client, deadline)
}

// greeting reads the server's first words.
func (c *Conn) greeting(deadline time.Time) error {
	r, err := c.stream.readReply(deadline)
	if err != nil {
		return c.fail(fmt.Errorf("read greeting: %w", err), replyFor(err))
	}
	c.debugReply(r)
	if r.Code != 220 {
		return c.fail(fmt.Errorf("greeting is %q", clip(r.String())), replyDown)
	}
	return c.nothingMore()
}

// hello says LHLO or EHLO, and HELO if the server does not know EHLO.
func (c *Conn) hello(name string, deadline time.Time) error {
	verb := smtp.Ehlo
	if c.srv.lmtp {
		verb = "LHLO"
	}
	r, err := c.ask(verb+" "+name, deadline)
	if err == nil && r.Permanent() && !c.srv.lmtp {
		r, err = c.ask(smtp.Helo+" "+name, deadline)
		r.Lines = nil
	}
	if err != nil {
		return err
	}
	if !r.Positive() {
		return c.fail(fmt.Errorf("reply to %s is %q", verb, clip(r.String())), replyDown)
	}
	if c.caps = parseCapabilities(r); !c.private() {
		c.caps.Auth = nil
	}
	if c.srv.lmtp {
		// What the server does not say itself: see lmtp.go.
		if most := c.srv.conf.LMTPRecipients; c.caps.RcptMax == 0 || most < c.caps.RcptMax {
			c.caps.RcptMax = most
		}
	}
	return nil
}

// ask sends a command of ours and reads the reply, with nothing else under way.
func (c *Conn) ask(line string, deadline time.Time) (smtp.Reply, error) {
	c.debug("command", expectOther, line)
	if err := c.quiet(); err != nil {
		return smtp.Reply{}, err
	}
	c.looked = time.Time{}
	c.stream.command(line)
	if err := c.stream.flush(time.Until(deadline)); err != nil {
		return smtp.Reply{}, c.failWrite(err)
	}
	r, err := c.stream.readReply(deadline)
	if err != nil {
		return r, c.fail(fmt.Errorf("read reply: %w", err), replyFor(err))
	}
	c.debugReply(r)
	if r.Intermediate() {
		return r, c.fail(fmt.Errorf("%w: %q is no reply to %s", ErrProtocol, clip(r.String()), expectOther), replyProtocol)
	}
	return r, c.nothingMore()
}

// nothingMore sees that no bytes came behind a reply.
func (c *Conn) nothingMore() error {
	if c.stream.r != nil {
		return c.fail(fmt.Errorf("%w: %w", ErrProtocol, errTalks), replyProtocol)
	}
	return nil
}

// renew makes a kept connection ready for a client: RSET goes in front of the client's own commands if the
// server pipelines, so that it costs no time and shows all the same that the two sides are in step.
func (s *server) renew(ctx context.Context, c *Conn, client Client) error {
	deadline := time.Now().Add(s.conf.HelloTimeout)
	if s.conf.ClientIP == ClientIPXClient && c.client != client {
		return c.tellClient(client, deadline)
	}
	if c.caps.Pipelining {
		c.due = append(c.due, due{expect: expectReset})
		c.stream.command(smtp.Rset)
		return nil
	}
	r, err := c.ask(smtp.Rset, deadline)
	if err == nil {
		err = r.Err()
	}
	return err
}
