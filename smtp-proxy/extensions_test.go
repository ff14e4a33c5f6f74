package main

import (
	"strings"
	"testing"

	"postern/internal/testenv"
)

// standIn gives a session that was greeted while a server was there that can do all, and now only one is left
// that can do nothing but what is named.
func standIn(t *testing.T, keywords string, args ...string) (*dialog, *testenv.Backend) {
	t.Helper()
	first, second := testenv.StartBackend(t), testenv.StartBackend(t)
	second.Extend(strings.Fields(keywords)...)
	p := startProxy(t, append(args, behind(first), behind(second))...)
	c := greeted(t, p.addr)
	first.Close()
	return c, second
}

// TestExtensionsThatLack: what EHLO offered and the server that stands in cannot do is refused for now, if to leave it out
// would change what becomes of the message; the rest is left out.
func TestExtensionsThatLack(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		mail, rcpt string
		reply      string // to RCPT
		from, to   string // at the server, if it was 250
	}{
		{"", " NOTIFY=SUCCESS,FAILURE", "451 4.3.3", "", ""},
		{"", " NOTIFY=never", "451 4.3.3", "", ""},
		{" RET=HDRS ENVID=x", " NOTIFY=FAILURE,DELAY ORCPT=rfc822;a@b.example", "250", "<a@b.example>", "<c@d.example>"},
		{" SMTPUTF8", "", "451 4.6.7", "", ""},
		{" SIZE=100 BODY=8BITMIME", "", "250", "<a@b.example>", "<c@d.example>"},
	} {
		for _, pipelining := range []string{"PIPELINING", ""} {
			t.Run(tt.mail+tt.rcpt+pipelining, func(t *testing.T) {
				c, b := standIn(t, pipelining)
				c.cmd("MAIL FROM:<a@b.example>"+tt.mail, "250")
				c.cmd("RCPT TO:<c@d.example>"+tt.rcpt, tt.reply)
				if tt.reply != "250" {
					c.cmd("DATA", "554 5.5.1")
					// The next EHLO is honest, so that the client knows what to do.
					if r := c.cmd("EHLO again", "250"); strings.Contains(r.Text(), "DSN") || strings.Contains(r.Text(), "UTF8") {
						t.Errorf("offered %q", r)
					}
					c.cmd("MAIL FROM:<a@b.example>"+tt.mail+tt.rcpt, "555")
					return
				}
				c.cmd("DATA", "354")
				c.send(smallMessage)
				c.expect("250")
				if got := b.Messages(); len(got) != 1 || got[0].From != tt.from || got[0].To[0] != tt.to {
					t.Errorf("delivered %+v", got)
				}
			})
		}
	}
}

// TestExtensionsOfEarlierEHLO: another session has met the server that stands in, so that it is known what it offers.
// A parameter that this session's EHLO has offered is not one that nobody has heard of.
func TestExtensionsOfEarlierEHLO(t *testing.T) {
	t.Parallel()
	first, second := testenv.StartBackend(t), testenv.StartBackend(t)
	second.Extend("PIPELINING")
	p := startProxy(t, behind(first), behind(second))
	c := greeted(t, p.addr)
	first.Close()
	other := greeted(t, p.addr)
	other.envelope()
	if r := other.cmd("EHLO again", "250"); strings.Contains(r.Text(), "8BITMIME") {
		t.Fatalf("offered %q", r)
	}
	other.cmd("MAIL FROM:<a@b.example> BODY=8BITMIME", "555")
	c.cmd("MAIL FROM:<a@b.example> BODY=8BITMIME RET=HDRS", "250")
	c.cmd("RCPT TO:<c@d.example> NOTIFY=FAILURE", "250")
	c.cmd("RSET", "250")
	c.cmd("MAIL FROM:<a@b.example> SMTPUTF8", "250")
	c.cmd("RCPT TO:<c@d.example>", "451 4.6.7")
}

// TestEightBitContent: content that was sent as 8BITMIME reaches a server without it only if it has no such byte.
func TestEightBitContent(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, mail, content, reply string }{
		{"7 bits", " BODY=8BITMIME", "Subject: x\r\n\r\nu\r\n.\r\n", "250"},
		{"8 bits", " BODY=8BITMIME", "Subject: x\r\n\r\n\xc3\xbc\r\n.\r\n", "451 4.6.3"},
		{"8 bits in the header", " BODY=8BITMIME", "Subject: \xfc\r\n\r\nx\r\n.\r\n", "451 4.6.3"},
		{"8 bits that nobody announced", "", "Subject: x\r\n\r\n\xc3\xbc\r\n.\r\n", "250"},
	} {
		for _, filtered := range []bool{false, true} {
			t.Run(tt.name, func(t *testing.T) {
				var args []string
				if filtered {
					args = startMultiplexor(t, scanWith(t, "F\n")).args()
				}
				c, b := standIn(t, "PIPELINING", args...)
				c.cmd("MAIL FROM:<a@b.example>"+tt.mail, "250")
				c.cmd("RCPT TO:<c@d.example>", "250")
				c.cmd("DATA", "354")
				c.send(tt.content)
				c.expect(tt.reply)
				if n := len(b.Messages()); (n == 1) != (tt.reply == "250") {
					t.Errorf("%d messages arrived", n)
				}
				c.cmd("NOOP", "250") // still in step
			})
		}
	}
}

// TestServerKnowsNoClient: a server that cannot be told who the client is gets no mail, and 421 is the end.
func TestServerKnowsNoClient(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--upstream-client-ip=xclient")
	c := greeted(t, p.addr)
	c.cmd("MAIL FROM:<a@b.example>", "250")
	c.cmd("RCPT TO:<c@d.example>", "421 4.3.2 proxy.example ")
	c.expectEnd()
	if n := transactions(b); n != 0 {
		t.Errorf("the server saw %q", b.Commands())
	}
}
