package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"postern/internal/testenv"
)

// TestHarvest: whoever guesses addresses is thrown out, however the guesses are put; who delivers mail is not.
func TestHarvest(t *testing.T) {
	t.Parallel()
	guess := func(c *dialog) { c.send("RCPT TO:<guess@d.example>\r\n") }
	for _, tt := range []struct {
		name  string
		round func(c *dialog) // one guess
	}{
		{"one transaction", guess},
		{"RSET", func(c *dialog) {
			c.cmd("RSET", "250")
			c.cmd("MAIL FROM:<a@b.example>", "250")
			guess(c)
		}},
		{"EHLO", func(c *dialog) {
			c.cmd("EHLO again", "250")
			c.cmd("MAIL FROM:<a@b.example>", "250")
			guess(c)
		}},
		{"DATA", func(c *dialog) {
			c.cmd("DATA", "554 5.5.1")
			guess(c)
		}},
		{"sender", func(c *dialog) {
			c.cmd("RSET", "250")
			c.cmd("MAIL FROM:<refused@b.example>", "250") // the server is asked when there is a recipient
			guess(c)
		}},
		{"relay", func(c *dialog) { c.send("RCPT TO:<a@relay.example>\r\n") }},
	} {
		for _, pipelining := range []string{"PIPELINING", "DSN"} {
			t.Run(tt.name+" "+pipelining, func(t *testing.T) {
				b := testenv.StartBackend(t)
				b.Extend(pipelining)
				b.Answer(func(a testenv.Asked) string {
					return onVerb(a, "RCPT", "550 5.1.1 Unknown") + onLine(a, "MAIL FROM:<refused", "553 5.1.8 No")
				})
				p := startProxy(t, behind(b), "--max-refusals=5", "--clientip-dir", t.TempDir(), "--clientip-scope=relay", "--local-domains=d.example b.example")
				c := greeted(t, p.addr)
				c.cmd("MAIL FROM:<a@b.example>", "250")
				for range 5 {
					tt.round(c)
					if r := c.expect("55"); r.Code == 503 {
						t.Fatalf("reply %q", r)
					}
				}
				c.expect("421 4.7.0 proxy.example ")
				c.expectEnd()
				if tt.name == "one transaction" && p.metrics.gates[gateRefusals].Load() != 1 {
					t.Error("the gate was not counted")
				}
			})
		}
	}
}

// TestHarvestPipelined: guesses in one write are cut short as well; the server's other answers are not told.
func TestHarvestPipelined(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Answer(func(a testenv.Asked) string { return onVerb(a, "RCPT", "550 5.1.1 Unknown") })
	p := startProxy(t, behind(b), "--max-refusals=5")
	c := greeted(t, p.addr)
	c.send("MAIL FROM:<a@b.example>\r\n" + strings.Repeat("RCPT TO:<guess@d.example>\r\n", 40) + "DATA\r\n")
	c.expect("250")
	for range 5 {
		c.expect("550 5.1.1")
	}
	c.expect("421 4.7.0 proxy.example ")
	c.expectEnd()
}

// TestUnknownAmongGood: a message of whose recipients more are unknown than a session may be refused reaches those who were
// taken, and its client learns of no others before. Without that message the session ends.
func TestUnknownAmongGood(t *testing.T) {
	t.Parallel()
	for _, pipelining := range []string{"PIPELINING", "DSN"} {
		b := testenv.StartBackend(t)
		b.Extend(pipelining)
		b.Answer(func(a testenv.Asked) string {
			return onLine(a, "RCPT TO:<guess", "550 5.1.1 Unknown")
		})
		p := startProxy(t, behind(b), "--max-refusals=5", "--error-delay=1ms")
		guesses := func() *dialog {
			c := greeted(t, p.addr)
			c.envelope()
			for range 5 {
				c.cmd("RCPT TO:<guess@d.example>", "550 5.1.1")
			}
			c.cmd("RCPT TO:<guess@d.example>", "452 4.5.3")
			c.cmd("RCPT TO:<good@d.example>", "452 4.5.3")
			return c
		}
		c := guesses()
		c.cmd("DATA", "354")
		c.send(smallMessage)
		c.expect("250")
		c.envelope()
		c.cmd("RCPT TO:<guess@d.example>", "550 5.1.1")
		if got := b.Messages(); len(got) != 1 || len(got[0].To) != 1 {
			t.Errorf("%s: the server has %v", pipelining, got)
		}
		if n := p.metrics.gates[gateRefusals].Load(); n != 2 {
			t.Errorf("%s: the gate was counted %d times, want 2", pipelining, n)
		}
		for _, end := range []string{"RSET", "EHLO again"} {
			c := guesses()
			c.cmd(end, "250")
			c.expect("421 4.7.0 proxy.example ")
			c.expectEnd()
		}
	}
}

// TestUnknownInMailingList: a message to a thousand recipients goes through at once even if some of them are unknown, more
// than a session without others may name.
func TestUnknownInMailingList(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Answer(func(a testenv.Asked) string { return onLine(a, "RCPT TO:<gone", "550 5.1.1 Unknown") })
	p := startProxy(t, behind(b), "--error-delay=1ms")
	c := greeted(t, p.addr)
	var all strings.Builder
	name := func(i int) string {
		if i%40 == 39 {
			return "gone"
		}
		return "here"
	}
	for i := range 1000 {
		fmt.Fprintf(&all, "RCPT TO:<%s%d@d.example>\r\n", name(i), i)
	}
	c.send("MAIL FROM:<a@b.example>\r\n" + all.String() + "DATA\r\n")
	c.expect("250")
	for i := range 1000 {
		if name(i) == "gone" {
			c.expect("550 5.1.1")
		} else {
			c.expect("250 2.1.5")
		}
	}
	c.expect("354")
	c.send(smallMessage)
	c.expect("250")
	if got := b.Messages(); len(got) != 1 || len(got[0].To) != 975 {
		t.Errorf("the server has %d messages", len(got))
	}
}

// TestJunkBetweenMails: MAIL alone moves nothing forward.
func TestJunkBetweenMails(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--max-junk=5")
	c := greeted(t, p.addr)
	for range 5 {
		c.cmd("MAIL FROM:<a@b.example>", "250")
		c.cmd("RSET", "250")
	}
	c.expect("421 4.7.0 proxy.example ")
	c.expectEnd()
}

// TestMailForgives: a message that the server took makes up for what was wrong before.
func TestMailForgives(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Answer(func(a testenv.Asked) string { return onLine(a, "RCPT TO:<guess", "550 5.1.1 Unknown") })
	p := startProxy(t, behind(b), "--max-junk=3", "--max-errors=3", "--max-refusals=3")
	c := greeted(t, p.addr)
	for range 5 {
		for range 2 {
			c.cmd("NOOP", "250")
			c.cmd("XYZZY", "500")
		}
		c.envelope()
		c.cmd("RCPT TO:<guess@d.example>", "550")
		c.cmd("RCPT TO:<guess@d.example>", "550")
		c.cmd("DATA", "354")
		c.send(smallMessage)
		c.expect("250")
	}
}

// TestErrorsSlowDown: behind half of the limit each error is paid for with time.
func TestErrorsSlowDown(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Answer(func(a testenv.Asked) string { return onVerb(a, "RCPT", "550 5.1.1 Unknown") })
	p := startProxy(t, behind(b), "--max-refusals=6", "--max-errors=6", "--error-delay=50ms")
	for _, line := range []string{"XYZZY", "RCPT TO:<guess@d.example>"} {
		c := greeted(t, p.addr)
		c.cmd("MAIL FROM:<a@b.example>", "250")
		began := time.Now()
		for range 6 {
			c.cmd(line, "5")
		}
		if took := time.Since(began); took < 100*time.Millisecond {
			t.Errorf("six times %s took %v", line, took)
		}
		c.expect("421 4.7.0")
		c.expectEnd()
	}
}

// TestNoEndlessQuestions: what is answered for now, and costs the filter or the server a question each time, has an
// end, too.
func TestNoEndlessQuestions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, verb, answer string
		round              func(c *dialog)
		more               int // replies, besides the one or two that end a round
	}{
		{"names for now", "helook", "ok -1 Later 450 4.7.0 0", func(c *dialog) { c.send("EHLO a\r\n") }, 0},
		{"names for good", "helook", "ok 0 No 550 5.7.0 0", func(c *dialog) { c.send("EHLO a\r\n") }, 0},
		{"senders for now", "senderok", "ok -1 Later 450 4.7.0 0", func(c *dialog) { c.send("MAIL FROM:<a@b.example>\r\n") }, 0},
		{"senders for good", "senderok", "ok 0 No 550 5.7.0 0", func(c *dialog) { c.send("MAIL FROM:<a@b.example>\r\n") }, 0},
		{"DATA for now", "DATA", "", func(c *dialog) {
			c.send("MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
			c.expect("250")
			c.expect("250")
		}, 0},
		{"recipients beyond all bounds", "RCPT", "", func(c *dialog) {
			c.send("MAIL FROM:<a@b.example>\r\n" + strings.Repeat("RCPT TO:<c@d.example>\r\n", 60))
			c.expect("250")
			for range 20 {
				c.expect("452")
			}
		}, 40},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := testenv.StartBackend(t)
			b.Answer(func(a testenv.Asked) string {
				if a.Verb == tt.verb {
					return "452 4.0.0 Later"
				}
				return ""
			})
			m := startMultiplexor(t, func(words []string) string {
				if words[0] == tt.verb {
					return tt.answer + "\n"
				}
				return "ok 1\n"
			})
			p := startProxy(t, append(m.args(behind(b), "--max-recipients=10", "--max-junk=8", "--max-refusals=8"), "--scan=no", "--recipok=no")...)
			if tt.answer == "" {
				p = startProxy(t, behind(b), "--max-recipients=10", "--max-junk=8")
			}
			c := dial(t, p.addr)
			c.expect("220")
			if tt.verb != "helook" {
				c.cmd("EHLO a", "250")
			}
			for range 20 {
				tt.round(c)
				for i := 0; i <= tt.more || c.r.Buffered() > 0; i++ {
					if r := c.expect(""); r.Code == 421 {
						c.expectEnd()
						return
					}
				}
			}
			t.Error("the session goes on")
		})
	}
}
