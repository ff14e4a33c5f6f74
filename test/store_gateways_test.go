package test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// listening starts a daemon with a listener and waits until it answers; its port is returned.
func listening(t *testing.T, program, listener string, args ...string) (port int, p *testenv.Process) {
	t.Helper()
	port = testenv.FreePort(t)
	p = testenv.Start(t, exec.Command(testenv.Binary(t, program), append([]string{"--config", "/dev/null", listener, fmt.Sprintf("inet:%d", port)}, args...)...))
	testenv.Eventually(t, program+" answers", func() bool {
		c, err := testenv.Connect("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			_ = c.Close()
		}
		return err == nil || !p.Running()
	})
	return port, p
}

// TestStampAcrossGateways is the whole story with a shared store: refused, fetched mail at one gateway, let in at the others,
// heard of at another, as nobody else, refused eleven minutes later; and the store hangs, dies and comes back.
func TestStampAcrossGateways(t *testing.T) {
	t.Parallel()
	redis := testenv.StartRedis(t)
	dir := testenv.ShortDir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	maildir := testenv.DaemonDir(t, filepath.Join(dir, "Maildir"))
	sockets := testenv.DaemonDir(t, filepath.Join(dir, "run"))
	senders, events := filepath.Join(dir, "senders"), filepath.Join(sockets, "events")
	if err := os.WriteFile(senders, []byte("alice alice@example.org\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	store := []string{"--clientip-store", redis.URL(), "--clientip-store-timeout", "1m"}
	smtp := append([]string{"--upstream", "maildir:" + maildir, "--client-lookup=no", "--maxloadavg", "0"}, store...)
	pop := append([]string{"--upstream", "pop3://" + pop3Backend(t), "--login-delay", "0s", "--expire-interval", "100ms"}, store...)
	pop1, _ := listening(t, "pop3-stamp", "--pop3", pop...)
	_, _ = listening(t, "pop3-stamp", "--pop3", append(pop, "--notify", events)...)
	smtp1, log1 := listening(t, "smtp-proxy", "--smtp", append(smtp, "--clientip-senders", senders)...)
	smtp2, _ := listening(t, "smtp-proxy", "--smtp", append(smtp, "--store-down", "open")...)
	cat := testenv.Start(t, exec.Command(testenv.Binary(t, "notify-cat"), "--format", "raw", events))

	greeting := func(port int) string { return strings.Join(lines(t, port), "")[:3] }
	for _, port := range []int{smtp1, smtp2} {
		if got := greeting(port); got != "421" {
			t.Errorf("without a stamp: %s, want 421", got)
		}
	}
	testenv.Eventually(t, "the login is heard of at the other gateway", func() bool {
		if got := lines(t, pop1, "USER alice", "PASS good"); len(got) != 3 || !strings.HasPrefix(got[2], "+OK") {
			t.Errorf("login: %q", got)
		}
		return strings.Contains(cat.Output(), "P 127.0.0.1 alice")
	})
	for _, port := range []int{smtp1, smtp2} {
		if got := greeting(port); got != "220" {
			t.Errorf("with a stamp: %s, want 220", got)
		}
	}
	got := lines(t, smtp1, "EHLO x.example", "MAIL FROM:<bob@example.org>", "MAIL FROM:<alice@example.org>")
	if len(got) != 4 || !strings.HasPrefix(got[2], "553 5.7.1") || !strings.HasPrefix(got[3], "250") {
		t.Errorf("senders: %q", got)
	}
	log1.WaitOutput("user=alice")

	redis.Do("EVAL", "redis.call('SET', KEYS[1], redis.call('TIME')[1] - 660 .. ' 127.0.0.1 alice pop')", "1", "postern:stamp:127.0.0.1")
	if got := greeting(smtp1); got != "421" {
		t.Errorf("eleven minutes later: %s, want 421", got)
	}
	_ = lines(t, pop1, "USER alice", "PASS good")
	if out, errOut, status := testenv.Run(t, testenv.Binary(t, "pop3-stamp"), append(append([]string{"--config", "/dev/null"}, store...), "revoke", "--login", "alice")...); out != "1 removed\n" {
		t.Errorf("revoke: %q %q, status %d", out, errOut, status)
	}
	cat.WaitOutput("X 127.0.0.1")

	// Those that need not wait long for a store that is away.
	const short = "--clientip-store-timeout=200ms"
	pop1, _ = listening(t, "pop3-stamp", "--pop3", append(pop, short)...)
	smtp1, _ = listening(t, "smtp-proxy", "--smtp", append(smtp, short)...)
	smtp2, _ = listening(t, "smtp-proxy", "--smtp", append(smtp, short, "--store-down", "open")...)
	away := func() {
		t.Helper()
		if got := greeting(smtp1); got != "421" {
			t.Errorf("store away, closed: %s, want 421", got)
		}
		if got := greeting(smtp2); got != "220" {
			t.Errorf("store away, open: %s, want 220", got)
		}
		if got := lines(t, pop1, "USER alice", "PASS good"); len(got) != 3 || !strings.HasPrefix(got[2], "+OK") {
			t.Errorf("store away, mail is not read: %q", got)
		}
	}
	back := func() {
		t.Helper()
		testenv.Eventually(t, "stamps are made and found again", func() bool {
			_ = lines(t, pop1, "USER alice", "PASS good")
			return greeting(smtp1) == "220"
		})
	}
	redis.Hang()
	away()
	redis.Resume()
	back()
	redis.Kill()
	away()
	redis.Start()
	back()
}

// heldSession keeps a session open whose greeting begins with a code.
type heldSession struct {
	greeting string
	close    func()
}

// refused reports whether the session was refused for now, with that text.
func (h heldSession) refused(text string) bool {
	return strings.HasPrefix(h.greeting, "421 4.7.0 ") && strings.HasSuffix(h.greeting, text)
}

// hold connects, reads the greeting and stays.
func hold(t *testing.T, port int) heldSession {
	t.Helper()
	c := testenv.Dial(t, "tcp", "127.0.0.1:"+strconv.Itoa(port))
	line, _ := bufio.NewReader(c).ReadString('\n')
	return heldSession{strings.TrimSpace(line), func() { _ = c.Close() }}
}

// countingGateways starts two that count sessions of an address together.
func countingGateways(t *testing.T, redis *testenv.RedisServer, timeout string) (one, two int) {
	t.Helper()
	maildir := testenv.DaemonDir(t, filepath.Join(testenv.ShortDir(t), "Maildir"))
	args := []string{"--upstream", "maildir:" + maildir, "--client-lookup=no", "--maxloadavg", "0", "--clientip-scope", "relay", "--refuse-relay=yes", "--local-domains", "example.org",
		"--clientip-store", redis.URL(), "--clientip-store-timeout", timeout, "--cluster-limits=yes", "--max-sessions-per-address", "3"}
	one, _ = listening(t, "smtp-proxy", "--smtp", args...)
	two, _ = listening(t, "smtp-proxy", "--smtp", args...)
	return one, two
}

// let holds a session that the limits allow. Those that saw whether the proxies answer may not have ended yet.
func let(t *testing.T, port int) (h heldSession) {
	t.Helper()
	testenv.Eventually(t, "a session within the limit", func() bool { h = hold(t, port); return strings.HasPrefix(h.greeting, "220") })
	return h
}

// TestLimitsAcrossGateways: sessions of an address are counted over gateways.
func TestLimitsAcrossGateways(t *testing.T) {
	t.Parallel()
	one, two := countingGateways(t, testenv.StartRedis(t), "1m")
	first, _, third := let(t, one), let(t, two), let(t, one)
	for _, port := range []int{one, two} {
		if h := hold(t, port); !h.refused("Too many sessions from your address") {
			t.Errorf("one too many: %q", h.greeting)
		}
	}
	first.close()
	third.close()
	testenv.Eventually(t, "those who left have made room", func() bool {
		h := hold(t, one)
		h.close()
		return strings.HasPrefix(h.greeting, "220")
	})
}

// TestLimitsWithoutTheStore: while the store hangs, each gateway's own limits hold, and the others hear of it when it is back.
func TestLimitsWithoutTheStore(t *testing.T) {
	t.Parallel()
	redis := testenv.StartRedis(t)
	one, two := countingGateways(t, redis, "200ms")
	let(t, two)
	redis.Hang()
	let(t, two)
	let(t, two)
	if h := hold(t, two); !strings.HasPrefix(h.greeting, "421") {
		t.Errorf("while the store hangs the gateway's own limit does not hold: %q", h.greeting)
	}
	redis.Resume()
	testenv.Eventually(t, "the other gateway hears of all", func() bool {
		h := hold(t, one)
		h.close()
		return strings.HasPrefix(h.greeting, "421")
	})
}

// TestBansAcrossGateways: who was refused too much at one gateway, or has failed to log in too often there, does not get into the
// other.
func TestBansAcrossGateways(t *testing.T) {
	t.Parallel()
	redis := testenv.StartRedis(t)
	maildir := testenv.DaemonDir(t, filepath.Join(testenv.ShortDir(t), "Maildir"))
	store := []string{"--clientip-store", redis.URL(), "--clientip-store-timeout", "1m", "--cluster-limits=yes"}
	args := append([]string{"--upstream", "maildir:" + maildir, "--client-lookup=no", "--maxloadavg", "0", "--clientip-scope", "relay",
		"--refuse-relay=yes", "--local-domains", "example.org", "--max-refusals-per-address", "4", "--error-delay", "0s"}, store...)
	one, _ := listening(t, "smtp-proxy", "--smtp", args...)
	two, _ := listening(t, "smtp-proxy", "--smtp", args...)
	guess := []string{"EHLO x.example", "MAIL FROM:<a@example.net>", "RCPT TO:<b@example.com>", "RCPT TO:<c@example.com>"}
	accepted := append(guess, "RCPT TO:<d@example.org>", "DATA", "Subject: x\r\n\r\nx\r\n.")
	for i, port := range []int{one, one, two} {
		if got := lines(t, port, accepted...); len(got) != 8 || !strings.HasPrefix(got[7], "250") {
			t.Errorf("message %d with unknown recipients: %q", i, got)
		}
	}
	if got := redis.Do("EXISTS", "postern:refusals:{127.0.0.1/32}"); got != "0" {
		t.Errorf("refusals of who delivers count: %s", got)
	}
	for _, port := range []int{one, two} {
		if got := lines(t, port, guess...); len(got) != 5 || !strings.HasPrefix(got[4], "55") {
			t.Errorf("guesses: %q", got)
		}
	}
	const banned = "Too much was refused to your address, try again later"
	for _, port := range []int{one, two} {
		if h := hold(t, port); !h.refused(banned) {
			t.Errorf("after four refusals: %q", h.greeting)
		}
	}
	out, _, status := testenv.Run(t, testenv.Binary(t, "smtp-proxy"), append(append([]string{"explain", "--config", "/dev/null"}, args...), "--client", "127.0.0.1")...)
	if status != 75 || !strings.Contains(out, banned) {
		t.Errorf("explain: status %d\n%s", status, out)
	}

	pop := append([]string{"--upstream", "pop3://" + pop3Backend(t), "--login-delay", "0s", "--max-login-failures", "2"}, store...)
	pop1, _ := listening(t, "pop3-stamp", "--pop3", pop...)
	pop2, _ := listening(t, "pop3-stamp", "--pop3", pop...)
	_ = lines(t, pop1, "USER alice", "PASS bad", "USER alice", "PASS bad")
	for _, port := range []int{pop1, pop2} {
		if h := hold(t, port); h.greeting != "-ERR [SYS/TEMP] too many failed logins from this address" {
			t.Errorf("after two failed logins: %q", h.greeting)
		}
	}
}
