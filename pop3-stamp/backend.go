package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"
)

// errProtocol is wrapped by errors about a server that does not keep to POP3. Such a connection is closed.
var errProtocol = errors.New("protocol error of the upstream server")

// errClient is wrapped by errors of the client while its server is asked.
var errClient = errors.New("client")

var errLeft = fmt.Errorf("%w left while the server was silent", errClient)

// client is whom an upstream server is asked for.
type client struct {
	addr, local netip.AddrPort // not valid for clients without addresses
	gone        func() parting
}

// parting is how far a client has gone.
type parting int

const (
	here     parting = iota
	silent           // will say nothing more, but may still read
	goneAway         // does not read either
)

const (
	lookEvery   = time.Second / 2 // how often to see whether the client is there while the server is silent
	partingTime = 4 * time.Second // how long the server is waited for when the client says nothing more
)

// backend is a connection to the upstream server.
type backend struct {
	target
	gone      func() parting // of the client
	files     *tls.Config    // authorities and our certificate
	conn      net.Conn
	r         *bufio.Reader // nil while nothing is in it
	timeout   time.Duration
	until     time.Time // when a read ends at the latest
	apopStamp string    // of the greeting, for APOP; "" without one
}

// answer is the first line of a reply.
type answer struct {
	ok   bool
	more bool   // "+ ", within a SASL exchange
	text string // behind the status, printable

	canceled bool // of a SASL exchange: by the client, or before it had said anything
}

// connect connects to the first of the servers that answers.
func (s *settings) connect(ctx context.Context, servers []target, files *tls.Config, c client) (*backend, error) {
	var errs []error
	for _, t := range servers {
		b, err := s.connectTo(ctx, t, files, c)
		if err == nil {
			return b, nil
		}
		errs = append(errs, fmt.Errorf("server %s: %w", t.name, err))
		if ctx.Err() != nil || errors.Is(err, errClient) {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func (s *settings) connectTo(ctx context.Context, t target, files *tls.Config, c client) (_ *backend, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.ConnectTimeout)
	defer cancel()
	d := net.Dialer{KeepAlive: -1} // all reads end in time
	conn, err := d.DialContext(ctx, "tcp", t.name)
	if err != nil {
		return nil, err
	}
	b := &backend{target: t, gone: c.gone, files: files, timeout: s.UpstreamTO}
	b.use(direct(conn))
	defer func() {
		if err != nil {
			_ = b.conn.Close()
		}
	}()
	if err := b.sendProxyHeader(s.UpstreamClient, c); err != nil {
		return nil, err
	}
	if t.tls {
		if err := b.handshake(ctx, s.UpstreamTLS == "verify"); err != nil {
			return nil, err
		}
	}
	a, err := b.reply()
	if err != nil {
		return nil, err
	}
	if !a.ok {
		return nil, fmt.Errorf("greeting -ERR %s", a.text)
	}
	b.apopStamp = timestamp(a.text)
	if !t.tls && s.UpstreamTLS != "none" {
		if err := b.startTLS(ctx, s.UpstreamTLS); err != nil {
			return nil, err
		}
	}
	return b, b.sendXClient(s.UpstreamClient, c)
}

func (b *backend) use(conn net.Conn) {
	b.giveBack()
	b.conn = conn
}

// reader reads from the server until b.until; less long if nobody is there any more for whom to read.
type reader struct{ *backend }

func (b reader) Read(p []byte) (int, error) {
	var left time.Time
	for {
		look := time.Now().Add(lookEvery)
		if look.After(b.until) {
			look = b.until
		}
		if err := b.conn.SetReadDeadline(look); err != nil {
			return 0, err
		}
		n, err := b.conn.Read(p)
		now := time.Now()
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) || !now.Before(b.until) {
			return n, err
		}
		switch b.gone() {
		case goneAway:
			return 0, errLeft
		case silent:
			if left.IsZero() {
				left = now
			}
			if now.Sub(left) >= partingTime {
				return 0, errLeft
			}
		}
	}
}

// handshake begins TLS, within the time of ctx.
func (b *backend) handshake(ctx context.Context, verify bool) error {
	_ = b.conn.SetDeadline(time.Time{}) // those of the reply to STLS may be near
	conf := b.files.Clone()
	conf.ServerName, conf.InsecureSkipVerify = b.host, !verify
	tc := tls.Client(b.conn, conf)
	if err := tc.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	b.use(tc)
	return nil
}

// startTLS is STLS, RFC 2595, 4. Nothing is sent before the server has agreed, and what it sent in clear
// behind its agreement would be taken for part of the protected session, so it ends the connection. A refusal may come
// from anybody on the way to another host, so that it is no reason to send a password there in clear.
func (b *backend) startTLS(ctx context.Context, mode string) error {
	a, err := b.ask("STLS")
	switch {
	case err != nil:
		return err
	case !a.ok && mode == "may" && isHere(b.conn):
		return nil
	case !a.ok && mode == "may":
		return fmt.Errorf("STLS: -ERR %s: no login in clear to another host unless upstream-tls is none", a.text)
	case !a.ok:
		return fmt.Errorf("STLS: -ERR %s", a.text)
	}
	return b.handshake(ctx, mode == "verify")
}

// isHere reports whether nobody but this host carries what is sent.
func isHere(conn net.Conn) bool {
	addr, ok := conn.RemoteAddr().(*net.TCPAddr)
	return !ok || addr.IP.IsLoopback()
}

// ask sends a command and reads the reply of one line. Bytes behind it were not asked for.
func (b *backend) ask(line string) (answer, error) {
	a, err := b.askMore(line)
	if err == nil && b.buffered() > 0 {
		return a, fmt.Errorf("more than one reply: %w", errProtocol)
	}
	return a, err
}

// askMore is ask for commands whose replies have more lines.
func (b *backend) askMore(line string) (answer, error) {
	a, err := b.exchange(line)
	if err == nil && a.more {
		return answer{}, fmt.Errorf("challenge to a command: %w", errProtocol)
	}
	return a, err
}

// askSASL is ask for AUTH and the responses that follow it, which may be answered with a challenge.
func (b *backend) askSASL(line string) (answer, error) {
	a, err := b.exchange(line)
	if err == nil && b.buffered() > 0 {
		return a, fmt.Errorf("more than one reply: %w", errProtocol)
	}
	return a, err
}

// exchange sends a line and reads the first line of the reply. What is there before the line was sent was not
// asked for.
func (b *backend) exchange(line string) (answer, error) {
	if b.buffered() > 0 || pending(b.conn) {
		return answer{}, fmt.Errorf("reply to nothing: %w", errProtocol)
	}
	if err := b.conn.SetWriteDeadline(time.Now().Add(b.timeout)); err != nil {
		return answer{}, err
	}
	if _, err := b.conn.Write([]byte(line + "\r\n")); err != nil {
		return answer{}, err
	}
	return b.reply()
}

// reply reads the first line of a reply.
func (b *backend) reply() (answer, error) {
	b.until = time.Now().Add(b.timeout)
	line, err := readLine(b.reader(), maxAuth)
	switch {
	case errors.Is(err, errLongLine), errors.Is(err, errFlood):
		return answer{}, fmt.Errorf("%w: %w", err, errProtocol)
	case err != nil:
		return answer{}, err
	}
	status, text, _ := strings.Cut(line, " ")
	if status != "+" && len(line) > maxReply {
		return answer{}, fmt.Errorf("%w: %w", errLongLine, errProtocol)
	}
	a := answer{text: replyText(text)}
	switch status {
	case "+OK":
		a.ok = true
	case "-ERR":
	case "+":
		a.more = true
		if validBase64(text) {
			a.text = text // which may be long
		}
	default:
		return answer{}, fmt.Errorf("reply %.60q: %w", line, errProtocol)
	}
	return a, nil
}

func (b *backend) close() {
	_ = b.conn.Close()
	b.giveBack()
}
