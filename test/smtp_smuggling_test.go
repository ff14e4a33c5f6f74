package test

import (
	"bufio"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// smtpClient talks to an SMTP server line by line.
type smtpClient struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

func dialSMTP(t testing.TB, address string) *smtpClient {
	t.Helper()
	nc := testenv.Dial(t, "tcp4", address)
	t.Cleanup(func() { nc.Close() })
	testenv.Patient(nc)
	c := newSMTPClient(t, nc)
	c.expect("220")
	c.say("EHLO client.example.org\r\n", "250")
	return c
}

func newSMTPClient(t testing.TB, nc net.Conn) *smtpClient {
	return &smtpClient{nc, t, bufio.NewReader(nc)}
}

// expect reads a whole reply and gives its last line.
func (c *smtpClient) expect(want string) string {
	c.t.Helper()
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			c.t.Fatalf("reply: %v, want %q", err, want)
		}
		if len(line) > 3 && line[3] == '-' {
			continue
		}
		if !strings.HasPrefix(line, want) {
			c.t.Fatalf("reply %q, want %q", line, want)
		}
		return line
	}
}

func (c *smtpClient) say(text, want string) string {
	c.t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		c.t.Fatalf("send %.60q: %v", text, err)
	}
	return c.expect(want)
}

// startProxyTo starts the real proxy in front of a server, without a filter.
func startProxyTo(t *testing.T, upstream string, args ...string) (address string, p *testenv.Process) {
	t.Helper()
	address = fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
	args = append([]string{"--config", "/dev/null", "--maxloadavg", "0", "--smtp", "tcp:" + address, "--upstream", upstream}, args...)
	if account, drops := testenv.DaemonAccount(); drops {
		args = append(args, "--user", account)
	}
	p = testenv.Start(t, exec.Command(testenv.Binary(t, "smtp-proxy"), args...))
	testenv.Eventually(t, "the proxy's greeting", func() bool {
		if !p.Running() {
			t.Fatal("smtp-proxy has ended")
		}
		return greets(address)
	})
	return address, p
}

// TestSmugglingToPostfix sends messages with odd ends of data within to a real Postfix behind the proxy.
// It is the table of security cases SMG-01 to SMG-15, seen from the mailbox.
func TestSmugglingToPostfix(t *testing.T) {
	t.Parallel()
	m := testenv.StartPostfix(t, "", "")
	for _, mode := range []string{"reject", "normalize"} {
		address, _ := startProxyTo(t, "smtp://"+m.Address(), "--bare-newline", mode)
		for i, tt := range []struct{ eod, reject, normalize string }{
			{"\n.\n", "550", "250"}, {"\n.\r\n", "550", "250"}, {"\r\n.\n", "550", "250"}, {"\r.\r", "550", "550"}, {"\r.\n", "550", "550"},
			{"\n.\r", "550", "550"}, {"\r.\r\n", "550", "550"}, {"\r\n.\r", "550", "550"}, {"\r\n.\r\r\n", "550", "550"},
			{"\r\r\n.\r\r\n", "550", "550"}, {"\r\n\x00.\r\n", "550", "550"}, {"\r\n.\x00\r\n", "550", "550"}, {"\r\n.\x0b\r\n", "250", "250"},
			{"\r\n. \r\n", "250", "250"}, {"\r\n.\t\r\n", "250", "250"}, {"\n\n.\n\n", "550", "250"}, {"\r\n.\n\r\n", "550", "250"}, {"\r\n..\r\n", "250", "250"},
		} {
			t.Run(fmt.Sprintf("%s %q", mode, tt.eod), func(t *testing.T) {
				want := tt.normalize
				if mode == "reject" {
					want = tt.reject
				}
				before := len(m.Delivered())
				mark := fmt.Sprintf("mark-%s-%d", mode, i)
				c := dialSMTP(t, address)
				c.say("MAIL FROM:<ann@example.org>\r\n", "250")
				c.say("RCPT TO:<bob@example.net>\r\n", "250")
				c.say("DATA\r\n", "354")
				c.say("Subject: "+mark+".\r\n\r\nline"+tt.eod+"MAIL FROM:<evil@example.org>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\nSubject: forged\r\n\r\nforged\r\n.\r\n", want)
				c.Close()
				// Another message is the sign that Postfix has seen all that came before.
				c = dialSMTP(t, address)
				c.say("MAIL FROM:<ann@example.org>\r\n", "250")
				c.say("RCPT TO:<bob@example.net>\r\n", "250")
				c.say("DATA\r\n", "354")
				c.say("Subject: last-"+mark+".\r\n\r\n.\r\n", "250")
				wanted := before + 1
				if want == "250" {
					wanted++
					m.AwaitDelivered("Subject: " + mark + ".")
				}
				m.AwaitDelivered("last-" + mark + ".")
				all := m.Delivered()
				if len(all) != wanted {
					t.Errorf("%d messages were delivered, want %d", len(all)-before, wanted-before)
				}
				for _, text := range all {
					head, _, _ := strings.Cut(text, "\n\n")
					if strings.Contains(head, "evil@") || strings.Contains(head, "victim@") || strings.Contains(head, "Subject: forged") {
						t.Errorf("a forged message was delivered:\n%s", text)
					}
				}
			})
		}
	}
}
