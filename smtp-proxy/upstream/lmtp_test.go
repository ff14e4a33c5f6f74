package upstream

import (
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"postern/internal/smtp"
	"postern/internal/testenv"
)

// lmtpPeer is an LMTP server on a UNIX socket. It refuses recipients that begin with "no", and says end to the
// recipients it took, in order.
func lmtpPeer(t *testing.T, end ...string) *peer {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(testenv.ShortDir(t), "lmtp"))
	if err != nil {
		t.Fatal(err)
	}
	return servePeer(t, l, func(c *peerConn) {
		c.say("220 a LMTP\r\n")
		taken := 0
		for {
			line := c.line()
			switch verb, rest, _ := strings.Cut(line, " "); verb {
			case "":
				return
			case "LHLO":
				c.say("250-a\r\n250-PIPELINING\r\n250 ENHANCEDSTATUSCODES\r\n")
			case "MAIL", "RSET":
				taken = 0
				c.say("250 2.1.0 Ok\r\n")
			case "RCPT":
				if strings.HasPrefix(rest, "TO:<no") {
					c.say("550 5.1.1 Unknown\r\n")
					continue
				}
				taken++
				c.say("250 2.1.5 Ok\r\n")
			case "DATA":
				if taken == 0 {
					c.say("503 5.5.1 No recipients\r\n")
					continue
				}
				c.say("354 Go\r\n")
				if _, ok := c.content(); !ok {
					return
				}
				c.say(strings.Join(end[:taken], ""))
			default:
				c.say("502 5.5.1 What\r\n")
			}
		}
	})
}

func (p *peer) lmtpURL() string { return "lmtp:" + p.l.Addr().String() }

// One recipient is one message: the others are answered for the server, in order, also in a pipeline, and the
// server never hears of them.
func TestLMTPOneRecipient(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		rcpts []string
		codes []int
		end   string
		code  int
		heard int // RCPT commands
	}{
		{"one", []string{"a"}, []int{250}, "250 2.0.0 Saved\r\n", 250, 1},
		{"three", []string{"a", "b", "c"}, []int{250, 452, 452}, "250 2.0.0 Saved\r\n", 250, 1},
		{"first unknown", []string{"no1", "b", "c"}, []int{550, 250, 452}, "452 4.2.2 Full\r\n", 452, 2},
		{"last known", []string{"no1", "no2", "c"}, []int{550, 550, 250}, "552 5.2.2 Full\r\n", 552, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := lmtpPeer(t, test.end)
			set := newSet(t, Config{URLs: []string{p.lmtpURL()}})
			c := get(t, set, Client{})
			if n := c.Capabilities().RcptMax; n != 1 {
				t.Errorf("RcptMax is %d", n)
			}
			for range 2 { // and the second message on the connection goes like the first
				commands := []string{"MAIL FROM:<x@a.test>"}
				for _, r := range test.rcpts {
					commands = append(commands, "RCPT TO:<"+r+"@b.test>")
				}
				codes := slices.Concat([]int{250}, test.codes, []int{354})
				say(t, c, append(commands, "DATA"), codes...)
				if _, err := c.Content().Write([]byte("x\r\n")); err != nil {
					t.Fatal(err)
				}
				if err := c.EndContent(); err != nil {
					t.Fatal(err)
				}
				if r, err := c.Reply(testenv.Patience); err != nil || r.Code != test.code {
					t.Errorf("got %v, %v; want %d", r, err, test.code)
				}
			}
			n := 0
			for _, line := range p.lines() {
				if strings.HasPrefix(line, "RCPT") {
					n++
				}
			}
			if n != 2*test.heard {
				t.Errorf("server heard of %d recipients, want %d", n, 2*test.heard)
			}
			c.Release()
			if set.Stats()[0].Idle != 1 {
				t.Errorf("%+v", set.Stats())
			}
		})
	}
}

func TestLMTPNoRecipient(t *testing.T) {
	t.Parallel()
	p := lmtpPeer(t)
	c := get(t, newSet(t, Config{URLs: []string{p.lmtpURL()}}), Client{})
	defer c.Release()
	say(t, c, []string{"MAIL FROM:<x@a.test>", "RCPT TO:<no@b.test>", "DATA"}, 250, 550, 503)
}

// With more recipients the answers to them become one.
func TestLMTPMerge(t *testing.T) {
	t.Parallel()
	const good, later, never = "250 2.0.0 Saved\r\n", "452 4.2.2 Full\r\n", "550 5.2.1 Gone\r\n"
	for _, test := range []struct {
		name string
		end  []string
		want string
	}{
		{"all", []string{good, good, good}, "250 2.0.0 Saved"},
		{"none, later", []string{never, later, never}, "452 4.2.2 Full"},
		{"none, never", []string{never, never, never}, "550 5.2.1 Gone"},
		{"some, later", []string{good, later, never}, "451 4.3.0 Message is not delivered to all recipients, try again later"},
		{"some, never", []string{good, never, good}, "550 5.2.1 Gone"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := lmtpPeer(t, test.end...)
			set := newSet(t, Config{URLs: []string{p.lmtpURL()}, LMTPRecipients: 3})
			c := get(t, set, Client{})
			say(t, c, []string{"MAIL FROM:<x@a.test>", "RCPT TO:<a@b.test>", "RCPT TO:<no@b.test>", "RCPT TO:<b@b.test>", "RCPT TO:<c@b.test>", "RCPT TO:<d@b.test>", "DATA"},
				250, 250, 550, 250, 250, 452, 354)
			if err := c.EndContent(); err != nil {
				t.Fatal(err)
			}
			if r, err := c.Reply(testenv.Patience); err != nil || r.String() != test.want {
				t.Errorf("got %v, %v; want %s", r, err, test.want)
			}
			c.Release()
			if set.Stats()[0].Idle != 1 {
				t.Errorf("%+v", set.Stats())
			}
		})
	}
	t.Run("an answer is missing", func(t *testing.T) {
		p := lmtpPeer(t, good, "")
		set := newSet(t, Config{URLs: []string{p.lmtpURL()}, LMTPRecipients: 3})
		c := get(t, set, Client{})
		say(t, c, []string{"MAIL FROM:<x@a.test>", "RCPT TO:<a@b.test>", "RCPT TO:<b@b.test>", "DATA"}, 250, 250, 250, 354)
		if err := c.EndContent(); err != nil {
			t.Fatal(err)
		}
		_, err := c.Reply(second / 5)
		failed(t, err, 451, "4.4.2")
		unusable(t, set, c)
	})
	if r, n := mergeReplies([]smtp.Reply{smtp.NewReply(250, "", "a"), smtp.NewReply(251, "", "b")}); r.Code != 250 || n != 2 {
		t.Errorf("%v, %d", r, n)
	}
}
