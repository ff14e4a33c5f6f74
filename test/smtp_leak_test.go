package test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	"postern/internal/testenv"
)

// leakClients are sessions of all kinds, most of which end badly; the connection is closed behind each.
var leakClients = []func(c *smtpClient, secure func() *smtpClient){
	func(c *smtpClient, _ func() *smtpClient) { c.message(); c.say("QUIT\r\n", "221") },
	func(c *smtpClient, _ func() *smtpClient) { c.message(); c.message() },
	func(c *smtpClient, _ func() *smtpClient) {},
	func(c *smtpClient, _ func() *smtpClient) {
		c.say("MAIL FROM:<ann@example.org>\r\nRCPT TO:<bob@example.net>\r\n", "250")
		c.reset()
	},
	func(c *smtpClient, _ func() *smtpClient) {
		c.untilData()
		io.WriteString(c, "Subject: half\r\n\r\n"+strings.Repeat("content\r\n", 1000))
		c.reset()
	},
	func(c *smtpClient, _ func() *smtpClient) {
		c.say("MAIL FROM:<ann@example.org>\r\n", "250")
		c.say("RCPT TO:<bob@example.net>\r\n", "250")
		io.WriteString(c, "BDAT 1000 LAST\r\nSubject: half\r\n")
	},
	func(c *smtpClient, _ func() *smtpClient) {
		c.untilData()
		c.say("Subject: \x00\r\n\r\n.\r\n", "550")
	},
	func(c *smtpClient, _ func() *smtpClient) { io.WriteString(c, "GET / HTTP/1.1\r\n\r\n") },
	func(c *smtpClient, _ func() *smtpClient) {
		c.say("STARTTLS\r\n", "220")
		io.WriteString(c, "EHLO this is no TLS\r\n")
	},
	func(c *smtpClient, _ func() *smtpClient) { c.say("STARTTLS\r\n", "220"); c.reset() },
	func(c *smtpClient, secure func() *smtpClient) {
		c.say("STARTTLS\r\n", "220")
		s := secure()
		s.say("EHLO client.example.org\r\n", "250")
		s.message()
		c.reset()
	},
}

// TestLoadLeavesNothing has clients of all kinds come to the real program, with and without a filter, and looks whether
// its goroutines and descriptors go back to what they were: INV-07, RES-10.
func TestLoadLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, filtered := range []bool{false, true} {
		t.Run(fmt.Sprintf("filter %v", filtered), func(t *testing.T) { t.Parallel(); leavesNothing(t, filtered) })
	}
}

func leavesNothing(t *testing.T, filtered bool) {
	b := testenv.StartBackend(t)
	cert, key := testenv.Certificate(t, testenv.ShortDir(t))
	if err := os.Chmod(key, 0o644); err != nil { // the proxy's user reads it again
		t.Fatal(err)
	}
	figures := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
	args := []string{"--tls-cert", cert, "--tls-key", key, "--metrics", "tcp:" + figures, "--log-level", "error"}
	const clients = 20
	address, p, kept := "", (*testenv.Process)(nil), 0
	if filtered {
		kept = clients // connections to the multiplexor, for the next requests
		g := startGatewayTo(t, "smtp://"+b.Addr, testenv.FreePort(t), args...)
		address, p = g.address(), g.proxy
	} else {
		address, p = startProxyTo(t, "smtp://"+b.Addr, args...)
	}
	work := func(clients, each int) { // each does so many sessions
		var tasks []*testenv.Task
		for i := range clients {
			tasks = append(tasks, testenv.Play(t, "a client", func(t testing.TB) {
				for n := range each {
					c := dialSMTP(t, address)
					leakClients[(i+n)%len(leakClients)](c, func() *smtpClient { return c.secured() })
					c.Close()
				}
			}))
		}
		for _, task := range tasks {
			task.Wait()
		}
	}
	at := func() (goroutines, files int) {
		// What is kept for later is closed by a reload.
		p.Stop(syscall.SIGHUP)
		return figure(t, figures, "go_goroutines"), figure(t, figures, "process_open_fds")
	}
	work(1, len(leakClients))
	var goroutines, files int
	quiet := func() bool {
		return figure(t, figures, "postern_smtp_proxy_sessions") == 0 && figure(t, figures, "postern_smtp_proxy_upstream_connections") == 0
	}
	testenv.Eventually(t, "the first sessions end", func() bool {
		goroutines, files = at()
		return quiet()
	})
	work(clients, testenv.Load(2, 10)*len(leakClients))
	nowGoroutines, nowFiles := 0, 0
	defer func() {
		t.Logf("%d goroutines, %d before; %d descriptors, %d before", nowGoroutines, goroutines, nowFiles, files)
	}()
	testenv.Eventually(t, "goroutines and descriptors go back", func() bool {
		nowGoroutines, nowFiles = at()
		return quiet() && nowGoroutines <= goroutines+kept && nowFiles <= files+kept
	})
}

// message sends a small message.
func (c *smtpClient) message() {
	c.untilData()
	c.say("Subject: small\r\n\r\ntext\r\n.\r\n", "250")
}

func (c *smtpClient) untilData() {
	c.say("MAIL FROM:<ann@example.org>\r\n", "250")
	c.say("RCPT TO:<bob@example.net>\r\n", "250")
	c.say("DATA\r\n", "354")
}

// reset ends the connection without a farewell.
func (c *smtpClient) reset() {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.Close()
}

// secured goes on within TLS.
func (c *smtpClient) secured() *smtpClient {
	c.t.Helper()
	tc := tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true})
	if err := tc.Handshake(); err != nil {
		c.t.Errorf("handshake: %v", err)
	}
	return newSMTPClient(c.t, tc)
}

// figure reads one of the proxy's metrics.
func figure(t *testing.T, address, name string) int {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: testenv.Patience}
	r, err := client.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	sum, found := 0.0, false
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		var value float64
		if _, err := fmt.Sscan(rest[strings.LastIndexByte(rest, ' '):], &value); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		sum, found = sum+value, true
	}
	if !found {
		t.Fatalf("no %s in the metrics:\n%s", name, text)
	}
	return int(sum)
}
