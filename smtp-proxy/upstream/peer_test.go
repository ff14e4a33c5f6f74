package upstream

import (
	"bufio"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"

	"postern/internal/smtp"
	"postern/internal/testenv"
)

// peer is a server that does what a test tells it, well or badly, and notes what it hears.
type peer struct {
	l     net.Listener
	wg    sync.WaitGroup
	mu    sync.Mutex
	conns []*peerConn
	heard []string
}

// peerConn is one connection to a peer.
type peerConn struct {
	net.Conn
	p *peer
	r *bufio.Reader
	n int // which connection it is, from 0
}

// startPeer starts a peer that handles each connection with handle, and closes it behind that.
func startPeer(t *testing.T, handle func(c *peerConn)) *peer {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return servePeer(t, l, handle)
}

func servePeer(t *testing.T, l net.Listener, handle func(c *peerConn)) *peer {
	p := &peer{l: l}
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			c := &peerConn{Conn: nc, p: p, r: bufio.NewReader(nc), n: len(p.conns)}
			p.conns = append(p.conns, c)
			p.wg.Add(1)
			p.mu.Unlock()
			go func() {
				defer p.wg.Done()
				defer c.Close()
				handle(c)
			}()
		}
	}()
	t.Cleanup(p.stop)
	return p
}

// stop ends the peer with all its connections.
func (p *peer) stop() {
	_ = p.l.Close()
	p.mu.Lock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

func (p *peer) url() string { return "smtp://" + p.l.Addr().String() }

// count gives the number of connections so far.
func (p *peer) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

// lines gives all lines heard so far.
func (p *peer) lines() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.heard...)
}

// told says whether a line with that beginning was heard.
func (p *peer) told(prefix string) bool {
	for _, line := range p.lines() {
		if strings.HasPrefix(line, prefix) {
			return true
		}
	}
	return false
}

// say writes as it is.
func (c *peerConn) say(text string) { _, _ = c.Write([]byte(text)) }

// surprise says on the first connection what nobody has asked for.
func (p *peer) surprise(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[0].say(text)
}

// line reads a line; "" means that the connection is over.
func (c *peerConn) line() string {
	line, err := c.r.ReadString('\n')
	if err != nil {
		return ""
	}
	line = strings.TrimRight(line, "\r\n")
	c.p.mu.Lock()
	c.p.heard = append(c.p.heard, line)
	c.p.mu.Unlock()
	return line
}

// content reads up to the end of data, and says whether it came.
func (c *peerConn) content() (string, bool) {
	var b strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return b.String(), false
		}
		if line == ".\r\n" {
			return b.String(), true
		}
		b.WriteString(line)
	}
}

// replies are what a peer says; "" stands for what a good server says.
type replies struct {
	greeting, ehlo, mail, rcpt, data, end, rset, other string
}

const goodEhlo = "250-peer.test\r\n250-PIPELINING\r\n250-SIZE 1000000\r\n250-8BITMIME\r\n250 DSN\r\n"

// serve holds a whole dialog.
func (c *peerConn) serve(r replies) {
	pick := func(text, good string) {
		if text == "" {
			text = good
		}
		c.say(text)
	}
	pick(r.greeting, "220 peer.test ESMTP\r\n")
	c.serveCommands(r, pick)
}

func (c *peerConn) serveCommands(r replies, pick func(text, good string)) {
	for {
		line := c.line()
		verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
		switch verb {
		case "":
			return
		case "EHLO", "LHLO":
			pick(r.ehlo, goodEhlo)
		case "MAIL":
			pick(r.mail, "250 2.1.0 Ok\r\n")
		case "RCPT":
			pick(r.rcpt, "250 2.1.5 Ok\r\n")
		case "RSET":
			pick(r.rset, "250 2.0.0 Ok\r\n")
		case "QUIT":
			c.say("221 2.0.0 Bye\r\n")
			return
		case "DATA":
			pick(r.data, "354 Go on\r\n")
			if r.data != "" && !strings.HasPrefix(r.data, "354") {
				continue
			}
			if _, ok := c.content(); !ok {
				return
			}
			c.p.mu.Lock()
			c.p.heard = append(c.p.heard, "end of data")
			c.p.mu.Unlock()
			pick(r.end, "250 2.0.0 Ok: queued as Q1\r\n")
		default:
			pick(r.other, "250 2.0.0 Ok\r\n")
		}
	}
}

// good is a server without fault.
func good(c *peerConn) { c.serve(replies{}) }

// getError wants Get to fail, and gives the reply for the client.
func getError(t *testing.T, set *Set, client Client) (smtp.Reply, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience)
	defer cancel()
	c, err := set.Get(ctx, client)
	if err == nil {
		c.Abort()
		t.Fatal("got a connection, want an error")
	}
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%T is no *Error: %v", err, err)
	}
	if !e.Reply.Temporary() {
		t.Errorf("reply for the client is %v, want a temporary one", e.Reply)
	}
	return e.Reply, err
}

// failed wants err to be an *Error with that reply.
func failed(t *testing.T, err error, code int, enhanced string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if r := ReplyFor(err); r.Code != code || r.Enhanced != enhanced {
		t.Errorf("reply for %q is %v, want %d %s", err, r, code, enhanced)
	}
}

// unusable wants a connection to be closed when it is given back.
func unusable(t *testing.T, set *Set, c *Conn) {
	t.Helper()
	c.Release()
	if stats := set.Stats()[0]; stats.Open != 0 || stats.Idle != 0 {
		t.Errorf("the connection is kept: %+v", stats)
	}
}

// waitFor waits until the peer has heard of a line.
func waitFor(t *testing.T, p *peer, line string) {
	t.Helper()
	testenv.Eventually(t, "peer hears "+line, func() bool { return p.told(line) })
}
