package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"

	"postern/internal/netlist"
	"postern/internal/sockspec"
	"postern/internal/testenv"
)

// The tests of this file are the cases about who the client is: PROXY protocol and XCLIENT.

// clientOf gives the client of the last session that said EHLO, from the Received field of a message.
func clientOf(t *testing.T, b *testenv.Backend, c *dialog) string {
	t.Helper()
	c.envelope()
	c.cmd("DATA", "354")
	c.send(smallMessage)
	c.expect("250")
	all := b.Messages()
	_, rest, _ := strings.Cut(all[len(all)-1].Data, "([")
	addr, _, _ := strings.Cut(rest, "])")
	return addr
}

func proxyV2(command, family byte, body []byte) string {
	h := []byte("\r\n\r\n\x00\r\nQUIT\n")
	h = append(h, 0x20|command, family)
	h = binary.BigEndian.AppendUint16(h, uint16(len(body)))
	return string(append(h, body...))
}

func v2Addresses(source, destination string, sp, dp uint16) []byte {
	b := append(netip.MustParseAddr(source).AsSlice(), netip.MustParseAddr(destination).AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, sp)
	return binary.BigEndian.AppendUint16(b, dp)
}

func TestPRX_01_HeaderFromAStranger(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--proxy-from=192.0.2.0/24")
	for _, header := range []string{"PROXY TCP4 192.0.2.7 192.0.2.25 4444 25\r\n", proxyV2(1, 0x11, v2Addresses("192.0.2.7", "192.0.2.25", 4444, 25))} {
		c := dial(t, p.addr)
		c.send(header)
		// What comes before we look ends the connection without a greeting; what comes later is a
		// command.
		all, err := io.ReadAll(c)
		if err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("connection is not ended: %v", err)
		}
		if text := string(all); text != "" && (!strings.HasPrefix(text, "220 ") || !strings.Contains(text, "\r\n554 ")) {
			t.Errorf("replies %q", text)
		}
	}
	if strings.Contains(p.log.String(), "client=192.0.2.7") {
		t.Error("the header was believed")
	}
}

func TestPRX_02_HeaderThatIsNotExpected(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b))
	c := dial(t, p.addr)
	c.expect("220")
	c.send("PROXY TCP4 192.0.2.7 192.0.2.25 4444 25\r\n")
	c.expect("554")
	c.expectEnd()
}

func TestPRX_03_HeaderThatDoesNotCome(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--proxy-from=127.0.0.1", "--proxy-timeout=1s")
	for _, start := range []string{"EHLO a\r\n", "", "PROXY TCP4 192.0.2.7 ", "\r\n\r\n\x00"} {
		c := dial(t, p.addr)
		c.send(start)
		c.expectEnd()
	}
}

func TestPRX_04_MalformedVersion1(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--proxy-from=127.0.0.1", "--proxy-timeout=1m")
	long := "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe 65535 65535\r\n"
	unknown := "PROXY UNKNOWN" + strings.Repeat(" ", 107-15) + "\r\n"
	for header, want := range map[string]string{
		"PROXY TCP4 192.0.2.7 192.0.2.25 4444 25\r\n":     "192.0.2.7",
		"PROXY TCP6 2001:db8::7 2001:db8::25 4444 25\r\n": "IPv6:2001:db8::7",
		long:                               "IPv6:ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
		"PROXY UNKNOWN\r\n":                "127.0.0.1",
		"PROXY UNKNOWN a b c d\r\n":        "127.0.0.1",
		unknown:                            "127.0.0.1",
		unknown[:len(unknown)-2] + " \r\n": "",
		"PROXY TCP4 192.0.2.7 192.0.2.25 4444 25\n":     "",
		"PROXY TCP4 ::1 ::1 1 2\r\n":                    "",
		"PROXY TCP6 192.0.2.7 192.0.2.25 4444 25\r\n":   "",
		"PROXY TCP4 192.0.2.7 192.0.2.25 04444 25\r\n":  "",
		"PROXY TCP4 192.000.2.7 192.0.2.25 4444 25\r\n": "",
		"PROXY TCP4 192.0.2.7 192.0.2.25 65536 25\r\n":  "",
		"PROXY TCP4 192.0.2.7 192.0.2.25 -1 25\r\n":     "",
		"PROXY TCP4 192.0.2.7 192.0.2.25 4444 25 x\r\n": "",
		"PROXY TCP4  192.0.2.7 192.0.2.25 4444 25\r\n":  "",
		"PROXY UDP4 192.0.2.7 192.0.2.25 4444 25\r\n":   "",
		"PROXY \r\n": "",
		"PROXY TCP4 192.0.2.7" + strings.Repeat("1", 100000): "",
	} {
		t.Run(fmt.Sprintf("%.50q", header), func(t *testing.T) {
			c := dial(t, p.addr)
			_, _ = c.Write([]byte(header)) // the other side may close in between
			if want == "" {
				c.expectEnd()
				return
			}
			c.expect("220")
			c.cmd("EHLO a", "250")
			if got := clientOf(t, b, c); got != want {
				t.Errorf("client is %s, want %s", got, want)
			}
		})
	}
}

func TestPRX_05_MalformedVersion2(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--proxy-from=127.0.0.1", "--proxy-timeout=1m")
	v4 := v2Addresses("192.0.2.7", "192.0.2.25", 4444, 25)
	v6 := v2Addresses("2001:db8::7", "2001:db8::25", 4444, 25)
	good := proxyV2(1, 0x11, v4)
	badSignature := good[:11] + "X" + good[12:]
	version1 := good[:12] + "\x11" + good[13:]
	tlv := func(kind byte, length int, value string) []byte {
		return append([]byte{kind, byte(length >> 8), byte(length)}, value...)
	}
	for name, tt := range map[string]struct{ header, want string }{
		"IPv4":                 {good, "192.0.2.7"},
		"IPv6":                 {proxyV2(1, 0x21, v6), "IPv6:2001:db8::7"},
		"mapped":               {proxyV2(1, 0x21, v2Addresses("::ffff:192.0.2.9", "::ffff:192.0.2.25", 1, 2)), "192.0.2.9"},
		"LOCAL":                {proxyV2(0, 0x00, nil), "127.0.0.1"},
		"LOCAL with addresses": {proxyV2(0, 0x11, v4), "127.0.0.1"},
		"AF_UNSPEC":            {proxyV2(1, 0x00, []byte("whatever")), "127.0.0.1"},
		"unknown TLV":          {proxyV2(1, 0x11, append(v4[:12:12], tlv(0xe0, 5, "hello")...)), "192.0.2.7"},
		"TLV past the end":     {proxyV2(1, 0x11, append(v4[:12:12], tlv(0xe0, 50, "hello")...)), ""},
		"half a TLV":           {proxyV2(1, 0x11, append(v4[:12:12], 0xe0, 0)), ""},
		"bad signature":        {badSignature, ""},
		"version 1":            {version1, ""},
		"unknown command":      {proxyV2(2, 0x11, v4), ""},
		"length 0":             {proxyV2(1, 0x11, nil), ""},
		"too short":            {proxyV2(1, 0x11, v4[:11]), ""},
		"length 65535":         {good[:14] + "\xff\xff" + strings.Repeat("x", 1000), ""},
		"AF_UNIX":              {proxyV2(1, 0x31, make([]byte, 216)), "127.0.0.1"},
		"UDP":                  {proxyV2(1, 0x12, v4), "127.0.0.1"},
		"family of nobody":     {proxyV2(1, 0x41, v4), ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, p.addr)
			_, _ = c.Write([]byte(tt.header))
			if tt.want == "" {
				c.expectEnd()
				return
			}
			c.expect("220")
			c.cmd("EHLO a", "250")
			if got := clientOf(t, b, c); got != tt.want {
				t.Errorf("client is %s, want %s", got, tt.want)
			}
		})
	}
}

func TestPRX_06_HeaderInPiecesAndTwice(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--proxy-from=127.0.0.1", "--proxy-timeout=1m")
	v1 := "PROXY TCP4 192.0.2.7 192.0.2.25 4444 25\r\n"
	v2 := proxyV2(1, 0x11, v2Addresses("192.0.2.7", "192.0.2.25", 4444, 25))
	for _, header := range []string{v1, v2} {
		c := dial(t, p.addr)
		for i := range len(header) {
			c.send(header[i : i+1])
		}
		c.expect("220")
		c.cmd("EHLO a", "250")
		if got := clientOf(t, b, c); got != "192.0.2.7" {
			t.Errorf("client is %s", got)
		}
		for _, more := range []string{"EHLO a\r\n", v1, v2} {
			c = dial(t, p.addr)
			c.send(header + more)
			c.expect("554")
			c.expectEnd()
		}
	}
	c := dial(t, p.addr)
	c.send(proxyV2(1, 0x11, []byte(v1)[:12]))
	c.expect("220") // twelve bytes are two addresses, whatever they spell
}

func TestPRX_07_ClaimedAddressesGainNothing(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	// 127.0.0.0/8 is exempt from stamps: a header that claims such an address is believed, as it comes
	// from a trusted peer, but the peer's own trust is looked up by the socket's address only.
	p := startProxy(t, behind(b), "--proxy-from=127.0.0.1", "--xclient-from=192.0.2.99")
	for header, want := range map[string]string{
		"PROXY TCP6 ::ffff:127.0.0.1 ::1 1 2\r\n": "127.0.0.1",
		"PROXY TCP4 0.0.0.0 0.0.0.0 1 2\r\n":      "0.0.0.0",
		"PROXY TCP6 :: :: 1 2\r\n":                "IPv6:::",
		"PROXY TCP4 224.0.0.1 127.0.0.1 1 2\r\n":  "224.0.0.1",
	} {
		c := dial(t, p.addr)
		c.send(header)
		c.expect("220")
		c.cmd("EHLO a", "250")
		if got := clientOf(t, b, c); got != want {
			t.Errorf("%q: client is %s, want %s", header, got, want)
		}
		c.cmd("XCLIENT ADDR=192.0.2.1", "550")
	}
}

func TestPRX_08_MappedPeerIsInItsNetwork(t *testing.T) {
	t.Parallel()
	nets, err := netlist.Parse([]string{"10.0.0.0/8"})
	must(t, err)
	if addr := sockspec.AddrPort(tcpAddr("::ffff:10.0.0.1", 25)); !nets.Has(addr.Addr()) {
		t.Errorf("%s is not in 10.0.0.0/8", addr)
	}
}

func TestPRX_09_HealthChecksAreNoErrors(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--proxy-from=127.0.0.1")
	dial(t, p.addr).Close()
	c := dial(t, p.addr)
	c.send(proxyV2(0, 0, nil))
	c.expect("220")
	c.cmd("QUIT", "221")
	c.expectEnd()
	testenv.Eventually(t, "sessions end", func() bool { return p.sessionCount() == 0 })
	if text := p.log.String(); strings.Contains(text, "level=ERROR") || strings.Contains(text, "level=WARN") {
		t.Errorf("a health check is in the log:\n%s", text)
	}
	if n := p.metrics.gates[gateProxy].Load(); n != 1 {
		t.Errorf("counted %d connections without header, want 1", n)
	}
}

func TestXCL_01_CommandFromAStranger(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--xclient-from=192.0.2.0/24")
	c := dial(t, p.addr)
	c.expect("220")
	if r := c.cmd("EHLO a", "250"); strings.Contains(r.Text(), "XCLIENT") {
		t.Errorf("offered to everybody: %q", r)
	}
	c.cmd("XCLIENT ADDR=192.0.2.1", "550 5.7.0")
	if got := clientOf(t, b, c); got != "127.0.0.1" {
		t.Errorf("client is %s", got)
	}
}

func TestXCL_02_MalformedAttributes(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--xclient-from=127.0.0.1", "--max-errors=100")
	c := dial(t, p.addr)
	c.expect("220")
	if r := c.cmd("EHLO a", "250"); !strings.Contains(r.Text(), "XCLIENT ") {
		t.Errorf("not offered: %q", r)
	}
	for _, bad := range []string{
		"", "ADDR=garbage", "ADDR=192.0.2.1/24", "ADDR=fe80::1%eth0", "NAME=a+0D+0Ab", "HELO=a+0D+0A", "LOGIN=a+0A", "NAME=" + strings.Repeat("a", 300),
		"FOO=1", "ADDR", "PORT=99999", "PORT=-1", "PROTO=HTTP", "NAME=a+2", "NAME=a+20b",
	} {
		c.cmd("XCLIENT "+bad, "501")
	}
	c.cmd("MAIL FROM:<a@b.example>", "250")
	c.cmd("XCLIENT ADDR=192.0.2.1", "503")
	c.cmd("RSET", "250")
	c.cmd("XCLIENT ADDR=[UNAVAILABLE] NAME=[TEMPUNAVAIL]", "220")
	c.cmd("EHLO a", "250")
	c.cmd("XCLIENT ADDR=IPV6:2001:db8::9 NAME=client.example PORT=4444 PROTO=ESMTP HELO=x", "220")
	c.cmd("EHLO client.example", "250")
	if got := clientOf(t, b, c); got != "IPv6:2001:db8::9" && !strings.HasPrefix(got, "IPv6") {
		if !strings.Contains(b.Messages()[0].Data, "(client.example [IPv6:2001:db8::9])") {
			t.Errorf("client is %s: %q", got, b.Messages()[0].Data)
		}
	}
}

func TestXCL_03_AllIsJudgedAnewByTheNewAddress(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	dir := t.TempDir()
	writeFile(t, dir+"/192.0.2.1", "")
	p := startProxy(t, behind(b), "--xclient-from=127.0.0.1", "--clientip-dir", dir, "--clientip-exempt=127.0.0.1")
	c := greeted(t, p.addr)
	c.cmd("XCLIENT ADDR=::ffff:192.0.2.1", "220")
	c.cmd("MAIL FROM:<a@b.example>", "503")
	c.cmd("EHLO a", "250")
	if got := clientOf(t, b, c); got != "192.0.2.1" {
		t.Errorf("client is %s", got)
	}
	c.cmd("XCLIENT ADDR=192.0.2.2", "550")
	c = greeted(t, p.addr)
	c.cmd("XCLIENT ADDR=192.0.2.2", "421 4.7.0 proxy.example ")
	c.expectEnd()
}

func TestXCL_03_FilterAndLimitsSeeTheNewAddress(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	m := startMultiplexor(t, func(words []string) string {
		if words[0] == "relayok" && words[1] == "192.0.2.66" {
			return "ok 0 Listed 554 5.7.1 0\n"
		}
		return "ok 1\n"
	})
	p := startProxy(t, m.args(behind(b), "--xclient-from=127.0.0.1", "--max-sessions-per-address=1")...)
	first := greeted(t, p.addr)
	first.cmd("XCLIENT ADDR=192.0.2.1", "220")
	second := greeted(t, p.addr)
	second.cmd("XCLIENT ADDR=192.0.2.1", "421 4.7.0 proxy.example ")
	second.expectEnd()
	third := greeted(t, p.addr)
	third.cmd("XCLIENT ADDR=192.0.2.66", "554 5.7.1 Listed")
	third.cmd("EHLO a", "503")
	third.cmd("QUIT", "221")
	third.expectEnd()
}

func TestXCL_04_LoginIsBelievedIfSoSet(t *testing.T) {
	t.Parallel()
	for believed, want := range map[string]string{"no": "", "yes": "=auth_authen fred\n"} {
		b := testenv.StartBackend(t)
		commands := ""
		pass := scanWith(t, "F\n")
		m := startMultiplexor(t, func(words []string) string {
			if words[0] == "scan" {
				commands = readFile(t, words[2]+"/COMMANDS")
			}
			return pass(words)
		})
		p := startProxy(t, m.args(behind(b), "--xclient-from=127.0.0.1", "--xclient-login="+believed)...)
		c := greeted(t, p.addr)
		c.cmd("XCLIENT ADDR=192.0.2.1 LOGIN=fred", "220")
		c.cmd("EHLO a", "250")
		clientOf(t, b, c)
		if got := strings.Contains(commands, "auth_authen"); got != (want != "") || !strings.Contains(commands, want) {
			t.Errorf("LOGIN believed %s: COMMANDS\n%s", believed, commands)
		}
	}
}

// TestXClientIsAnotherClient: what was known of the client before XCLIENT is not said of the next one. What
// XCLIENT commands in a row say goes together, as long as the first is.
func TestXClientIsAnotherClient(t *testing.T) {
	t.Parallel()
	const auth = "AUTH PLAIN AG9sZAB4" // old
	for _, tt := range []struct {
		name, login, want string
		lines             []string
	}{
		{"after AUTH", auth, "=_ unknown [192.0.2.1]\n", []string{"XCLIENT ADDR=192.0.2.1"}},
		{"login given", auth, "=auth_authen fred\n=auth_type XCLIENT\n", []string{"XCLIENT ADDR=192.0.2.1 LOGIN=fred"}},
		{"in a row", auth, "=_ a.example [192.0.2.1]\n=auth_authen fred\n=auth_type XCLIENT\n", []string{"XCLIENT NAME=a.example LOGIN=fred", "XCLIENT ADDR=127.0.0.1", "XCLIENT PORT=7 ADDR=192.0.2.1"}},
		{"one after the other", "NOOP", "=_ unknown [192.0.2.1]\n", []string{"XCLIENT ADDR=127.0.0.1 NAME=a.example LOGIN=fred PORT=7", "EHLO a", "XCLIENT ADDR=192.0.2.1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := testenv.StartBackend(t)
			b.Extend("PIPELINING", "AUTH PLAIN")
			commands := ""
			pass := scanWith(t, "F\n")
			m := startMultiplexor(t, func(words []string) string {
				if words[0] == "scan" {
					commands = readFile(t, words[2]+"/COMMANDS")
				}
				return pass(words)
			})
			p := startProxy(t, m.args(behind(b), "--xclient-from=127.0.0.1", "--xclient-login", "--auth-requires-tls=no", "--client-lookup=no")...)
			c := greeted(t, p.addr)
			c.cmd(tt.login, "2")
			for _, line := range tt.lines {
				c.cmd(line, "2")
			}
			c.cmd("EHLO a", "250")
			c.envelope()
			c.cmd("DATA", "354")
			c.send(smallMessage)
			c.expect("250")
			got := strings.ReplaceAll(commands, "%20", " ")
			if !strings.Contains(got, tt.want) || strings.Contains(got, "old") || strings.Contains(got, "PLAIN") ||
				!strings.Contains(tt.want, "fred") && strings.Contains(got, "auth_") {
				t.Errorf("COMMANDS\n%s\nwant %q", got, tt.want)
			}
			if strings.Contains(tt.name, "after") && !strings.Contains(got, "=client_port 0\n") {
				t.Errorf("the port of another client in COMMANDS\n%s", got)
			}
		})
	}
}
