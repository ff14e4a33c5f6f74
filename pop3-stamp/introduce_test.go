package main

import (
	"bytes"
	"net"
	"strings"
	"testing"
	"time"

	"postern/internal/proxyheader"
	"postern/internal/testenv"
)

// TestUpstreamClient has the upstream server hear who the client is, in each way.
func TestUpstreamClient(t *testing.T) {
	t.Parallel()
	const four, six = "PROXY TCP4 192.0.2.7 192.0.2.25 4444 110\r\n", "PROXY TCP6 2001:db8::7 2001:db8::25 4444 110\r\n"
	for _, tt := range []struct {
		how, header, want string // what the server hears before USER; for proxy2 its parsed form
	}{
		{"none", four, ""},
		{"proxy1", four, four},
		{"proxy1", six, six},
		{"proxy2", four, "192.0.2.7:4444 192.0.2.25:110"},
		{"proxy2", six, "[2001:db8::7]:4444 [2001:db8::25]:110"},
		{"xclient", four, "XCLIENT ADDR=192.0.2.7 PORT=4444\r\n"},
		{"xclient", six, "XCLIENT ADDR=2001:db8::7 PORT=4444\r\n"},
	} {
		t.Run(tt.how+" "+tt.header[6:10], func(t *testing.T) {
			heard := make(chan string, 1)
			r := start(t, backendAt(t, func(p *peer) {
				if tt.how == "proxy2" {
					start, err := p.r.Peek(16)
					if err != nil || len(start) < 16 {
						t.Error(err)
						return
					}
					h, _ := p.r.Peek(16 + int(start[15]))
					header, n, err := proxyheader.Parse(h)
					if err != nil || n != len(h) {
						t.Errorf("%q: %v", h, err)
					}
					heard <- header.Source.String() + " " + header.Destination.String()
					_, _ = p.r.Discard(n)
				} else if tt.how == "proxy1" {
					heard <- p.line() + "\r\n"
				}
				p.send("+OK\r\n")
				line := p.line()
				if tt.how == "xclient" {
					heard <- line + "\r\n"
					p.send("+OK\r\n")
					line = p.line()
				} else if tt.how == "none" {
					heard <- ""
				}
				if line != "USER bob" {
					t.Errorf("the server hears %q", line)
				}
				p.send("+OK\r\n")
				p.line()
				p.send("+OK\r\n")
				p.line()
			}), "--upstream-client-ip", tt.how, "--proxy-from", "127.0.0.1")
			p := behindBalancer(t, r, tt.header)
			p.want("+OK")
			p.ask("USER bob", "+OK")
			p.ask("PASS x", "+OK")
			if got := testenv.Receive(t, "what the server hears", heard); got != tt.want {
				t.Errorf("the server hears %q, want %q", got, tt.want)
			}
		})
	}
}

// TestUpstreamClientUnknown: a client without an address is a connection of our own.
func TestUpstreamClientUnknown(t *testing.T) {
	t.Parallel()
	for how, want := range map[string]string{"proxy1": "PROXY UNKNOWN\r\n", "proxy2": "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00", "xclient": ""} {
		a, c := net.Pipe()
		b := &backend{conn: c, timeout: time.Minute, gone: func() parting { return here }}
		b.use(c)
		got := make(chan string)
		go func() {
			var all bytes.Buffer
			_, _ = all.ReadFrom(a)
			got <- all.String()
		}()
		if err := b.sendProxyHeader(how, client{}); err != nil {
			t.Errorf("%s: %v", how, err)
		}
		if err := b.sendXClient(how, client{}); err != nil {
			t.Errorf("%s: %v", how, err)
		}
		b.close()
		if got := testenv.Receive(t, "what was sent", got); got != want {
			t.Errorf("%s: %q, want %q", how, got, want)
		}
	}
}

// TestXClientRefused: nobody logs in whom the server would take for another.
func TestXClientRefused(t *testing.T) {
	t.Parallel()
	for _, reply := range []string{"-ERR You are not from trusted IP\r\n", "+OK\r\n+OK\r\n", "", "what?\r\n"} {
		r := start(t, backendAt(t, func(p *peer) {
			p.send("+OK\r\n")
			p.line()
			p.send(reply)
			if reply != "" && strings.HasPrefix(p.line(), "USER") {
				t.Error("a login behind " + reply)
			}
		}), "--upstream-client-ip", "xclient")
		p := r.client(t)
		p.ask("USER bob", "+OK")
		p.ask("PASS x", "-ERR [SYS/TEMP] mail server is not available")
		p.ended()
	}
}
