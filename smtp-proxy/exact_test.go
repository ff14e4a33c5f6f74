package main

import (
	"encoding/base64"
	"log/slog"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// TestCMD_60_LongChallenge has AUTH go on over challenges and responses of any length that RFC 4954 allows, each in one line.
func TestCMD_60_LongChallenge(t *testing.T) {
	t.Parallel()
	for _, size := range []int{371, 372, 400, 8000, 9200} {
		challenge, response := base64.StdEncoding.EncodeToString(make([]byte, size)), base64.StdEncoding.EncodeToString([]byte(strings.Repeat("r", size)))
		b := testenv.StartBackend(t)
		b.Extend("AUTH GSSAPI")
		b.Answer(func(a testenv.Asked) string {
			if a.Verb == "AUTH" && a.Line != response {
				return "334 " + challenge
			}
			return ""
		})
		c := greeted(t, startProxy(t, behind(b), "--auth-requires-tls=no").addr)
		if r := c.cmd("AUTH GSSAPI", "334"); len(r.Lines) != 1 || r.Lines[0] != challenge {
			t.Errorf("challenge of %d bytes has %d lines", len(challenge), len(r.Lines))
		}
		c.cmd(response, "235")
		if !strings.Contains(strings.Join(b.Commands(), "\n"), response) {
			t.Errorf("response of %d bytes did not arrive whole", len(response))
		}
	}
}

// TestPRX_60_HeadersOfNoUse has load balancers that send families, protocols and TLVs that mean nothing here: they are served.
// A connection without a header is closed, and the log says so.
func TestPRX_60_HeadersOfNoUse(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxyWith(t, listenSMTP, func(w *testenv.Buffer) slog.Handler { return slog.NewTextHandler(w, nil) }, behind(b), "--proxy-from=127.0.0.1")
	v2 := func(family byte, body string) string {
		return "\r\n\r\n\x00\r\nQUIT\n\x21" + string([]byte{family, byte(len(body) >> 8), byte(len(body))}) + body
	}
	four := "\xc0\x00\x02\x07\xc0\x00\x02\x19\x11\x5c\x00\x19"
	for _, header := range []string{
		v2(0x31, strings.Repeat("x", 216)), v2(0x12, four), v2(0x22, strings.Repeat("x", 36)), v2(0x00, strings.Repeat("x", 3000)), v2(0x10, four),
	} {
		c := dial(t, p.addr)
		c.send(header)
		c.expect("220")
	}
	for _, size := range []int{2100, 8000, 12000} {
		c := dial(t, p.addr)
		header := v2(0x11, four+"\xe0"+string([]byte{byte(size >> 8), byte(size)})+strings.Repeat("x", size))
		c.send(header[:100])
		c.send(header[100:])
		c.expect("220")
		c.cmd("QUIT", "221")
	}
	testenv.Eventually(t, "the client of the header in the log", func() bool { return strings.Contains(p.log.String(), "client=192.0.2.7:4444") })
	for _, bad := range []string{"EHLO a\r\n", v2(0x41, four), v2(0x11, "x"), "\r\n\r\n\x00\r\nQUIT\nX"} {
		p.log.Reset()
		c := dial(t, p.addr)
		c.send(bad)
		c.expectEnd()
		testenv.Eventually(t, "the close in the log", func() bool { return strings.Contains(p.log.String(), `msg="no PROXY header"`) })
	}
}

// TestMailboxLines sends mbox lines in front of the header: without a filter, too, they are fields and the header stays one.
func TestMailboxLines(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--droppath")
	for _, tt := range []struct{ sent, want string }{
		{"From a@b Sat Jan  1\r\nSubject: x\r\n\r\nbody\r\n", "X-Mailbox-Line: From a@b Sat Jan  1\r\nSubject: x\r\n\r\nbody\r\n"},
		{">From a\r\n>>From b\r\nReceived: x\r\nA: b\r\n\r\nFrom c\r\n", "X-Mailbox-Line: >From a\r\nX-Mailbox-Line: >>From b\r\nA: b\r\n\r\nFrom c\r\n"},
		{"From \r\n\r\n", "X-Mailbox-Line: From \r\n\r\n"},
		{"Subject: x\r\nFrom a\r\n", "Subject: x\r\nFrom a\r\n"},
		{"From: a@b\r\n\r\nFrom a\r\n", "From: a@b\r\n\r\nFrom a\r\n"},
		{"Fro\r\n\r\nx\r\n", "Fro\r\n\r\nx\r\n"}, {">\r\n", ">\r\n"}, {"from a\r\nA: b\r\n\r\n", "from a\r\nA: b\r\n\r\n"},
		{"From a\r\n", "X-Mailbox-Line: From a\r\n\r\n"},
	} {
		for _, pieces := range []bool{false, true} {
			c := greeted(t, p.addr)
			c.envelope()
			c.cmd("DATA", "354")
			if pieces {
				for i := range tt.sent {
					c.send(tt.sent[i : i+1])
				}
			} else {
				c.send(tt.sent)
			}
			c.send(".\r\n")
			c.expect("250")
			all := b.Messages()
			if got := all[len(all)-1].Data; got != tt.want {
				t.Errorf("%q became %q, want %q", tt.sent, got, tt.want)
			}
		}
	}
}

// TestTakenAsPostfixTakes sends what is not quite right and what Postfix takes all the same.
func TestTakenAsPostfixTakes(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	c := dial(t, startProxy(t, behind(b), "--address-check=off").addr)
	c.expect("220")
	for _, line := range []string{"EHLO a.example \t ", "EHLO\ta.example", "HELO  \t a.example"} {
		c.cmd(line, "250")
	}
	c.cmd("EHLO a.example", "250")
	for _, from := range []string{"a..b@docomo.example", "x.@docomo.example", ".x@docomo.example", "a...@docomo.example"} {
		c.cmd("MAIL FROM:<"+from+"> AUTH=<>", "250")
		c.cmd("RCPT TO:<"+from+">", "250")
		c.cmd("RSET", "250")
		if !strings.Contains(strings.Join(b.Commands(), "\n"), "MAIL FROM:<"+from+">\nRCPT TO:<"+from+">") {
			t.Errorf("%s did not arrive: %q", from, b.Commands())
		}
	}
	rfc := greeted(t, startProxy(t, behind(b)).addr)
	rfc.cmd("MAIL FROM:<a..b@docomo.example>", "501 5.1.7")
}

// TestXForward has a server in front tell whom it speaks for: the filter and the log learn it, until the message is over.
func TestXForward(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	m := startMultiplexor(t, scanWith(t, "F\n"))
	p := startProxy(t, m.args(behind(b), "--xforward-from=127.0.0.1")...)
	c := greeted(t, p.addr)
	if r := c.cmd("EHLO mta.example", "250"); !strings.Contains(r.Text(), "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE") {
		t.Errorf("EHLO offers %q", r.Text())
	}
	c.cmd("XFORWARD NAME=client.example ADDR=IPV6:2001:db8::7 PORT=4444", "250")
	c.cmd("XFORWARD HELO=said.example PROTO=ESMTP IDENT=ABC123 SOURCE=REMOTE", "250")
	c.envelope()
	c.cmd("XFORWARD NAME=x", "503")
	c.cmd("DATA", "354")
	c.send(smallMessage)
	c.expect("250")
	asked := strings.Join(m.requests(), "\n")
	for _, want := range []string{"senderok <from@client.example> 2001:db8::7 client.example said.example ", " 2001:db8::7 client.example <"} {
		if !strings.Contains(asked, want) {
			t.Errorf("the filter was not asked %q:\n%s", want, asked)
		}
	}
	if !strings.Contains(p.log.String(), "forwarded=2001:db8::7") {
		t.Error("the log has no client")
	}
	c.envelope()
	asked = strings.Join(m.requests(), "\n")
	if !strings.Contains(asked[strings.LastIndex(asked, "senderok"):], "127.0.0.1") {
		t.Errorf("the next message is of the same client:\n%s", asked)
	}
	c.cmd("RSET", "250")
	for _, bad := range []string{"XFORWARD", "XFORWARD ADDR=x", "XFORWARD FOO=x", "XFORWARD NAME", "XFORWARD PORT=70000", "XFORWARD NAME=a+0Ab"} {
		c.cmd(bad, "501")
	}
	c.cmd("XFORWARD NAME=[UNAVAILABLE] ADDR=192.0.2.7 PORT=[UNAVAILABLE] HELO=[TEMPUNAVAIL]", "250")
	stranger := greeted(t, startProxy(t, behind(b)).addr)
	stranger.cmd("XFORWARD ADDR=192.0.2.7", "502")
}

// TestRefusedGreeting has the filter refuse a client: after the 5xx in place of a greeting the session waits for QUIT and
// carries out nothing else.
func TestRefusedGreeting(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	m := startMultiplexor(t, func(words []string) string {
		if words[0] == "relayok" {
			return "ok 0 Go%20away,%20m%C3%BCrrisch 554 5.7.1 0\n"
		}
		return "ok 1\n"
	})
	p := startProxy(t, m.args(behind(b), "--max-errors=5")...)
	c := dial(t, p.addr)
	c.expect("554 5.7.1 Go away, m?rrisch")
	for _, line := range []string{"EHLO a.example", "MAIL FROM:<a@b.example>", "STARTTLS"} {
		c.cmd(line, "503 5.5.1")
	}
	c.cmd("QUIT", "221")
	c.expectEnd()
	c = dial(t, p.addr)
	c.expect("554")
	c.cmd("BDAT 20 LAST\r\nMAIL FROM:<a@b.test>", "503")
	c.expectEnd()
	if n := len(b.Commands()); n != 0 {
		t.Errorf("the next hop saw %q", b.Commands())
	}
}

// TestRepliesInASCII shows that texts beyond ASCII are for those alone who have asked for them by SMTPUTF8.
func TestRepliesInASCII(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Answer(func(a testenv.Asked) string {
		if a.Verb == "RCPT" {
			return "550-5.1.1 Unbekannter\r\n550 5.1.1 Empf\u00e4nger \u0416"
		}
		return ""
	})
	c := greeted(t, startProxy(t, behind(b)).addr)
	c.cmd("MAIL FROM:<a@b.example>", "250")
	c.cmd("RCPT TO:<x@d.example>", "550 5.1.1 Unbekannter Empf?nger ?")
	c.cmd("RSET", "250")
	c.cmd("MAIL FROM:<a@b.example> SMTPUTF8", "250")
	c.cmd("RCPT TO:<x@d.example>", "550 5.1.1 Unbekannter Empf\u00e4nger \u0416")
}
