package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/smtp"
	"postern/internal/testenv"
)

// gaveBack waits until the proxy has no connection to a server in use.
func gaveBack(t *testing.T, p *proxy) {
	t.Helper()
	testenv.Eventually(t, "connections to be given back", func() bool {
		s := p.ups.Stats()[0]
		return s.Open == int64(s.Idle)
	})
}

// idler begins a transaction with two recipients, from an address of its own.
func idler(t *testing.T, p *proxy, i int, addr string) *dialog {
	t.Helper()
	c := greeted(t, p.addr)
	if addr != "" {
		c.cmd("XCLIENT ADDR="+addr, "220")
		c.cmd("EHLO c.example", "250")
	}
	c.cmd(fmt.Sprintf("MAIL FROM:<sender%d@b.example>", i), "250")
	c.cmd(fmt.Sprintf("RCPT TO:<one%d@d.example>", i), "250")
	c.cmd(fmt.Sprintf("RCPT TO:<two%d@d.example>", i), "250")
	return c
}

// TestRES_61_IdleClientsHoldNoServer has many more idle clients behind RCPT than there may be connections to the server.
// Others are served, and each of them gets its own message through when it goes on.
func TestRES_61_IdleClientsHoldNoServer(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"none", "xclient", "proxy2"} {
		t.Run(mode, func(t *testing.T) {
			_, b := startFront(t)
			b.Extend("PIPELINING", "SIZE 1000000", "DSN", "XCLIENT NAME ADDR PORT PROTO HELO")
			p := startProxy(t, behind(b), "--upstream-idle=30ms", "--upstream-connections=2", "--xclient-from=127.0.0.0/8", "--upstream-client-ip="+mode)
			var all []*dialog
			for i := range 8 {
				all = append(all, idler(t, p, i, fmt.Sprintf("192.0.2.%d", i%2)))
			}
			gaveBack(t, p)
			for i, c := range all {
				if i%2 == 0 {
					c.cmd(fmt.Sprintf("RCPT TO:<three%d@d.example>", i), "250") // and more behind it
					gaveBack(t, p)
				}
			}
			for i, c := range all {
				if i%3 == 0 {
					c.cmd("BDAT 7 LAST\r\n\r\nabc", "250") // no header, and a body
					continue
				}
				c.cmd("DATA", "354")
				c.send("Subject: " + fmt.Sprint(i) + "\r\n\r\nx\r\n.\r\n")
				c.expect("250")
			}
			messages := b.Messages()
			if len(messages) != len(all) {
				t.Fatalf("%d messages, want %d", len(messages), len(all))
			}
			for i, m := range messages {
				want := []string{fmt.Sprintf("<one%d@d.example>", i), fmt.Sprintf("<two%d@d.example>", i)}
				if i%2 == 0 {
					want = append(want, fmt.Sprintf("<three%d@d.example>", i))
				}
				if !strings.Contains(m.From, fmt.Sprintf("sender%d@", i)) || !sameRecipients(m.To, want) {
					t.Errorf("message %d is from %s to %q, want %q", i, m.From, m.To, want)
				}
			}
			if found := b.Breaches(); len(found) > 0 {
				t.Errorf("breaches: %q", found)
			}
		})
	}
}

// sameRecipients compares arguments of RCPT with addresses.
func sameRecipients(got, want []string) bool {
	if len(got) != len(want) {
		return false
	}
	for i := range got {
		if !strings.Contains(got[i], want[i]) {
			return false
		}
	}
	return true
}

// TestIdleEnvelopeIsRefusedLater has the server change its mind while the client is idle: the message is refused for
// now, goes to nobody, and the next one is well.
func TestIdleEnvelopeIsRefusedLater(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"MAIL", "RCPT"} {
		for _, next := range []string{"DATA", "RCPT TO:<three@d.example>", "BDAT 5 LAST\r\nabc"} {
			t.Run(verb+" "+next[:4], func(t *testing.T) {
				b := testenv.StartBackend(t)
				b.Extend("PIPELINING")
				var no atomic.Bool
				b.Answer(func(a testenv.Asked) string {
					if no.Load() && a.Verb == verb {
						return "550 5.1.1 Not any more"
					}
					return ""
				})
				p := startProxy(t, behind(b), "--upstream-idle=20ms")
				c := idler(t, p, 0, "")
				gaveBack(t, p)
				no.Store(true)
				c.cmd(next, "451 4.3.0")
				no.Store(false)
				c.cmd("RSET", "250")
				c.envelope()
				c.cmd("DATA", "354")
				c.send(smallMessage)
				c.expect("250")
				if n := len(b.Messages()); n != 1 {
					t.Errorf("%d messages, want 1", n)
				}
			})
		}
	}
}

// TestIdleWithinLine lets time pass within command lines: what came of one is not lost, and what is too long stays one line.
func TestIdleWithinLine(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--upstream-idle=20ms")
	c := idler(t, p, 0, "")
	c.send("RCPT TO:<thr")
	gaveBack(t, p)
	c.send("ee@d.example>\r\n")
	c.expect("250")
	c.send("RCPT TO:<" + strings.Repeat("x", 20000))
	gaveBack(t, p)
	c.send(">\r\nNOOP\r\n")
	c.expect("500 5.5.2")
	c.expect("250")
	c.cmd("DATA", "354")
	c.send(smallMessage)
	c.expect("250")
	if m := b.Messages(); len(m) != 1 || len(m[0].To) != 3 {
		t.Errorf("messages %+v", m)
	}
}

// TestIdleWithFilter has a client idle within its content while a filter is to see it: no server waits for that.
func TestIdleWithFilter(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	m := startMultiplexor(t, func(words []string) string {
		if words[0] == "scan" {
			must(t, os.WriteFile(filepath.Join(words[2], "RESULTS"), []byte("F\n"), 0o600))
			return "ok\n"
		}
		return "ok 1\n"
	})
	p := startProxy(t, m.args(behind(b), "--upstream-idle=20ms")...)
	for _, chunks := range []bool{false, true} {
		c := idler(t, p, 0, "")
		if chunks {
			c.cmd("BDAT 12\r\nSubject: x", "250")
			gaveBack(t, p)
			c.cmd("BDAT 7 LAST\r\n\r\nabc", "250")
			continue
		}
		c.cmd("DATA", "354")
		gaveBack(t, p)
		c.send(smallMessage)
		c.expect("250")
	}
	if got := b.Messages(); len(got) != 2 || len(got[0].To) != 2 || !strings.Contains(got[1].Data, "abc") {
		t.Errorf("messages %+v", got)
	}
}

// TestIdleStays shows what is never given back: a connection on which a user has logged in, and any if that is not wanted.
func TestIdleStays(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Extend("AUTH PLAIN")
	p := startProxy(t, behind(b), "--upstream-idle=10ms", "--auth-requires-tls=no")
	c := greeted(t, p.addr)
	c.cmd("AUTH PLAIN AGJvYgBzZWNyZXQ=", "235")
	kept := idlerOn(c)
	other := startProxy(t, behind(b), "--upstream-idle=0s")
	kept2 := idlerOn(greeted(t, other.addr))
	witness := idler(t, p, 1, "") // is idle for no less time than they
	gone := func() bool { s := p.ups.Stats()[0]; return s.Open == int64(s.Idle)+1 }
	testenv.Eventually(t, "the third connection to be given back", gone)
	for _, c := range []*dialog{kept, kept2, witness} {
		c.cmd("DATA", "354")
		c.send(smallMessage)
		c.expect("250")
	}
	if n := strings.Count(strings.Join(b.Commands(), "\n"), "MAIL FROM:<a@b.example>"); n != 2 {
		t.Errorf("envelopes were issued %d times, want 2", n)
	}
}

func idlerOn(c *dialog) *dialog {
	c.cmd("MAIL FROM:<a@b.example>", "250")
	c.cmd("RCPT TO:<x@d.example>", "250")
	return c
}

// TestRES_62_ShareOfOneAddress has one address keep as many connections as it can by content that does not go on: it has
// its share, another one from there waits until there is room in it, and clients of other addresses are served.
func TestRES_62_ShareOfOneAddress(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--upstream-connections=8", "--connect-timeout=1h", "--xclient-from=127.0.0.0/8", "--limit-exempt=203.0.113.0/24")
	slow := func(addr string) *dialog {
		c := idler(t, p, 0, addr)
		c.cmd("DATA", "354")
		c.send("Subject: x\r\n")
		return c
	}
	holders := []*dialog{slow("IPV6:2001:db8::1"), slow("IPV6:2001:db8::2")}
	c := greeted(t, p.addr)
	c.cmd("XCLIENT ADDR=IPV6:2001:db8::3", "220")
	c.cmd("EHLO c.example", "250")
	c.cmd("MAIL FROM:<a@b.example>", "250")
	c.send("RCPT TO:<x@d.example>\r\n")
	idler(t, p, 1, "192.0.2.1")
	for range 3 {
		slow("203.0.113.9") // has no limit
	}
	if !testenv.Silent(c) {
		t.Error("an answer, or the end, beyond the share")
	}
	holders[0].send("\r\n.\r\n")
	holders[0].expect("250")
	c.expect("250")
}

// TestRES_62_NoRoomInTheShare has who finds none within connect-timeout come again.
func TestRES_62_NoRoomInTheShare(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	const limit = time.Second
	p := startProxy(t, behind(b), "--upstream-connections=8", "--connect-timeout", limit.String(), "--upstream-idle=0s", "--xclient-from=127.0.0.0/8")
	from := func(addr string) *dialog {
		c := greeted(t, p.addr)
		c.cmd("XCLIENT ADDR="+addr, "220")
		c.cmd("EHLO c.example", "250")
		c.cmd("MAIL FROM:<a@b.example>", "250")
		return c
	}
	holders := []*dialog{from("IPV6:2001:db8::1"), from("IPV6:2001:db8::2")}
	for _, c := range holders {
		c.rcptInTime()
	}
	c := from("IPV6:2001:db8::3")
	began := time.Now()
	c.cmd("RCPT TO:<x@d.example>", "451 4.3.2")
	if took := time.Since(began); took < limit {
		t.Errorf("refused after %v, want to have waited", took)
	}
	from("192.0.2.1").rcptInTime()
	holders[0].cmd("DATA", "354")
	holders[0].send(smallMessage)
	holders[0].expect("250")
	c.rcptInTime()
}

// rcptInTime names a recipient until connecting to the next hop has not taken longer than a short connect-timeout.
func (c *dialog) rcptInTime() {
	c.t.Helper()
	testenv.Eventually(c.t, "a connection within connect-timeout", func() bool {
		c.send("RCPT TO:<to@server.example>\r\n")
		r, err := smtp.ReadReply(c.r)
		if err != nil || !r.Positive() && !strings.HasPrefix(r.String(), "451 4.3.2") {
			c.t.Fatalf("reply %q, %v", r, err)
		}
		return r.Positive()
	})
}
