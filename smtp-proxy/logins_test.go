package main

import (
	"encoding/base64"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"postern/internal/testenv"
)

// guarded is a next hop that knows one password.
func guarded(t *testing.T) *testenv.Backend {
	b := testenv.StartBackend(t)
	b.Extend("PIPELINING", "AUTH PLAIN LOGIN CRAM-MD5")
	right := base64.StdEncoding.EncodeToString([]byte("\x00bob\x00secret"))
	b.Answer(func(a testenv.Asked) string {
		switch {
		case a.Verb != "AUTH":
			return ""
		case a.Line == "AUTH LOGIN", a.Line == "AUTH PLAIN":
			return "334 VXNlcm5hbWU6"
		case a.Line == "Ym9i", a.Line == "", a.Line == "AUTH LOGIN Ym9i", a.Line == "AUTH LOGIN =": // bob, or nobody
			return "334 UGFzc3dvcmQ6"
		case a.Line == "*":
			return "501 5.7.0 Cancelled"
		case strings.HasSuffix(a.Line, right):
			return "235 2.7.0 Ok"
		case a.Line == "AUTH CRAM-MD5":
			return "534 5.7.9 Mechanism is too weak"
		}
		return "535 5.7.8 Wrong"
	})
	return b
}

func plain(user, password string) string {
	return "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+password))
}

// TestRES_60_GuessingPasswords guesses from one address as fast as it can, in sessions of any number: the next hop
// sees a few tries, and then the address may not try at all, not even the right one; another address may.
func TestRES_60_GuessingPasswords(t *testing.T) {
	t.Parallel()
	b := guarded(t)
	p := startProxy(t, behind(b), "--auth-requires-tls=no", "--max-login-failures=5", "--login-delay=0s", "--xclient-from=127.0.0.0/8")
	as := func(addr string) *dialog {
		c := greeted(t, p.addr)
		c.cmd("XCLIENT ADDR="+addr, "220")
		c.cmd("EHLO c.example", "250")
		return c
	}
	for i := range 5 {
		c := as(fmt.Sprintf("IPV6:2001:db8::%d", i)) // all of one /64
		c.cmd(plain("bob", fmt.Sprint(i)), "535 5.7.8")
	}
	for _, line := range []string{plain("bob", "6"), plain("bob", "secret"), "AUTH LOGIN", "AUTH LOGIN Ym9i"} {
		c := as("IPV6:2001:db8::ff")
		c.cmd(line, "421 4.7.0 proxy.example Too many failed logins")
		c.expectEnd()
	}
	c := as("IPV6:2001:db8::ff") // mail is not touched by that
	c.envelope()
	as("IPV6:2001:db8:0:1::1").cmd(plain("bob", "secret"), "235")
	if n := strings.Count(strings.Join(b.Commands(), "\n"), "AUTH "); n != 6 {
		t.Errorf("the next hop was asked %d times, want 6\n%q", n, b.Commands())
	}
	for outcome, want := range map[string]uint64{loginRefused: 5, loginShutOut: 4, loginAccepted: 1} {
		if got := p.metrics.logins[outcome].Load(); got != want {
			t.Errorf("%d logins %s in the metrics, want %d", got, outcome, want)
		}
	}
}

// TestLoginsThatCount shows what is held against an address: wrong passwords, and nothing else.
func TestLoginsThatCount(t *testing.T) {
	t.Parallel()
	b := guarded(t)
	p := startProxy(t, behind(b), "--auth-requires-tls=no", "--max-login-failures=2", "--login-delay=0s")
	for range 3 {
		c := greeted(t, p.addr)
		c.cmd("AUTH LOGIN", "334")
		c.cmd("*", "501")
		c.cmd("AUTH CRAM-MD5", "534")
		c.cmd("AUTH NTLM", "504")
		c.cmd("AUTH PLAIN !", "501")
	}
	for range 3 { // whoever finds the right one in the end is no guesser
		c := greeted(t, p.addr)
		c.cmd(plain("Bob", "wrong"), "535")
		c.cmd(plain("bob", "secret"), "235")
	}
	for i := range 3 { // a login of one's own does not help to guess the others'
		c := greeted(t, p.addr)
		if i < 2 {
			c.cmd(plain("alice", "wrong"), "535")
		}
		want := "235"
		if i == 2 {
			want = "421"
		}
		if i != 1 {
			c.cmd(plain("bob", "secret"), want)
		}
	}
	p = startProxy(t, behind(b), "--auth-requires-tls=no", "--max-login-failures=2", "--login-delay=0s", "--limit-exempt=127.0.0.1")
	for range 5 {
		greeted(t, p.addr).cmd(plain("alice", "wrong"), "535")
	}
}

// TestLoginFailedIsTold shows what log and listeners learn of a failed login: who, and never the password, wherever the
// client puts it.
func TestLoginFailedIsTold(t *testing.T) {
	t.Parallel()
	b := guarded(t)
	p := startProxyWith(t, listenSubmission, func(w *testenv.Buffer) slog.Handler {
		return slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug})
	}, behind(b), "--auth-requires-tls=no", "--max-login-failures=100", "--login-delay=0s")
	e := listenTo(t, p)
	enc := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, tt := range []struct {
		name  string
		lines []string
		user  string // in the log
		event string
	}{
		{"PLAIN at once", []string{plain("mallory", "geheim")}, "user=mallory", "PLAIN mallory"},
		{"PLAIN later", []string{"AUTH PLAIN", enc("\x00mallory\x00geheim")}, "user=mallory", "PLAIN mallory"},
		{"LOGIN at once", []string{"AUTH LOGIN Ym9i", enc("geheim")}, "user=bob", "LOGIN bob"},
		{"LOGIN later", []string{"AUTH LOGIN", "Ym9i", enc("geheim")}, "user=bob", "LOGIN bob"},
		{"LOGIN, no name", []string{"AUTH LOGIN", "", enc("geheim")}, `user=""`, "LOGIN -"},
		{"LOGIN, empty name at once", []string{"AUTH LOGIN =", enc("geheim")}, `user=""`, "LOGIN -"},
		{"no NUL", []string{"AUTH PLAIN " + enc("mallory geheim")}, `user=""`, "PLAIN -"},
		{"one NUL", []string{"AUTH PLAIN " + enc("mallory\x00geheim")}, `user=""`, "PLAIN -"},
		{"three NUL", []string{"AUTH PLAIN " + enc("\x00mallory\x00geheim\x00")}, `user=""`, "PLAIN -"},
		{"control bytes", []string{plain("mal\nlory\x1b[m", "geheim")}, `user=""`, "PLAIN -"},
		{"not UTF-8", []string{plain("mal\xfflory", "geheim")}, `user=""`, "PLAIN -"},
		{"spaces", []string{plain("m allory % x", "geheim")}, `user="m allory % x"`, "PLAIN m%20allory%20%25%20x"},
		{"long", []string{plain(strings.Repeat("x", 300), "geheim")}, `user=""`, "PLAIN -"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p.log.Reset()
			c := greeted(t, p.addr)
			for i, line := range tt.lines {
				want := "334"
				if i == len(tt.lines)-1 {
					want = "535"
				}
				c.cmd(line, want)
			}
			c.cmd("NOOP", "250")
			var told string
			for told == "" {
				if words := strings.SplitN(e.line(), " ", 3); len(words) == 3 && strings.HasPrefix(words[2], "W ") {
					told = words[2]
				}
			}
			if !strings.HasSuffix(told, " 127.0.0.1 "+tt.event) {
				t.Errorf("event %q, want %q", told, tt.event)
			}
			log := p.log.String()
			if !strings.Contains(log, "login failed") || !strings.Contains(log, tt.user) || !strings.Contains(log, "listener=submission") {
				t.Errorf("log:\n%s", log)
			}
			for _, secret := range []string{"geheim", enc("geheim")} {
				if strings.Contains(log, secret) {
					t.Errorf("the password is in the log:\n%s", log)
				}
			}
		})
	}
}

// TestLoginDelay has the answer to each failed login wait, and a drain not wait for it.
func TestLoginDelay(t *testing.T) {
	t.Parallel()
	b := guarded(t)
	const delay = 300 * time.Millisecond
	p := startProxy(t, behind(b), "--auth-requires-tls=no", "--login-delay", delay.String())
	c := greeted(t, p.addr)
	for i := range 3 {
		began := time.Now()
		c.cmd(plain("bob", "wrong"), "535")
		if took := time.Since(began); took < delay<<i {
			t.Errorf("try %d was answered after %v, want %v or more", i+1, took, delay<<i)
		}
	}
	c.cmd(plain("bob", "secret"), "235")
	slow := startProxy(t, behind(b), "--auth-requires-tls=no", "--login-delay=24h")
	greeted(t, slow.addr).cmd(plain("bob", "secret"), "235") // at once
	c = greeted(t, slow.addr)
	c.send(plain("bob", "wrong") + "\r\n")
	testenv.Eventually(t, "the failure to be logged", func() bool { return strings.Contains(slow.log.String(), "login failed") })
	slow.Drain(t.Context())
	c.expect("535")
}
