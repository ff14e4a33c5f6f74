package main

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// behindBalancer connects to r as a load balancer does, sending header first.
func behindBalancer(t *testing.T, r *running, header string) *peer {
	t.Helper()
	c := testenv.Dial(t, "tcp", r.addr)
	t.Cleanup(func() { _ = c.Close() })
	p := newPeer(t, c)
	p.send(header)
	return p
}

// POP-05.
func TestProxyHeader(t *testing.T) {
	t.Parallel()
	r := start(t, backendAt(t, mailbox("")), "--proxy-from", "127.0.0.0/8 ::1", "--proxy-timeout", "1m")
	p := behindBalancer(t, r, "PROXY TCP4 192.0.2.7 192.0.2.25 4444 110\r\n")
	p.want("+OK pop.test")
	p.ask("USER bob", "+OK")
	p.ask("PASS secret word", "+OK")
	if list, err := os.ReadDir(r.stamp); err != nil || len(list) != 1 || list[0].Name() != "192.0.2.7" {
		t.Errorf("stamps %v, %v", list, err)
	}
	// LOCAL and UNKNOWN are the balancer itself.
	p = behindBalancer(t, r, "PROXY UNKNOWN\r\n")
	p.want("+OK pop.test")
	p.ask("USER bob", "+OK")
	p.ask("PASS secret word", "+OK")
	if r.stampLine(t) == "" {
		t.Error("no stamp of 127.0.0.1")
	}
	for _, header := range []string{"USER bob\r\nPASS secret word\r\n", "PROXY TCP4 ../../etc/x 192.0.2.25 1 2\r\n", "PROXY TCP4 010.0.0.1 192.0.2.25 1 2\r\n",
		"PROXY TCP4 192.0.2.7 192.0.2.25 4444 110 x\r\n", strings.Repeat("x", 10000), "\r\n\r\n\x00\r\nQUIT\nxxxxxxxx"} {
		p := behindBalancer(t, r, header)
		if rest, _ := io.ReadAll(p.r); len(rest) > 0 {
			t.Errorf("%.40q is answered %q", header, rest)
		}
	}
	// One that never comes.
	r = start(t, backendAt(t, mailbox("")), "--proxy-from", "127.0.0.0/8 ::1", "--proxy-timeout", "300ms")
	if rest, _ := io.ReadAll(behindBalancer(t, r, "").r); len(rest) > 0 {
		t.Errorf("silence is answered %q", rest)
	}
}

// TestProxyHeaderSplit sends the header byte by byte, and with the first command.
func TestProxyHeaderSplit(t *testing.T) {
	t.Parallel()
	r := start(t, backendAt(t, mailbox("")), "--proxy-from", "127.0.0.1")
	p := behindBalancer(t, r, "")
	for _, c := range []byte("PROXY TCP4 192.0.2.7 192.0.2.25 4444 110\r\n") {
		p.send(string(c))
	}
	p.want("+OK pop.test")
	p = behindBalancer(t, r, "PROXY TCP4 192.0.2.7 192.0.2.25 4444 110\r\nUSER bob\r\nPASS secret word\r\n")
	p.want("+OK pop.test")
	p.want("+OK")
	p.want("+OK logged in")
	// A second header is an unknown command.
	p = behindBalancer(t, r, strings.Repeat("PROXY TCP4 192.0.2.7 192.0.2.25 4444 110\r\n", 2))
	p.want("+OK pop.test")
	p.want("-ERR unknown command")
}

func TestProxyHeaderFromStranger(t *testing.T) {
	t.Parallel()
	r := start(t, backendAt(t, mailbox("")), "--proxy-from", "192.0.2.0/24")
	p := behindBalancer(t, r, "PROXY TCP4 192.0.2.7 192.0.2.25 4444 110\r\n")
	p.want("+OK pop.test")
	p.want("-ERR unknown command")
	p.ask("USER bob", "+OK")
	p.ask("PASS secret word", "+OK")
	if r.stampLine(t) == "" {
		t.Error("the stamp is not that of the connection")
	}
}

func TestProxyHeaderBeforeTLS(t *testing.T) {
	t.Parallel()
	flags, conf := withTLS(t)
	r := start(t, backendAt(t, mailbox("")), append(flags, "--pop3s", "inet:1", "--proxy-from", "127.0.0.1")...)
	c := testenv.Dial(t, "tcp", r.addr)
	// The header and the ClientHello in one segment.
	tc := tls.Client(&together{Conn: c, before: "PROXY TCP4 192.0.2.7 192.0.2.25 4444 995\r\n"}, conf)
	p := newPeer(t, tc)
	p.want("+OK pop.test")
	p.ask("QUIT", "+OK")
	testenv.Eventually(t, "a log line with the client", func() bool { return strings.Contains(r.log.String(), "client=192.0.2.7") })
}

// together writes something before the first bytes, in one write.
type together struct {
	net.Conn
	before string
}

func (c *together) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(append([]byte(c.before), b...))
	n -= len(c.before)
	c.before = ""
	return n, err
}
