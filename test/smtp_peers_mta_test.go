package test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"postern/internal/testenv"
)

// mtaLine is as long as lines may be that servers pass on as they are: RFC 5321, 4.5.3.1.6.
const mtaLine = 990

// peerMTAs are mail servers that relay through the proxy; each gives the address where it takes mail.
var peerMTAs = []struct {
	name  string
	with  string // protocol that the proxy's Received field is to name
	body  bool   // it says 8BITMIME; Exim never does
	verb  string // with which it gives content
	start func(t *testing.T, d *frontDoor) (address string)
}{
	{"Postfix", "ESMTP", true, "DATA", func(t *testing.T, d *frontDoor) string {
		return relayingPostfix(t, d, "smtp_tls_security_level = none", "").Address()
	}},
	{"Postfix STARTTLS", "ESMTPS", true, "DATA", func(t *testing.T, d *frontDoor) string {
		return relayingPostfix(t, d, "smtp_tls_security_level = verify\nsmtp_tls_verify_cert_match = localhost\nsmtp_tls_CAfile = "+d.cert,
			"tlsmgr unix - - n 1000? 1 tlsmgr").Address()
	}},
	{"Exim", "ESMTP", false, "BDAT", func(t *testing.T, d *frontDoor) string {
		return testenv.StartExim(t, d.port, "  hosts_avoid_tls = *").Address()
	}},
	{"Exim STARTTLS", "ESMTPS", false, "BDAT", func(t *testing.T, d *frontDoor) string {
		return testenv.StartExim(t, d.port, "  hosts_require_tls = *\n  tls_verify_certificates =\n  tls_try_verify_hosts =").Address()
	}},
}

// relayingPostfix starts a Postfix that sends all mail to the proxy, and tries again soon; but not so soon that it would
// find the message locked by the delivery before, which it then leaves alone for long.
func relayingPostfix(t *testing.T, d *frontDoor, mainLines, masterLines string) *testenv.Mailserver {
	t.Helper()
	return testenv.StartPostfix(t, fmt.Sprintf("virtual_mailbox_domains =\ndefault_transport = smtp\nrelayhost = [127.0.0.1]:%d\n"+
		"minimal_backoff_time = 4s\nmaximal_backoff_time = 4s\nqueue_run_delay = 1s\n%s", d.port, mainLines), masterLines)
}

// TestRealMTAs has mail servers relay through the proxy.
func TestRealMTAs(t *testing.T) {
	t.Parallel()
	for _, mta := range peerMTAs {
		t.Run(mta.name, func(t *testing.T) {
			t.Parallel()
			b := testenv.StartBackend(t)
			refuseOnce(b)
			d := startFrontDoor(t, "smtp://"+b.Addr).await()
			address := mta.start(t, d)
			sent := make(map[string]string)
			for i, size := range []int{0, 400 << 10} {
				subject := fmt.Sprintf("mta-%d", i)
				message := peerMessage(subject, mtaLine)
				if size > 0 {
					message = messageOfSize(subject, size)
				}
				sent[subject] = message
				c := startTalk(t, "127.0.0.1", address)
				if code, text := c.offer(message, "bob@example.com", "eve@example.com"); code != 250 {
					t.Fatalf("%d %s", code, text)
				}
				c.say("QUIT", 221)
			}
			for subject, message := range sent {
				m, received := arrivedOnce(t, b, subject, message)
				if len(received) != 2 || !strings.Contains(received[0], " with "+mta.with+" id ") {
					t.Errorf("want two Received fields, the upper one with %s:\n%s", mta.with, received)
				}
				if len(m.To) != 2 || !strings.HasPrefix(m.From, peerFrom+" ") || strings.Contains(m.From, " BODY=8BITMIME") != mta.body {
					t.Errorf("from %s to %s, want two recipients, and 8BITMIME: %v", m.From, m.To, mta.body)
				}
			}
			d.stop()
			if !strings.Contains(d.process.Output(), "verb="+mta.verb) {
				t.Errorf("content did not come by %s", mta.verb)
			}
			if n := len(b.Messages()); n != len(sent) {
				t.Errorf("%d messages at the server, want %d", n, len(sent))
			}
		})
	}
}

// refuseOnce has each message refused for now once at its end, and so sent twice; it must be at the server once.
func refuseOnce(b *testenv.Backend) {
	var mu sync.Mutex
	refused := make(map[string]bool)
	b.Answer(func(a testenv.Asked) string {
		mu.Lock()
		defer mu.Unlock()
		_, subject, _ := strings.Cut(a.Line, "\r\nSubject: ")
		subject, _, _ = strings.Cut(subject, "\r\n")
		if a.Verb != "." || refused[subject] {
			return ""
		}
		refused[subject] = true
		return "451 4.3.0 Not now"
	})
}
