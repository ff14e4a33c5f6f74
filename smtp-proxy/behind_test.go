package main

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"postern/internal/proxyheader"
	"postern/internal/testenv"
)

// frontListener notes where connections come from, and takes the PROXY header off them if there is one.
type frontListener struct {
	net.Listener
	mu      sync.Mutex
	from    []netip.Addr
	headers []proxyheader.Header
}

func (l *frontListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.from = append(l.from, nc.RemoteAddr().(*net.TCPAddr).AddrPort().Addr())
	return &headed{Conn: nc, l: l}, nil
}

// headed is a connection that begins with a PROXY header, or not.
type headed struct {
	net.Conn
	l    *frontListener
	once sync.Once
	rest []byte
}

func (c *headed) Read(p []byte) (int, error) {
	c.once.Do(func() {
		buf := make([]byte, proxyheader.MaxSize)
		n, err := c.Conn.Read(buf) // what the proxy has sent in one write
		if err != nil {
			return
		}
		c.rest = buf[:n]
		if !proxyheader.Starts(c.rest) {
			return
		}
		h, n, err := proxyheader.Parse(c.rest)
		if err != nil {
			return // the dialog will show it
		}
		c.rest = c.rest[n:]
		c.l.mu.Lock()
		defer c.l.mu.Unlock()
		c.l.headers = append(c.l.headers, h)
	})
	if len(c.rest) > 0 {
		n := copy(p, c.rest)
		c.rest = c.rest[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

func startFront(t *testing.T) (*frontListener, *testenv.Backend) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	front := &frontListener{Listener: l}
	return front, testenv.ServeBackend(t, front)
}

// TestUpstreamClientIP has the next hop learn in each way who the client is.
func TestUpstreamClientIP(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"none", "xclient", "proxy1", "proxy2"} {
		t.Run(mode, func(t *testing.T) {
			front, b := startFront(t)
			b.Extend("PIPELINING", "XCLIENT NAME ADDR PORT PROTO HELO DESTADDR DESTPORT")
			p := startProxy(t, behind(b), "--upstream-client-ip", mode, "--upstream-helo", "helo.example", "--client-lookup=no")
			c := greeted(t, p.addr)
			c.envelope()
			c.cmd("RSET", "250")
			port := c.LocalAddr().(*net.TCPAddr).Port
			commands := b.Commands()
			front.mu.Lock()
			defer front.mu.Unlock()
			told := strings.Join(commands, "|")
			xclient := fmt.Sprintf("PROTO=ESMTP DESTADDR=127.0.0.1 DESTPORT=%s PORT=%d ADDR=127.0.0.1|EHLO client.example", p.addr[strings.LastIndexByte(p.addr, ':')+1:], port)
			if strings.Contains(told, xclient) != (mode == "xclient") || !slices.Contains(commands, "EHLO helo.example") {
				t.Errorf("no %q among %q", xclient, told)
			}
			want := netip.MustParseAddrPort(fmt.Sprintf("127.0.0.1:%d", port))
			found := slices.ContainsFunc(front.headers, func(h proxyheader.Header) bool { return h.Source == want && h.Destination.String() == p.addr })
			if found != strings.HasPrefix(mode, "proxy") {
				t.Errorf("PROXY headers %v, want one of %v: %v", front.headers, want, strings.HasPrefix(mode, "proxy"))
			}
		})
	}
}

// TestUpstreamSource has the connection come from the address of the settings.
func TestUpstreamSource(t *testing.T) {
	t.Parallel()
	front, b := startFront(t)
	p := startProxy(t, behind(b), "--upstream-source=127.0.0.77")
	greeted(t, p.addr).envelope()
	front.mu.Lock()
	defer front.mu.Unlock()
	if want := netip.MustParseAddr("127.0.0.77"); slices.ContainsFunc(front.from, func(a netip.Addr) bool { return a != want }) || len(front.from) == 0 {
		t.Errorf("connections came from %v", front.from)
	}
}

// TestUpstreamConnections lets one session at a time have the server; another one waits, and gets it or a 451.
func TestUpstreamConnections(t *testing.T) {
	t.Parallel()
	_, b := startFront(t)
	p := startProxy(t, behind(b), "--upstream-connections=1", "--connect-timeout=1s")
	first, second := greeted(t, p.addr), greeted(t, p.addr)
	first.cmd("MAIL FROM:<a@b.example>", "250")
	first.rcptInTime()
	second.cmd("MAIL FROM:<a@b.example>", "250")
	second.cmd("RCPT TO:<c@d.example>", "451 4.3.2")
	_, b = startFront(t)
	p = startProxy(t, behind(b), "--upstream-connections=1", "--connect-timeout=1m")
	first, second = greeted(t, p.addr), greeted(t, p.addr)
	first.envelope()
	second.send("MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n") // waits
	first.cmd("DATA", "354")
	first.send(smallMessage)
	first.expect("250")
	second.expect("250")
	second.expect("250")
	if n := b.Opened(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// TestUpstreamLimits has a server that takes one message on a connection, RFC 9422: none is refused for that.
func TestUpstreamLimits(t *testing.T) {
	t.Parallel()
	_, b := startFront(t)
	b.Extend("PIPELINING", "LIMITS MAILMAX=1 RCPTMAX=7")
	var mu sync.Mutex
	mails := map[int]int{}
	b.Answer(func(a testenv.Asked) string {
		mu.Lock()
		defer mu.Unlock()
		if a.Verb == "MAIL" {
			if mails[a.Conn]++; mails[a.Conn] > 1 {
				return "452 4.5.3 Too many messages"
			}
		}
		return ""
	})
	p := startProxy(t, behind(b))
	c := dial(t, p.addr)
	c.expect("220")
	if r := c.cmd("EHLO client.example", "250"); !strings.Contains(strings.Join(r.Lines, "|"), "LIMITS RCPTMAX=7") {
		t.Errorf("offered: %q", r.Lines)
	}
	for range 3 {
		c.envelope()
		c.cmd("DATA", "354")
		c.send(smallMessage)
		c.expect("250")
	}
	if n := len(b.Messages()); n != 3 {
		t.Errorf("%d messages arrived, want 3", n)
	}
}

// TestUpstreamChunking sends by BDAT what goes on by DATA, whether the next hop knows BDAT or not.
func TestUpstreamChunking(t *testing.T) {
	t.Parallel()
	for _, offer := range []string{"SIZE", "CHUNKING"} {
		_, b := startFront(t) // to which BDAT would be a breach
		b.Extend("PIPELINING", "8BITMIME", offer)
		p := startProxy(t, behind(b))
		c := greeted(t, p.addr)
		c.envelope()
		c.send("BDAT 19\r\nSubject: x\r\n\r\n.\r\na\r")
		c.expect("250 2.0.0 19 octets")
		c.send("BDAT 4 LAST\r\n\nb\r\n")
		c.expect("250 2.0.0")
		if all := b.Messages(); len(all) != 1 || !strings.HasSuffix(all[0].Wire, "\r\n\r\n..\r\na\r\nb\r\n.\r\n") {
			t.Errorf("with %s arrived %+v", offer, all)
		}
	}
}

// TestUpstreamBreaker has the proxy leave a server alone that is down, answer at once meanwhile, and use it again when it
// is back.
func TestUpstreamBreaker(t *testing.T) {
	t.Parallel()
	_, b := startFront(t)
	p := startProxy(t, behind(b))
	greeted(t, p.addr).envelope()
	b.Close()
	testenv.Eventually(t, "the server is left alone", func() bool {
		c := greeted(t, p.addr)
		defer c.Close()
		c.cmd("MAIL FROM:<a@b.example>", "250")
		c.cmd("RCPT TO:<c@d.example>", "451 4.4.1")
		return p.ups.Stats()[0].Shut
	})
	l, err := net.Listen("tcp", b.Addr)
	must(t, err)
	back := testenv.ServeBackend(t, l)
	testenv.Eventually(t, "the server is used again", func() bool {
		c := greeted(t, p.addr)
		defer c.Close()
		c.cmd("MAIL FROM:<a@b.example>", "250")
		c.send("RCPT TO:<c@d.example>\r\n")
		line, err := c.r.ReadString('\n')
		must(t, err)
		return strings.HasPrefix(line, "250")
	})
	if back.Opened() == 0 {
		t.Error("nobody came")
	}
}
