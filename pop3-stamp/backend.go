package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// errProtocol is wrapped by errors about a server that does not keep to POP3. Such a connection is closed.
var errProtocol = errors.New("protocol error of the server behind")

// backend is a connection to the server behind.
type backend struct {
	target
	files    *tls.Config // authorities and our certificate
	conn     net.Conn
	r        *bufio.Reader
	timeout  time.Duration
	greeting string // text of the greeting, without +OK
}

// answer is the first line of a reply.
type answer struct {
	ok   bool
	more bool   // "+ ", within a SASL exchange
	text string // behind the status, printable
}

// connect connects to the first server that answers.
func (s *settings) connect(ctx context.Context, files *tls.Config) (*backend, error) {
	var errs []error
	for _, t := range s.servers {
		b, err := s.connectTo(ctx, t, files)
		if err == nil {
			return b, nil
		}
		errs = append(errs, fmt.Errorf("server %s: %w", t.name, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func (s *settings) connectTo(ctx context.Context, t target, files *tls.Config) (_ *backend, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.ConnectTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", t.name)
	if err != nil {
		return nil, err
	}
	b := &backend{target: t, files: files, timeout: s.UpstreamTO}
	b.use(conn)
	defer func() {
		if err != nil {
			_ = b.conn.Close()
		}
	}()
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
	b.greeting = a.text
	if !t.tls && s.UpstreamTLS != "none" {
		if err := b.startTLS(ctx, s.UpstreamTLS); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (b *backend) use(conn net.Conn) {
	b.conn, b.r = conn, bufio.NewReaderSize(conn, 16<<10)
}

func (b *backend) handshake(ctx context.Context, verify bool) error {
	conf := b.files.Clone()
	conf.ServerName, conf.InsecureSkipVerify = b.host, !verify
	tc := tls.Client(b.conn, conf)
	if err := tc.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	b.use(tc)
	return nil
}

// startTLS is STLS, RFC 2595, 4. Nothing is sent before the server has agreed, and what it sent in clear behind its
// agreement would be taken for part of the protected session, so it ends the connection.
func (b *backend) startTLS(ctx context.Context, mode string) error {
	a, err := b.ask("STLS")
	switch {
	case err != nil:
		return err
	case !a.ok && mode == "may":
		return nil
	case !a.ok:
		return fmt.Errorf("STLS: -ERR %s", a.text)
	}
	return b.handshake(ctx, mode == "verify")
}

// ask sends a command and reads the reply of one line. Bytes behind it were not asked for.
func (b *backend) ask(line string) (answer, error) {
	a, err := b.askMore(line)
	if err == nil && b.r.Buffered() > 0 {
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
	if err == nil && b.r.Buffered() > 0 {
		return a, fmt.Errorf("more than one reply: %w", errProtocol)
	}
	return a, err
}

// exchange sends a line and reads the first line of the reply. What is there before the line was sent was not asked
// for.
func (b *backend) exchange(line string) (answer, error) {
	_ = b.conn.SetReadDeadline(time.Time{}) // an old one would keep pending from looking
	if b.r.Buffered() > 0 || pending(b.conn) {
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
	if err := b.conn.SetReadDeadline(time.Now().Add(b.timeout)); err != nil {
		return answer{}, err
	}
	line, err := readLine(b.r, maxReply)
	switch {
	case errors.Is(err, errLongLine), errors.Is(err, errFlood):
		return answer{}, fmt.Errorf("%w: %w", err, errProtocol)
	case err != nil:
		return answer{}, err
	}
	status, text, _ := strings.Cut(line, " ")
	a := answer{text: printable(text)}
	switch status {
	case "+OK":
		a.ok = true
	case "-ERR":
	case "+":
		a.more = true
		a.text = text
	default:
		return answer{}, fmt.Errorf("reply %.60q: %w", line, errProtocol)
	}
	return a, nil
}

func (b *backend) close() { _ = b.conn.Close() }
