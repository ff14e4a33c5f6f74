package test

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"postern/internal/testenv"
)

// serverBehind is a real mail server, with a mailbox for bob and eve at example.net.
type serverBehind struct {
	url       string
	delivered func() []string
	process   func() *testenv.Process
	start     func() // again
	log       func() string
	args      []string // more for the proxy
}

// end ends the server with all that it has started, which is a process group of its own: some servers leave it to those
// who serve a connection to go on.
func (s *serverBehind) end(t *testing.T, sig syscall.Signal) {
	t.Helper()
	p := s.process()
	if err := syscall.Kill(-p.Pid(), sig); err != nil {
		t.Fatal(err)
	}
	p.Wait()
}

// peerServers are the next hops, and the code with which each refuses an unknown recipient.
var peerServers = []struct {
	name    string
	unknown int
	start   func(t *testing.T) *serverBehind
}{
	{"Postfix", 550, func(t *testing.T) *serverBehind {
		m := testenv.StartPostfix(t, knownMailboxes+"smtpd_authorized_xclient_hosts = 127.0.0.0/8", "")
		return &serverBehind{"smtp://" + m.Address(), m.Delivered, func() *testenv.Process { return m.Process }, m.Start, m.Log,
			[]string{"--upstream-client-ip", "xclient"}}
	}},
	{"Exim", 550, func(t *testing.T) *serverBehind {
		s := testenv.StartExim(t, testenv.FreePort(t), "")
		return &serverBehind{"smtp://" + s.Address(), s.Delivered, func() *testenv.Process { return s.Process }, s.Start, s.Log, nil}
	}},
	{"OpenSMTPD", 550, func(t *testing.T) *serverBehind {
		s := testenv.StartOpenSMTPD(t)
		return &serverBehind{"smtp://" + s.Address(), s.Delivered, func() *testenv.Process { return s.Process }, s.Start, nil, nil}
	}},
	{"Dovecot LMTP", 550, func(t *testing.T) *serverBehind {
		s := testenv.StartLMTP(t)
		return &serverBehind{"lmtp:" + s.Socket, s.Delivered, func() *testenv.Process { return s.Process }, s.Start, s.Log, nil}
	}},
}

// knownMailboxes has Postfix refuse whom it does not know.
const knownMailboxes = "virtual_mailbox_maps = inline:{ {bob@example.net=Maildir/}, {eve@example.net=Maildir/} }\n"

// TestRealServersBehind has real servers take what comes through the proxy.
func TestRealServersBehind(t *testing.T) {
	t.Parallel()
	for _, peer := range peerServers {
		t.Run(peer.name, func(t *testing.T) {
			t.Parallel()
			s := peer.start(t)
			d := startFrontDoor(t, s.url, s.args...).await()
			s.takesMessages(t, d)
			s.refusesUnknown(t, d, peer.unknown)
			s.goesDown(t, d)
			s.diesWithinContent(t, d)
			d.stop()
		})
	}
}

// takesMessages sends a short and a long message on one connection.
func (s *serverBehind) takesMessages(t *testing.T, d *frontDoor) {
	t.Helper()
	c := startTalk(t, "127.0.0.3", d.address())
	for _, size := range []int{4 << 10, 5 << 20} {
		subject := fmt.Sprintf("size-%d", size)
		message := messageOfSize(subject, size)
		if code, text := c.offer(message); code != 250 {
			t.Fatalf("message of %d bytes: %d %s", size, code, text)
		}
		s.hasOnce(t, subject, message)
	}
	c.say("QUIT", 221)
	if len(s.args) > 0 {
		testenv.Eventually(t, "the client's address, 127.0.0.3, in the server's log", func() bool { return strings.Contains(s.log(), "[127.0.0.3]") })
	}
}

// hasOnce waits for a message, and sees that the server has it once and as it was sent, below its own fields and ours.
func (s *serverBehind) hasOnce(t *testing.T, subject, message string) {
	t.Helper()
	testenv.Eventually(t, "delivery of "+subject, func() bool { return s.count(subject) > 0 })
	if n := s.count(subject); n != 1 {
		t.Fatalf("message %s was delivered %d times", subject, n)
	}
	for _, got := range s.delivered() {
		if !hasSubject(got, subject) {
			continue
		}
		from := strings.Index(got, "\nFrom: Ann") + 1
		if n := strings.Count(got[:from], "by proxy.example.org (Postern)"); n != 1 {
			t.Errorf("message %s has %d Received fields of the proxy:\n%s", subject, n, got[:from])
		}
		sameText(t, "message "+subject, got[from:], lf(message))
	}
}

func (s *serverBehind) count(subject string) int {
	n := 0
	for _, message := range s.delivered() {
		if hasSubject(message, subject) {
			n++
		}
	}
	return n
}

func hasSubject(message, subject string) bool {
	return strings.Contains(message, "\nSubject: "+subject+"\n")
}

// refusesUnknown names a recipient that the server does not have beside one that it has.
func (s *serverBehind) refusesUnknown(t *testing.T, d *frontDoor, code int) {
	t.Helper()
	c := startTalk(t, "127.0.0.3", d.address())
	c.say("MAIL FROM:<ann@example.org>", 250)
	text := c.say("RCPT TO:<nobody@example.net>", code)
	if strings.Contains(text, "proxy.example.org") {
		t.Errorf("the refusal is not the server's: %s", text)
	}
	c.say("RCPT TO:<eve@example.net>", 250)
	c.say("DATA", 354)
	message := peerMessage("to-eve-only", 100)
	c.content(message)
	c.say(".", 250)
	c.say("QUIT", 221)
	s.hasOnce(t, "to-eve-only", message)
}

// goesDown ends the server between messages: the client is told to come again, and then its message arrives.
func (s *serverBehind) goesDown(t *testing.T, d *frontDoor) {
	t.Helper()
	waiting := startTalk(t, "127.0.0.4", d.address())
	s.end(t, syscall.SIGTERM)
	message := peerMessage("after-the-pause", 900)
	for _, c := range []*talk{waiting, startTalk(t, "127.0.0.5", d.address())} {
		if code, text := c.offer(message); code != 451 {
			t.Errorf("server is down: %d %s, want 451", code, text)
		}
		c.say("QUIT", 221)
	}
	s.start()
	s.retry(t, d, message)
	s.hasOnce(t, "after-the-pause", message)
}

// retry sends a message as clients do, until it is taken; other answers than 451 are wrong.
func (s *serverBehind) retry(t *testing.T, d *frontDoor, message string) {
	t.Helper()
	testenv.Eventually(t, "250 for the message", func() bool {
		c := startTalk(t, "127.0.0.4", d.address())
		defer c.Close()
		code, text := c.offer(message)
		if code != 250 && code != 451 {
			t.Fatalf("server is back: %d %s", code, text)
		}
		return code == 250
	})
}

// diesWithinContent kills the server when half of a message is there.
func (s *serverBehind) diesWithinContent(t *testing.T, d *frontDoor) {
	t.Helper()
	message := messageOfSize("in-two-halves", 3<<20)
	half := strings.Index(message[len(message)/2:], "\r\n") + 2 + len(message)/2
	c := startTalk(t, "127.0.0.6", d.address())
	c.say("MAIL FROM:<ann@example.org>", 250)
	c.say("RCPT TO:<bob@example.net>", 250)
	c.say("DATA", 354)
	c.content(message[:half])
	if err := c.W.Flush(); err != nil {
		t.Fatal(err)
	}
	s.end(t, syscall.SIGKILL)
	c.content(message[half:])
	c.say(".", 451)
	c.say("QUIT", 221)
	s.start()
	s.retry(t, d, message)
	s.hasOnce(t, "in-two-halves", message)
}

// TestSendmailBehind has `sendmail -bs` of Postfix take messages, as a program that the proxy starts.
func TestSendmailBehind(t *testing.T) {
	t.Parallel()
	m := testenv.StartPostfix(t, "", "") // its sendmail takes any recipient
	sendmail := testenv.Path(t, "sendmail -bs as server", "sendmail")
	// postdrop follows settings that are not the machine's for root only.
	d := startFrontDoor(t, "exec:"+sendmail+" -C "+filepath.Join(m.Dir, "etc")+" -bs", "--user", "root", "--allow-root").await()
	s := &serverBehind{"", m.Delivered, func() *testenv.Process { return m.Process }, m.Start, m.Log, nil}
	s.takesMessages(t, d)

	// Without its daemons Postfix still takes mail from its own sendmail, and delivers it later.
	s.end(t, syscall.SIGTERM)
	message := peerMessage("from-the-maildrop", 900)
	c := startTalk(t, "127.0.0.4", d.address())
	if code, text := c.offer(message); code != 250 {
		t.Errorf("Postfix is down: %d %s, want 250", code, text)
	}
	c.say("QUIT", 221)
	s.start()
	s.hasOnce(t, "from-the-maildrop", message)
	d.stop()
}

// TestRecipientsOverLMTP has a real Postfix relay a message for three recipients to Dovecot's LMTP, which answers for each
// of them behind the content: who is known gets it once, who is not is named to the sender's server.
func TestRecipientsOverLMTP(t *testing.T) {
	t.Parallel()
	lmtp := testenv.StartLMTP(t)
	d := startFrontDoor(t, "lmtp:"+lmtp.Socket).await()
	m := relayingPostfix(t, d, "smtp_tls_security_level = none", "")
	message := peerMessage("for-three", 900)
	c := startTalk(t, "127.0.0.1", m.Address())
	if code, text := c.offer(message, "bob@example.net", "nobody@example.net", "eve@example.net"); code != 250 {
		t.Fatalf("%d %s", code, text)
	}
	c.say("QUIT", 221)
	count := func() int {
		n := 0
		for _, got := range lmtp.Delivered() {
			if hasSubject(got, "for-three") {
				n++
				sameText(t, "message", got[strings.Index(got, "\nFrom: Ann")+1:], lf(message))
			}
		}
		return n
	}
	testenv.Eventually(t, "two deliveries, and the message gone from the queue", func() bool {
		return count() >= 2 && strings.Contains(m.Log(), ": removed")
	})
	if count() != 2 {
		t.Errorf("%d deliveries, want one for each of two recipients", count())
	}
	for _, want := range []string{"to=<bob@example.net>", "to=<eve@example.net>"} {
		if !regexp.MustCompile(want + `.* status=sent \(250 `).MatchString(m.Log()) {
			t.Errorf("the log of Postfix has no delivery %s", want)
		}
	}
	if !regexp.MustCompile(`to=<nobody@example\.net>.* status=bounced .*550 `).MatchString(m.Log()) {
		t.Error("the log of Postfix does not tell that nobody was refused by 550")
	}
	d.stop()
}
