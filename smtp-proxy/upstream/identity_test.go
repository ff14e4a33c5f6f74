package upstream

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pires/go-proxyproto"

	"postern/internal/testenv"
)

const xclientEhlo = "250-peer.test\r\n250-PIPELINING\r\n250 XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT\r\n"

var aClient = Client{
	Addr: netip.MustParseAddrPort("192.0.2.7:4321"), Name: "mx.a.test", Helo: "helo.a.test", Proto: "ESMTP",
	ServerAddr: netip.MustParseAddrPort("198.51.100.1:25"),
}

// xclientPeer is a server that takes XCLIENT as Postfix does: back to the greeting.
func xclientPeer(t *testing.T, ehlo string) *peer {
	return startPeer(t, func(c *peerConn) { c.serve(replies{ehlo: ehlo, other: "220 peer.test ESMTP\r\n"}) })
}

// XCL-05: values are encoded, unknown ones named as such, only attributes sent that the server takes.
func TestXCL_05_WhatIsSaidOfTheClient(t *testing.T) {
	t.Parallel()
	all := strings.Fields("NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT")
	v6 := aClient
	v6.Addr = netip.MustParseAddrPort("[2001:db8::7]:1")
	odd := aClient
	odd.Helo, odd.Name, odd.Login = "a b", "\xfcber=[x]+\r\n", strings.Repeat("ü", 100)
	mapped := aClient
	mapped.Addr = netip.MustParseAddrPort("[::ffff:192.0.2.7]:1")
	for _, test := range []struct {
		name   string
		client Client
		takes  []string
		want   []string
	}{
		{"plain", aClient, all, []string{"XCLIENT NAME=mx.a.test HELO=helo.a.test LOGIN=[UNAVAILABLE] PROTO=ESMTP DESTADDR=198.51.100.1 DESTPORT=25 PORT=4321 ADDR=192.0.2.7"}},
		{"only what is offered", aClient, []string{"ADDR", "HELO"}, []string{"XCLIENT HELO=helo.a.test ADDR=192.0.2.7"}},
		{"IPv6", v6, []string{"ADDR"}, []string{"XCLIENT ADDR=IPV6:2001:db8::7"}},
		{"mapped", mapped, []string{"ADDR"}, []string{"XCLIENT ADDR=192.0.2.7"}},
		{"encoded", odd, []string{"ADDR", "NAME", "HELO", "LOGIN"}, []string{"XCLIENT NAME=+FCber+3D+5Bx+5D+2B+0D+0A HELO=a+20b LOGIN=[UNAVAILABLE] ADDR=192.0.2.7"}},
		{"nothing known", Client{}, []string{"ADDR", "NAME", "PORT", "PROTO", "DESTADDR"}, []string{"XCLIENT NAME=[UNAVAILABLE] PROTO=[UNAVAILABLE] DESTADDR=[UNAVAILABLE] PORT=[UNAVAILABLE] ADDR=[UNAVAILABLE]"}},
		{"no ADDR", aClient, []string{"NAME"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, xclientLines(test.client, test.takes)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	t.Run("long", func(t *testing.T) {
		long := aClient
		long.Helo, long.Name, long.Login = strings.Repeat("h", 250), strings.Repeat("n", 250), strings.Repeat("l", 250)
		lines := xclientLines(long, all)
		for _, line := range lines {
			if len(line)+2 > 512 || !strings.HasPrefix(line, "XCLIENT ") {
				t.Errorf("line of %d bytes: %q", len(line)+2, line)
			}
		}
		words := strings.Fields(strings.ReplaceAll(strings.Join(lines, " "), "XCLIENT ", ""))
		if !strings.HasSuffix(lines[len(lines)-1], " ADDR=192.0.2.7") {
			t.Errorf("ADDR is not the last: %q", lines)
		}
		if len(lines) != 3 || len(words) != len(all) {
			t.Errorf("%q", lines)
		}
	})
	t.Run("dialog", func(t *testing.T) {
		p := xclientPeer(t, xclientEhlo)
		set := newSet(t, Config{URLs: []string{p.url()}, ClientIP: ClientIPXClient})
		c := get(t, set, aClient)
		say(t, c, envelope[:1], 250)
		c.Release()
		// The same client again: RSET will do. Another one: its own XCLIENT.
		get(t, set, aClient).Release()
		other := aClient
		other.Addr = netip.MustParseAddrPort("192.0.2.8:1")
		get(t, set, other).Release()
		var heard []string
		for _, line := range p.lines() {
			verb, rest, _ := strings.Cut(line, " ")
			if verb == "XCLIENT" {
				verb = rest[strings.Index(rest, " ADDR=")+1:]
			}
			heard = append(heard, verb)
		}
		want := []string{"EHLO", "ADDR=192.0.2.7", "EHLO", "MAIL", "RSET" /* by Release; none for a use that asked nothing */, "ADDR=192.0.2.8", "EHLO"}
		if diff := cmp.Diff(want, heard); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	for _, test := range []struct {
		name   string
		handle func(c *peerConn)
	}{
		{"not offered", good},
		{"without ADDR", func(c *peerConn) { c.serve(replies{ehlo: "250-a\r\n250 XCLIENT NAME\r\n"}) }},
		{"421", func(c *peerConn) { c.serve(replies{ehlo: xclientEhlo, other: "421 4.3.2 No\r\n"}) }},
		{"550", func(c *peerConn) { c.serve(replies{ehlo: xclientEhlo, other: "550 5.7.0 No\r\n"}) }},
		{"250", func(c *peerConn) { c.serve(replies{ehlo: xclientEhlo, other: "250 fine\r\n"}) }},
	} {
		t.Run("refused/"+test.name, func(t *testing.T) {
			p := startPeer(t, test.handle)
			set := newSet(t, Config{URLs: []string{p.url()}, ClientIP: ClientIPXClient})
			r, _ := getError(t, set, aClient)
			if r.Code != 421 {
				t.Errorf("reply for the client is %v, want 421", r)
			}
			if p.told("MAIL") {
				t.Error("mail was sent under our own address")
			}
		})
	}
}

// A server that takes XCLIENT but once gets another connection for the next client.
func TestXClientOnce(t *testing.T) {
	t.Parallel()
	p := startPeer(t, func(c *peerConn) {
		told := false
		c.say("220 a\r\n")
		for {
			switch line := c.line(); {
			case line == "":
				return
			case strings.HasPrefix(line, "EHLO"):
				c.say(xclientEhlo)
			case strings.HasPrefix(line, "XCLIENT") && told:
				c.say("550 5.7.0 Once is enough\r\n")
			case strings.HasPrefix(line, "XCLIENT"):
				told = true
				c.say("220 a\r\n")
			default:
				c.say("250 Ok\r\n")
			}
		}
	})
	set := newSet(t, Config{URLs: []string{p.url()}, ClientIP: ClientIPXClient})
	get(t, set, aClient).Release()
	other := aClient
	other.Helo = "other.test"
	get(t, set, other).Release()
	if s := set.Stats()[0]; p.count() != 2 || s.Open != 1 {
		t.Errorf("%d connections; %+v", p.count(), s)
	}
}

// The PROXY header is the first thing on the connection, and the connection is of use for that client only.
func TestProxyHeader(t *testing.T) {
	t.Parallel()
	v6 := aClient
	v6.Addr = netip.MustParseAddrPort("[2001:db8::7]:99")
	mapped := aClient
	mapped.Addr = netip.MustParseAddrPort("[::ffff:192.0.2.9]:5")
	for _, mode := range []ClientIP{ClientIPProxy1, ClientIPProxy2} {
		t.Run(string(mode), func(t *testing.T) {
			headers := make(chan *proxyproto.Header, 10)
			p := startPeer(t, func(c *peerConn) {
				h, err := proxyproto.Read(c.r)
				if err != nil {
					t.Errorf("header: %v", err)
				}
				headers <- h
				c.serve(replies{})
			})
			set := newSet(t, Config{URLs: []string{p.url()}, ClientIP: mode})
			if _, err := set.Capabilities(t.Context()); err != nil {
				t.Fatal(err)
			}
			if h := testenv.Receive(t, "a header", headers); !strings.HasPrefix(h.SourceAddr.String(), "127.0.0.1:") || h.DestinationAddr.String() != p.l.Addr().String() {
				t.Errorf("in our own name: %v to %v", h.SourceAddr, h.DestinationAddr)
			}
			for _, test := range []struct {
				client   Client
				from, to string
			}{
				{aClient, "192.0.2.7:4321", "198.51.100.1:25"},
				{v6, "[2001:db8::7]:99", "[::1]:25"},
				{mapped, "192.0.2.9:5", "198.51.100.1:25"},
			} {
				get(t, set, test.client).Release()
				h := testenv.Receive(t, "a header", headers)
				if h.SourceAddr.String() != test.from || h.DestinationAddr.String() != test.to {
					t.Errorf("header is %v to %v, want %s to %s", h.SourceAddr, h.DestinationAddr, test.from, test.to)
				}
			}
			before := p.count()
			get(t, set, aClient).Release()
			if p.count() != before {
				t.Error("the connection was not used again for the same client")
			}
		})
	}
}
