package upstream

import (
	"context"
	"errors"
	"strings"
	"testing"

	"postern/internal/smtp"
	"postern/internal/testenv"
)

var envelope = []string{"MAIL FROM:<a@a.test>", "RCPT TO:<b@b.test>", "DATA"}

// CMD-25: what a server offers and this package does not know is not there; values are checked.
func TestCMD_25_OnlyKnownKeywordsAreBelieved(t *testing.T) {
	t.Parallel()
	p := startPeer(t, func(c *peerConn) {
		c.serve(replies{ehlo: "250-SIZE 5\r\n250-XCLIENT NAME ADDR\r\n250-XFORWARD NAME\r\n250-STARTTLS\r\n" +
			"250-AUTH PLAIN LOGIN BAD\x01MECH x_y TOO-LONG-TO-BE-A-MECHANISM\r\n250-AUTH=CRAM-MD5 PLAIN\r\n250-CHUNKING\r\n" +
			"250-BURL imap\r\n250-ETRN\r\n250-X-FOO\r\n250-250-CRLF tricks\r\n250-size 99999999999999999999\r\n" +
			"250-8bitmime\r\n250 LIMITS RCPTMAX=20 MAILMAX=-1 MAILMAX=x\r\n"})
	})
	set := newSet(t, Config{URLs: []string{p.url()}})
	got, err := set.Capabilities(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	want := Capabilities{
		EightBitMIME: true, Chunking: true, StartTLS: true, RcptMax: 20,
		Auth: []string{"PLAIN", "LOGIN", "X_Y", "CRAM-MD5"},
	}
	if !got.equal(want) {
		t.Errorf("capabilities are %+v, want %+v", got, want)
	}
}

// CMD-26: a reply that cannot be read ends the connection, with 451 for the client.
func TestCMD_26_RepliesThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, reply string }{
		{"mixed codes", "250-a\r\n550 b\r\n"},
		{"no code", "hello\r\n"},
		{"code 999", "999 a\r\n"},
		{"code 150", "150 a\r\n"},
		{"10000 lines", strings.Repeat("250-x\r\n", 10000) + "250 x\r\n"},
		{"a line of 1 MiB", "250 " + strings.Repeat("x", 1<<20) + "\r\n"},
		{"334 to MAIL", "334 go on\r\n"},
		{"354 to MAIL", "354 go on\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := startPeer(t, func(c *peerConn) { c.serve(replies{mail: test.reply}) })
			set := newSet(t, Config{URLs: []string{p.url()}})
			c := get(t, set, Client{})
			c.Command(envelope[0])
			_, err := c.Reply(testenv.Patience)
			failed(t, err, 451, "4.3.0")
			if _, again := c.Reply(testenv.Patience); !errors.Is(again, err) {
				t.Errorf("the error does not stay: %v", again)
			}
			unusable(t, set, c)
		})
	}
	t.Run("control bytes", func(t *testing.T) {
		p := startPeer(t, func(c *peerConn) { c.serve(replies{mail: "550-a\x1b[2J\r\n550 b\x00c\rd\r\n"}) })
		c := get(t, newSet(t, Config{URLs: []string{p.url()}}), Client{})
		defer c.Release()
		c.Command(envelope[0])
		r, err := c.Reply(testenv.Patience)
		if err != nil || r.Text() != "a?[2J b?c?d" {
			t.Errorf("got %v, %v", r, err)
		}
	})
}

// CMD-27: a reply too many is found, and the connection is never used for the next command.
func TestCMD_27_ConnectionOutOfStepIsNotUsed(t *testing.T) {
	t.Parallel()
	t.Run("two for one command", func(t *testing.T) {
		p := startPeer(t, func(c *peerConn) { c.serve(replies{mail: "250 Ok\r\n250 Ok\r\n"}) })
		set := newSet(t, Config{URLs: []string{p.url()}})
		c := get(t, set, Client{})
		c.Command(envelope[0])
		_, err := c.Reply(testenv.Patience)
		if err == nil { // the second one came late
			c.Command(envelope[1])
			_, err = c.Reply(testenv.Patience)
		}
		failed(t, err, 451, "4.3.0")
		unusable(t, set, c)
	})
	t.Run("too many in a pipeline", func(t *testing.T) {
		p := startPeer(t, func(c *peerConn) { c.serve(replies{mail: "250 Ok\r\n250 Ok\r\n"}) })
		set := newSet(t, Config{URLs: []string{p.url()}})
		c := get(t, set, Client{})
		for _, line := range envelope {
			c.Command(line)
		}
		for range 2 {
			if _, err := c.Reply(testenv.Patience); err != nil {
				t.Fatal(err)
			}
		}
		_, err := c.Reply(testenv.Patience) // 250 to DATA
		failed(t, err, 451, "4.3.0")
		unusable(t, set, c)
	})
	t.Run("behind the reply to a message", func(t *testing.T) {
		p := startPeer(t, func(c *peerConn) { c.serve(replies{end: "250 Ok: queued as Q1\r\n550 or not\r\n"}) })
		set := newSet(t, Config{URLs: []string{p.url()}})
		c := get(t, set, Client{})
		if code, id := send(t, c, "a@a.test", "b@b.test", "x\r\n"); code != 250 || id != "Q1" {
			t.Errorf("code %d, id %q: what was said first counts", code, id)
		}
		unusableOrTaken(t, set, c, p)
	})
	t.Run("while idle", func(t *testing.T) {
		say := make(chan bool)
		said := make(chan bool)
		p := startPeer(t, func(c *peerConn) {
			if c.n == 0 {
				go func() {
					<-say
					c.say("421 4.4.2 Timeout\r\n")
					close(said)
				}()
			}
			c.serve(replies{})
		})
		set := newSet(t, Config{URLs: []string{p.url()}})
		get(t, set, Client{}).Release()
		close(say)
		testenv.Receive(t, "the 421 of the server", said)
		c := get(t, set, Client{})
		defer c.Release()
		if code, _ := send(t, c, "a@a.test", "b@b.test", "x\r\n"); code != 250 || p.count() != 2 {
			t.Errorf("code %d on %d connections", code, p.count())
		}
	})
	t.Run("between commands", func(t *testing.T) {
		p := startPeer(t, func(c *peerConn) { c.serve(replies{mail: "250 Ok\r\n"}) })
		set := newSet(t, Config{URLs: []string{p.url()}})
		c := get(t, set, Client{})
		say(t, c, envelope[:1], 250)
		p.surprise("250 surprise\r\n")
		c.Command(envelope[1])
		failed(t, c.Flush(), 451, "4.3.0")
		if p.told("RCPT") {
			t.Error("RCPT was sent")
		}
		unusable(t, set, c)
	})
	t.Run("in front of DATA", func(t *testing.T) {
		// What follows a 354 that was said too early is a command to a server that refuses DATA.
		p := startPeer(t, good)
		set := newSet(t, Config{URLs: []string{p.url()}})
		c := get(t, set, Client{})
		say(t, c, envelope[:2], 250, 250)
		p.surprise("354 Go on\r\n")
		c.Command(envelope[2])
		failed(t, c.Flush(), 451, "4.3.0")
		if p.told("DATA") {
			t.Error("DATA was sent")
		}
		unusable(t, set, c)
	})
	t.Run("kept, without pipelining", func(t *testing.T) {
		p := startPeer(t, func(c *peerConn) { c.serve(replies{ehlo: "250 peer.test\r\n"}) })
		set := newSet(t, Config{URLs: []string{p.url()}})
		get(t, set, Client{}).Release()
		c := get(t, set, Client{}) // RSET has its reply
		p.surprise("250 surprise\r\n")
		c.Command(envelope[0])
		failed(t, c.Flush(), 451, "4.3.0")
		if p.told("MAIL") {
			t.Error("MAIL was sent")
		}
		unusable(t, set, c)
	})
	t.Run("kept, and waiting for a filter", func(t *testing.T) {
		p := startPeer(t, good)
		set := newSet(t, Config{URLs: []string{p.url()}})
		get(t, set, Client{}).Release()
		c := get(t, set, Client{})
		c.Command(envelope[0])
		p.surprise("250 surprise\r\n")
		c.looked = c.looked.Add(-lookTime)
		failed(t, c.Flush(), 451, "4.3.0")
		if p.told("MAIL") {
			t.Error("MAIL was sent")
		}
		unusable(t, set, c)
	})
}

// unusableOrTaken wants that nobody gets to read what is left on a connection.
func unusableOrTaken(t *testing.T, set *Set, c *Conn, p *peer) {
	t.Helper()
	c.Release()
	next := get(t, set, Client{})
	defer next.Release()
	say(t, next, envelope[:1], 250)
	if p.count() != 2 {
		t.Errorf("%d connections, want 2", p.count())
	}
}

// CMD-28: trouble with the server is never more than temporary.
func TestCMD_28_TroubleIsTemporary(t *testing.T) {
	t.Parallel()
	const runsOut = "4.4.2, when the time has run out"
	for _, test := range []struct {
		name     string
		handle   func(c *peerConn)
		enhanced string
	}{
		{"greeting 554", func(c *peerConn) { c.serve(replies{greeting: "554 go away\r\n"}) }, "4.4.1"},
		{"greeting 421", func(c *peerConn) { c.serve(replies{greeting: "421 busy\r\n"}) }, "4.4.1"},
		{"greeting 250", func(c *peerConn) { c.serve(replies{greeting: "250 hello\r\n"}) }, "4.4.1"},
		{"greeting is no SMTP", func(c *peerConn) { c.serve(replies{greeting: "SSH-2.0-OpenSSH\r\n"}) }, "4.3.0"},
		{"two greetings", func(c *peerConn) { c.serve(replies{greeting: "220 a\r\n220 b\r\n"}) }, "4.3.0"},
		{"closed", func(*peerConn) {}, "4.4.2"},
		{"silent", func(c *peerConn) { c.line() }, runsOut},
		{"EHLO and HELO refused", func(c *peerConn) { c.serve(replies{ehlo: "502 no\r\n", other: "502 no\r\n"}) }, "4.4.1"},
		{"EHLO refused for now", func(c *peerConn) { c.serve(replies{ehlo: "450 no\r\n"}) }, "4.4.1"},
		{"EHLO without answer", func(c *peerConn) { c.say("220 a\r\n"); c.line() }, runsOut},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := startPeer(t, test.handle)
			limit := testenv.Patience
			if test.enhanced == runsOut {
				limit, test.enhanced = second/4, "4.4.2"
			}
			set := newSet(t, Config{URLs: []string{p.url()}, HelloTimeout: limit})
			r, err := getError(t, set, Client{})
			if r.Enhanced != test.enhanced {
				t.Errorf("reply for the client is %v, want %s (%v)", r, test.enhanced, err)
			}
			if set.Stats()[0].Open != 0 {
				t.Error("a connection is left")
			}
		})
	}
	t.Run("EHLO unknown", func(t *testing.T) {
		p := startPeer(t, func(c *peerConn) { c.serve(replies{ehlo: "500 what\r\n"}) })
		c := get(t, newSet(t, Config{URLs: []string{p.url()}, Helo: "proxy.test"}), Client{})
		defer c.Release()
		if !p.told("HELO proxy.test") || !c.Capabilities().equal(Capabilities{}) {
			t.Errorf("heard %q, capabilities %+v", p.lines(), c.Capabilities())
		}
		say(t, c, []string{envelope[0]}, 250)
	})
	t.Run("dies after 354", func(t *testing.T) {
		p := startPeer(t, func(c *peerConn) {
			c.serve(replies{data: "354 go on\r\n"})
		})
		set := newSet(t, Config{URLs: []string{p.url()}})
		c := get(t, set, Client{})
		say(t, c, envelope, 250, 250, 354)
		p.mu.Lock()
		_ = p.conns[0].Close()
		p.mu.Unlock()
		failed(t, writeOut(c), 451, "4.4.2")
		unusable(t, set, c)
	})
	t.Run("dies before its reply", func(t *testing.T) {
		p := startPeer(t, func(c *peerConn) {
			c.say("220 a\r\n")
			c.line()
			c.say(goodEhlo)
			for range 3 {
				c.line()
			}
			c.say("250 a\r\n250 b\r\n354 c\r\n")
			c.content()
			c.say("250-2.0.0 Ok: que") // a reply counts when it is complete: INV-05
		})
		set := newSet(t, Config{URLs: []string{p.url()}})
		c := get(t, set, Client{})
		say(t, c, envelope, 250, 250, 354)
		if err := writeOut(c); err != nil {
			t.Fatal(err)
		}
		_, err := c.Reply(testenv.Patience)
		failed(t, err, 451, "4.4.2")
		unusable(t, set, c)
	})
	t.Run("stalls", func(t *testing.T) {
		p := startPeer(t, func(c *peerConn) { c.serve(replies{end: "250-wait for it\r\n"}) })
		set := newSet(t, Config{URLs: []string{p.url()}})
		c := get(t, set, Client{})
		say(t, c, envelope, 250, 250, 354)
		if err := writeOut(c); err != nil {
			t.Fatal(err)
		}
		_, err := c.Reply(second / 10)
		failed(t, err, 451, "4.4.2")
		unusable(t, set, c)
	})
}

// writeOut sends content until it is complete or fails.
func writeOut(c *Conn) error {
	for range 1000 {
		if _, err := c.Content().Write([]byte(strings.Repeat("some content\r\n", 100))); err != nil {
			return err
		}
	}
	return c.EndContent()
}

// SMG-27: what a server says before it has got all cannot accept the message.
func TestSMG_27_ReplyBeforeTheEndAcceptsNothing(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, reply string
		code        int
		enhanced    string
	}{
		{"accepted", "250 2.0.0 Ok: queued\r\n", 451, "4.3.0"},
		{"354 again", "354 go on\r\n", 451, "4.3.0"},
		{"garbage", "what?\r\n", 451, "4.3.0"},
		{"too large", "552 5.3.4 too large\r\n", 552, "5.3.4"},
		{"shutting down", "421 4.3.2 bye\r\n", 421, "4.3.2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			said := make(chan bool)
			p := startPeer(t, func(c *peerConn) {
				c.say("220 a\r\n")
				c.line()
				c.say(goodEhlo)
				for range 3 {
					c.line()
				}
				c.say("250 a\r\n250 b\r\n354 c\r\n")
				c.line()
				c.say(test.reply)
				close(said)
				if _, ok := c.content(); ok {
					t.Error("the end of data was sent")
				}
			})
			set := newSet(t, Config{URLs: []string{p.url()}})
			c := get(t, set, Client{})
			say(t, c, envelope, 250, 250, 354)
			if _, err := c.Content().Write([]byte(strings.Repeat("x", 70000) + "\r\n.\r\nfirst line\r\n")); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Content().Write([]byte(strings.Repeat("more\r\n", 20000))); err != nil {
				t.Fatal(err)
			}
			testenv.Receive(t, "the reply of the server", said)
			err := c.EndContent()
			failed(t, err, test.code, test.enhanced)
			unusable(t, set, c)
			p.stop()
		})
	}
}

// The order of things is kept: what the caller must not do is an error, and nothing of it is sent.
func TestMisuse(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		do   func(c *Conn) error
	}{
		{"two lines", func(c *Conn) error { c.Command("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>"); return c.Flush() }},
		{"bare LF", func(c *Conn) error { c.Command("MAIL FROM:<a@b>\nX"); return c.Flush() }},
		{"NUL", func(c *Conn) error { c.Command("MAIL FROM:<a\x00@b>"); return c.Flush() }},
		{"command behind DATA", func(c *Conn) error { c.Command("DATA"); c.Command("RSET"); return c.Flush() }},
		{"reply without command", func(c *Conn) error { _, err := c.Reply(testenv.Patience); return err }},
		{"content without DATA", func(c *Conn) error { _, err := c.Content().Write([]byte("x")); return err }},
		{"end without DATA", func(c *Conn) error { return c.EndContent() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := startPeer(t, good)
			set := newSet(t, Config{URLs: []string{p.url()}})
			c := get(t, set, Client{})
			if err := test.do(c); !errors.Is(err, ErrMisuse) {
				t.Errorf("error is %v", err)
			}
			unusable(t, set, c)
			if lines := p.lines(); len(lines) != 1 {
				t.Errorf("server heard %q", lines)
			}
		})
	}
}

// Commands go out in one write, and replies come back in order.
func TestPipeline(t *testing.T) {
	t.Parallel()
	p := startPeer(t, func(c *peerConn) { c.serve(replies{rcpt: "550 5.1.1 no\r\n", data: "554 5.5.1 no recipients\r\n"}) })
	set := newSet(t, Config{URLs: []string{p.url()}})
	c := get(t, set, Client{})
	say(t, c, []string{envelope[0], envelope[1], "RCPT TO:<c@c.test>", "DATA"}, 250, 550, 550, 554)
	say(t, c, []string{"RSET", "NOOP"}, 250, 250)
	if c.stream.r != nil || c.stream.out != nil {
		t.Error("buffers are held while nothing is in them")
	}
	code, _ := send2(t, c)
	if code != 550 {
		t.Errorf("code %d", code)
	}
	c.Release()
}

// A server that does not pipeline gets a command when it has answered the one before.
func TestNoPipeline(t *testing.T) {
	t.Parallel()
	p := startPeer(t, func(c *peerConn) {
		c.say("220 a\r\n")
		for {
			line := c.line()
			if c.r.Buffered() > 0 {
				c.say("500 5.5.1 Pipelining not supported\r\n") // OpenSMTPD 6.8 does so
				return
			}
			switch {
			case line == "":
				return
			case line == "DATA":
				c.say("354 go\r\n")
				c.content()
				c.say("250 Ok\r\n")
			default:
				c.say("250 Ok\r\n")
			}
		}
	})
	set := newSet(t, Config{URLs: []string{p.url()}})
	for range 2 {
		c := get(t, set, Client{})
		if code, _ := send(t, c, "a@a.test", "b@b.test", "x\r\n"); code != 250 {
			t.Errorf("code %d", code)
		}
		c.Release()
	}
	if p.count() != 1 {
		t.Errorf("%d connections, want 1", p.count())
	}
}

// send2 sends MAIL and RCPT, and gives the reply to RCPT.
func send2(t *testing.T, c *Conn) (int, string) {
	t.Helper()
	c.Command(envelope[0])
	c.Command(envelope[1])
	if _, err := c.Reply(testenv.Patience); err != nil {
		t.Fatal(err)
	}
	r, err := c.Reply(testenv.Patience)
	if err != nil {
		t.Fatal(err)
	}
	return r.Code, r.Enhanced
}

func TestQueueID(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"Ok: queued as 4XyZ123":                                       "4XyZ123",
		"OK id=1tE7xX-0000000001-abcd":                                "1tE7xX-0000000001-abcd",
		"5BMAxxxx012345 Message accepted for delivery":                "5BMAxxxx012345",
		"<b@b.test> QmF+YWFhYWFhYWE Saved":                            "QmF+YWFhYWFhYWE",
		"<id@host> [InternalId=12345, Hostname=x] Queued mail for it": "12345",
		"OK  1700000000 d2e1a72fcca58-7.45 - gsmtp":                   "d2e1a72fcca58-7.45",
		"Ok":                   "",
		"queued as":            "",
		"Ok: queued as \u00fc": "",
		"Ok: queued as " + strings.Repeat("x", 200): "",
	} {
		if got := QueueID(smtp.NewReply(250, "2.0.0", text)); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	if got := QueueID(smtp.NewReply(450, "4.0.0", "queued as X")); got != "" {
		t.Errorf("of a refusal: %q", got)
	}
}
