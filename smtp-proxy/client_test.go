package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"postern/internal/netlist"
	"postern/internal/smtp"
	"postern/internal/testenv"
)

// fakeDNS has names of addresses and addresses of names.
type fakeDNS map[string][]string

func (d fakeDNS) LookupAddr(_ context.Context, addr string) ([]string, error) { return d.lookUp(addr) }
func (d fakeDNS) LookupHost(_ context.Context, host string) ([]string, error) { return d.lookUp(host) }

func (d fakeDNS) lookUp(what string) ([]string, error) {
	if found := d[what]; len(found) > 0 {
		return found, nil
	}
	return nil, errors.New("no such host")
}

func TestClientName(t *testing.T) {
	t.Parallel()
	many := make([]string, 1000)
	for i := range many {
		many[i] = "other.test."
	}
	dns := fakeDNS{
		"192.0.2.1": {"one.test."}, "one.test": {"192.0.2.9", "192.0.2.1"},
		"192.0.2.2": {"forged.test.", "one.test."}, "forged.test": {"192.0.2.9"},
		"192.0.2.3": {"forged.test.", "gone.test.", "-bad name.", "three.test."}, "three.test": {"192.0.2.3"},
		"192.0.2.4": {"-bad name."},
		"127.0.0.1": {"localhost"}, "localhost": {"::1", "127.0.0.1"},
		"2001:db8::1": {"six.test."}, "six.test": {"2001:DB8:0:0::1"},
		"192.0.2.5": append(many, "five.test."), "five.test": {"192.0.2.5"},
		"192.0.2.6": {"mapped.test."}, "mapped.test": {"::ffff:192.0.2.6"},
	}
	for _, tt := range []struct{ addr, name, claimed string }{
		{"192.0.2.1", "one.test", ""},
		{"192.0.2.2", "", "forged.test"},
		{"192.0.2.3", "three.test", ""},
		{"192.0.2.4", "", ""},
		{"192.0.2.5", "", "other.test"}, // not after a thousand others
		{"192.0.2.6", "mapped.test", ""},
		{"192.0.2.7", "", ""},
		{"127.0.0.1", "localhost", ""},
		{"2001:db8::1", "six.test", ""},
		{"2001:db8::1%eth0", "six.test", ""},
	} {
		if name, claimed := lookUpName(t.Context(), dns, netip.MustParseAddr(tt.addr)); name != tt.name || claimed != tt.claimed {
			t.Errorf("%s is %q, claims %q; want %q, %q", tt.addr, name, claimed, tt.name, tt.claimed)
		}
	}
}

// TestClientBecomesAnother: nothing that was known of one client is said of the next.
func TestClientBecomesAnother(t *testing.T) {
	t.Parallel()
	front, other := netip.MustParseAddrPort("192.0.2.1:25"), netip.MustParseAddrPort("[2001:db8::2]:587")
	everything := client{
		listener: listenSMTP, peer: front, addr: front, local: other, looked: true, name: "front.test", claimed: "claimed.test", helo: "front",
		esmtp: true, acceptedAddr: true, acceptedName: true, cert: &clientCert{verify: "OK"}, login: "front", authType: smtp.XClient, forward: &forwarded{helo: "x"},
	}
	for _, tt := range []struct {
		name string
		x    xclient
		want client
	}{
		{"address alone", xclient{addr: other.Addr()}, client{addr: netip.AddrPortFrom(other.Addr(), 0)}},
		{"all", xclient{other.Addr(), 587, "other.test", "other"}, client{addr: other, name: "other.test", looked: true, login: "other", authType: smtp.XClient}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := everything
			got.become(tt.x)
			tt.want.listener, tt.want.peer, tt.want.local, tt.want.introduced = listenSMTP, front, other, true
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
			if got.greet(smtp.Ehlo, "again"); got.introduced || got.helo != "again" || !got.esmtp {
				t.Errorf("behind EHLO: %+v", got)
			}
		})
	}
}

// TestClientForFilters: what filters hear of a client, of one named by XFORWARD, and of one without an address.
func TestClientForFilters(t *testing.T) {
	t.Parallel()
	addr := netip.MustParseAddrPort("192.0.2.1:1025")
	asked := 0
	dns := func(netip.Addr) (string, string) { asked++; return "one.test", "" }
	for _, tt := range []struct {
		name                 string
		c                    client
		ip, host, helo, with string
		port, asked          int
	}{
		{"looked up once", client{addr: addr, lookUp: dns, helo: "h", esmtp: true}, "192.0.2.1", "one.test", "h", "UTF8SMTP", 1025, 1},
		{"not looked up", client{addr: addr, helo: "h"}, "192.0.2.1", "[192.0.2.1]", "h", "SMTP", 1025, 0},
		{"UNIX socket", client{lookUp: dns, esmtp: true, tls: &tls.ConnectionState{}}, "127.0.0.1", "[127.0.0.1]", "", "UTF8SMTPS", 0, 0},
		{"forwarded", client{addr: addr, lookUp: dns, helo: "h", forward: &forwarded{netip.MustParseAddr("2001:db8::1"), 7, "f.test", "f"}}, "2001:db8::1", "f.test", "f", "SMTP", 7, 0},
		{"forwarded without name", client{addr: addr, lookUp: dns, helo: "h", forward: &forwarded{addr: netip.MustParseAddr("2001:db8::1")}}, "2001:db8::1", "[2001:db8::1]", "h", "SMTP", 0, 0},
		{"forwarded greeting alone", client{addr: addr, lookUp: dns, forward: &forwarded{helo: "f"}}, "192.0.2.1", "one.test", "f", "SMTP", 1025, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked = 0
			c := tt.c
			c.dnsName()
			if c.ip() != tt.ip || hostName(&c) != tt.host || c.greeting() != tt.helo || c.protocol(true) != tt.with || c.port() != tt.port || asked != tt.asked {
				t.Errorf("%s %s %s %s %d, asked %d times; want %+v", c.ip(), hostName(&c), c.greeting(), c.protocol(true), c.port(), asked, tt)
			}
		})
	}
}

// TestClientLogsInAndOut: what a login changes for the next hop and for the Received field.
func TestClientLogsInAndOut(t *testing.T) {
	t.Parallel()
	c := client{addr: netip.MustParseAddrPort("192.0.2.1:1025"), helo: "h", esmtp: true}
	c.logIn("PLAIN", "user")
	if up := c.upstream(nil); !c.known() || c.protocol(false) != "ESMTPA" || up.Login != "user" || !up.Origin.IsValid() {
		t.Errorf("logged in: %+v, %+v", c, up)
	}
	c.logOut()
	if up := c.upstream(netlist.List{netip.MustParsePrefix("192.0.2.0/24")}); c.known() || c.protocol(false) != "ESMTP" || up.Login != "" || up.Origin.IsValid() {
		t.Errorf("logged out: %+v, %+v", c, up)
	}
}

// TestPipelinedRecipients sends all recipients at once: the filter finds in COMMANDS those that were taken before.
func TestPipelinedRecipients(t *testing.T) {
	t.Parallel()
	for _, pipelining := range []bool{true, false} {
		b := testenv.StartBackend(t)
		if !pipelining {
			b.Extend("8BITMIME")
		}
		b.Answer(func(a testenv.Asked) string {
			if a.Verb == "RCPT" && strings.Contains(a.Line, "unknown") {
				return "550 5.1.1 No such user"
			}
			return ""
		})
		var lists []string
		m := startMultiplexor(t, func(words []string) string {
			switch words[0] {
			case "recipok":
				var before []string
				for line := range strings.Lines(readFile(t, filepath.Join(words[7], "COMMANDS"))) {
					if line[0] == 'R' {
						before = append(before, strings.Fields(line[1:])[0])
					}
				}
				lists = append(lists, strings.Join(before, " "))
			case "scan":
				writeFile(t, filepath.Join(words[2], "RESULTS"), "F\n")
				return "ok\n"
			}
			return "ok 1 ok 250 2.1.0 0\n"
		})
		c := greeted(t, startProxy(t, append(m.args(), behind(b))...).addr)
		c.send("MAIL FROM:<from@client.example>\r\nRCPT TO:<one@server.example>\r\nRCPT TO:<unknown@server.example>\r\nRCPT TO:<two@server.example>\r\nRCPT TO:<three@server.example>\r\nDATA\r\n")
		for _, want := range []string{"250 2.1.0", "250 2.1.5", "550 5.1.1", "250 2.1.5", "250 2.1.5", "354"} {
			c.expect(want)
		}
		c.send("\r\nx\r\n.\r\n")
		c.expect("250")
		if want := []string{"", "<one@server.example>", "<one@server.example>", "<one@server.example> <two@server.example>"}; !slices.Equal(lists, want) {
			t.Errorf("pipelining %v: at each recipok COMMANDS had %q, want %q", pipelining, lists, want)
		}
	}
}

// TestPipelinedRecipientsOfARefusedSender has a server that refuses MAIL, which the client learns late: no recipient
// is asked about behind that.
func TestPipelinedRecipientsOfARefusedSender(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Answer(func(a testenv.Asked) string {
		if a.Verb == "MAIL" {
			return "550 5.1.8 No such sender"
		}
		return ""
	})
	m := startMultiplexor(t, scanWith(t, "F\n"))
	c := greeted(t, startProxy(t, append(m.args(), behind(b))...).addr)
	c.send("MAIL FROM:<from@client.example>\r\nRCPT TO:<one@server.example>\r\nRCPT TO:<two@server.example>\r\nDATA\r\n")
	for _, want := range []string{"250 2.1.0", "550 5.1.8", "550 5.1.8", "554 5.5.1"} {
		c.expect(want)
	}
	asked := 0
	for _, request := range m.requests() {
		if strings.HasPrefix(request, "recipok ") {
			asked++
		}
	}
	if asked != 1 {
		t.Errorf("asked about %d recipients, want 1: %q", asked, m.requests())
	}
}

// hostName returns the name that filters get.
func hostName(c *client) string {
	if name := c.forFilter("", "").Name; name != "" {
		return name
	}
	return "[" + c.ip() + "]"
}
