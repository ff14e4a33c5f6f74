package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/logging"
	"postern/internal/smtp"
	"postern/internal/testenv"
)

// oneSecond makes the log of a program at its usual level, for which all happens within one second.
func oneSecond(w *testenv.Buffer) slog.Handler {
	log := slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelInfo}))
	return logging.Limit(log, logging.Strangers, func() time.Time { return time.Unix(1_000_000_000, 0) }).Handler()
}

// provoke has n connections say something, all of it at once, and leave when the proxy has.
func provoke(t *testing.T, p *proxy, n int, text string) {
	t.Helper()
	for range n {
		c := dial(t, p.addr)
		_, _ = io.WriteString(c, text) // the proxy may have refused it already
		_, _ = io.Copy(io.Discard, c)  // a reset is an end, too
		c.Close()
	}
	testenv.Eventually(t, "sessions end", func() bool { return p.sessionCount() == 0 })
}

// TestLOG_20_FloodsOfStrangers counts the lines of a second in which a stranger does the same thing very often: there are
// only so many of each kind.
func TestLOG_20_FloodsOfStrangers(t *testing.T) {
	t.Parallel()
	dir := testenv.ShortDir(t)
	stamps := filepath.Join(dir, "stamps")
	must(t, os.Mkdir(stamps, 0o700))
	stamp := filepath.Join(stamps, "127.0.0.1")
	must(t, os.WriteFile(stamp, nil, 0o600))
	future := time.Now().Add(24 * time.Hour)
	must(t, os.Chtimes(stamp, future, future))
	nobody := fmt.Sprintf("--upstream=smtp://127.0.0.1:%d", testenv.FreePort(t))
	up := behind(testenv.StartBackend(t))
	envelope := "MAIL FROM:<a@b.example>\r\n" + strings.Repeat("RCPT TO:<c@d.example>\r\n", 50) + "RSET\r\n"
	tests := []struct {
		name        string
		args        []string
		connections int
		text        string
	}{
		{"PROXY header", []string{up, "--proxy-from=192.0.2.0/24"}, 100, "PROXY TCP4 192.0.2.1 192.0.2.2 25 25\r\n"},
		{"server down at RCPT", []string{nobody}, 5, "EHLO x\r\n" + strings.Repeat(envelope, 20) + "QUIT\r\n"},
		{"server down at EHLO", []string{nobody}, 5, strings.Repeat("EHLO x\r\n", 300) + "QUIT\r\n"},
		{"stamp from the future", []string{up, "--clientip-dir=" + stamps}, 100, "QUIT\r\n"},
		{"filter down at HELO", []string{up, "--multiplexor=" + dir + "/nobody", "--spool=" + dir, "--worker-gate=no", "--helook=yes"}, 60, strings.Repeat("EHLO x\r\n", 100) + "QUIT\r\n"},
		{"filter down at MAIL", []string{up, "--multiplexor=" + dir + "/nobody", "--spool=" + dir, "--worker-gate=no", "--senderok=yes"}, 10,
			"EHLO x\r\n" + strings.Repeat("MAIL FROM:<a@b.example>\r\n", 300) + "QUIT\r\n"},
		{"errors", []string{up}, 100, strings.Repeat("BAD\r\n", 50)},
		{"TLS to a mail port", []string{up}, 100, "\x16\x03\x01\x02\x00\x01\x00"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := startProxyWith(t, listenSMTP, oneSecond, tt.args...)
			provoke(t, p, tt.connections, tt.text)
			log := p.log.String()
			if n := strings.Count(log, "\n"); n > 45 || n == 0 {
				t.Errorf("%d lines, of which the first are\n%.4000s", n, log)
			}
		})
	}
}

// TestLOG_21_OurFailuresAreJunk has a client go on although the next hop is down: its session ends, as with other
// commands without use, and so it does not cost more than those.
func TestLOG_21_OurFailuresAreJunk(t *testing.T) {
	t.Parallel()
	dir := testenv.ShortDir(t)
	down := fmt.Sprintf("--upstream=smtp://127.0.0.1:%d", testenv.FreePort(t))
	up := behind(testenv.StartBackend(t))
	spool := filepath.Join(dir, "spool")
	must(t, os.Mkdir(spool, 0o700))
	tests := []struct {
		name, text string
		args       []string
	}{
		{"recipients of one message", "MAIL FROM:<a@b.example>\r\n" + strings.Repeat("RCPT TO:<c@d.example>\r\n", 40), []string{down}},
		{"recipients of many", strings.Repeat("MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nRSET\r\n", 40), []string{down, "--max-junk=70"}},
		{"filter", strings.Repeat("MAIL FROM:<a@b.example>\r\n", 40), []string{up, "--multiplexor=" + dir + "/nobody", "--spool=" + dir, "--worker-gate=no", "--senderok=yes"}},
		{"spool", strings.Repeat("MAIL FROM:<a@b.example>\r\n", 40), []string{up, "--multiplexor=" + dir + "/nobody", "--spool=" + spool, "--worker-gate=no"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := startProxy(t, append([]string{"--max-junk=30"}, tt.args...)...)
			if tt.name == "spool" {
				must(t, os.RemoveAll(spool))
			}
			c := greeted(t, p.addr)
			c.send(tt.text)
			for {
				r, err := smtp.ReadReply(c.r)
				if err != nil {
					t.Fatalf("no last reply: %v", err)
				}
				if r.Code == 421 {
					break
				}
			}
			c.expectEnd()
			testenv.Eventually(t, "end of the session", func() bool { return strings.Contains(p.log.String(), "gate=junk") })
		})
	}
}

// TestJunkIsForgiven: what failed on the way to a delivered message is nothing against the client.
func TestJunkIsForgiven(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--max-junk=2")
	c := greeted(t, p.addr)
	for range 5 {
		c.cmd("NOOP", "250")
		c.envelope()
		c.cmd("DATA", "354")
		c.send(smallMessage)
		c.expect("250")
	}
}

// TestLOG_21_MessagesThatCannotBeFiltered is the same for whole messages, and counts the lines.
func TestLOG_21_MessagesThatCannotBeFiltered(t *testing.T) {
	t.Parallel()
	dir := testenv.ShortDir(t)
	p := startProxyWith(t, listenSMTP, oneSecond, behind(testenv.StartBackend(t)), "--max-junk=30", "--worker-gate=no",
		"--multiplexor="+dir+"/nobody", "--spool="+dir)
	c := greeted(t, p.addr)
	for i := range 31 {
		c.cmd("MAIL FROM:<from@client.example>", "250")
		c.cmd("RCPT TO:<to@server.example>", "250")
		c.cmd("DATA", "354")
		c.send(smallMessage)
		c.expect("451 4.3.0")
		if i == 29 {
			c.expect("421 4.7.0")
			break
		}
	}
	c.expectEnd()
	if n := strings.Count(p.log.String(), "\n"); n > 45 || n == 0 {
		t.Errorf("%d lines, of which the first are\n%.4000s", n, p.log.String())
	}
}
