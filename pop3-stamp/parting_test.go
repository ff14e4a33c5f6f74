package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// TestClientLeaves has clients leave in many ways while the upstream server is silent, at many points: the
// server gets its connection back long before upstream-timeout, and the session ends.
func TestClientLeaves(t *testing.T) {
	t.Parallel()
	flags, conf := withTLS(t)
	at := map[string]string{ // what the upstream server says nothing to any more -> what the client sends
		"":       "USER bob\r\nPASS x\r\n",
		"USER":   "USER bob\r\nPASS x\r\n",
		"PASS":   "USER bob\r\nPASS x\r\n",
		"AUTH":   "AUTH PLAIN AGJvYgB4\r\n",
		"STAT":   "USER bob\r\nPASS x\r\nSTAT\r\n",
		"RETR":   "USER bob\r\nPASS x\r\nRETR 1\r\n",
		"RETR 2": "USER bob\r\nPASS x\r\nRETR 2\r\n",
		"QUIT":   "USER bob\r\nPASS x\r\nQUIT\r\n",
	}
	leave := map[string]func(*net.TCPConn){
		"closes": func(c *net.TCPConn) { _ = c.Close() },
		"resets": func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() },
		"says no more": func(c *net.TCPConn) {
			_ = c.CloseWrite()
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		},
		"closes behind more commands": func(c *net.TCPConn) {
			_, _ = io.WriteString(c, strings.Repeat("NOOP\r\n", 100))
			_ = c.Close()
		},
	}
	type visit struct {
		name  string
		r     *running
		ended chan struct{}
	}
	var visits []visit // all at once, as each takes some seconds
	begin := func(silent, lines, how string, secure bool) {
		v := visit{fmt.Sprintf("%q, %s, TLS %v", silent, how, secure), nil, make(chan struct{})}
		waits := make(chan struct{})
		url := backendAt(t, func(p *peer) {
			defer close(v.ended)
			if silent != "" {
				p.send("+OK\r\n")
				for line := p.line(); line != silent && !strings.HasPrefix(line, silent+" "); line = p.line() {
					p.send("+OK\r\n")
				}
			}
			if silent == "RETR 2" {
				p.send("+OK\r\nhalf a message\r\n")
			}
			close(waits)
			if _, err := p.Read(make([]byte, 1)); err == nil {
				t.Errorf("%s: the server was told something more", v.name)
			}
		})
		more := []string{"--sasl", "PLAIN", "--upstream-timeout", "1h"}
		if secure {
			more = append(more, flags...)
		}
		v.r = start(t, url, more...)
		p := v.r.client(t)
		raw := p.Conn.(*net.TCPConn)
		if secure {
			p.ask("STLS", "+OK")
			p = p.upgrade(conf)
		}
		p.send(lines)
		testenv.Receive(t, "the server's silence", waits)
		go leave[how](raw)
		visits = append(visits, v)
	}
	for how := range leave {
		for silent, lines := range at {
			begin(silent, lines, how, false)
		}
		if how != "closes behind more commands" {
			begin("STAT", at["STAT"], how, true)
		}
	}
	for _, v := range visits {
		testenv.Eventually(t, v.name+": the server to be left and the session to end", func() bool {
			select {
			case <-v.ended:
			default:
				return false
			}
			log := v.r.log.String()
			return v.r.limits.count() == 0 && (strings.Contains(log, `reason="client left"`) || strings.Contains(log, `reason="connection lost`))
		})
	}
}

// TestHalfClosed has a client that says everything at once and no more: it gets all replies, however slow the
// server.
func TestHalfClosed(t *testing.T) {
	t.Parallel()
	r := start(t, backendAt(t, func(p *peer) {
		mailbox("x\r\n")(&peer{p.t, slowConn{p.Conn}, p.r})
	}))
	testenv.Eventually(t, "a server that is not silent for partingTime", func() bool {
		r.log.Reset()
		p := r.client(t)
		p.send("USER bob\r\nPASS secret word\r\nRETR 1\r\nNOOP\r\nQUIT\r\n")
		if err := p.Conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(p.r)
		testenv.Eventually(t, "the end of the session", func() bool { return strings.Contains(r.log.String(), "session ended") })
		if strings.Contains(r.log.String(), `reason="client left"`) {
			return false
		}
		want := []string{"+OK", "+OK logged in", "+OK here", "x", ".", "+OK NOOP", "+OK bye", ""}
		if err != nil || !slices.EqualFunc(strings.Split(string(text), "\r\n"), want, strings.HasPrefix) {
			t.Errorf("replies %q, %v; want %q", text, err, want)
		}
		return true
	})
}

// slowConn thinks before it lets somebody in for longer than it takes to see that a client is silent.
type slowConn struct{ net.Conn }

func (c slowConn) Write(p []byte) (int, error) {
	if strings.Contains(string(p), "logged in") {
		testenv.Pause(lookEvery + lookEvery/4)
	}
	return c.Conn.Write(p)
}

// TestCloseNotify looks for the end of TLS in the bytes that a client gets, however its session ends.
func TestCloseNotify(t *testing.T) {
	t.Parallel()
	flags, conf := withTLS(t)
	for name, lines := range map[string]string{
		"QUIT":            "USER bob\r\nPASS secret word\r\nQUIT\r\n",
		"QUIT at once":    "QUIT\r\n",
		"too many errors": strings.Repeat("FOO\r\n", 9),
		"wrong passwords": strings.Repeat("USER bob\r\nPASS x\r\n", 3),
		"timeout":         "USER bob\r\nPASS secret word\r\n",
		"server broken":   "USER bob\r\nPASS secret word\r\nTOP 1 1\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			server := func(p *peer) {
				if name != "server broken" {
					mailbox("")(p)
					return
				}
				p.send("+OK\r\n")
				for range 2 {
					p.line()
					p.send("+OK\r\n")
				}
				p.line()
				p.send("+OK\r\nhalf a mess")
			}
			limit := "1m"
			if name == "timeout" {
				limit = "1s"
			}
			r := start(t, backendAt(t, server), append(flags, "--pop3s", "inet:1", "--login-timeout", "1h", "--idle-timeout", limit)...)
			c, err := testenv.Connect("tcp", r.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = testenv.Patient(c)
			tc := tls.Client(c, conf)
			if _, err := io.WriteString(tc, lines); err != nil {
				t.Fatal(err)
			}
			if text, err := io.ReadAll(tc); err != nil { // io.ErrUnexpectedEOF without close_notify
				t.Errorf("behind %q: %v", text, err)
			}
		})
	}
}
