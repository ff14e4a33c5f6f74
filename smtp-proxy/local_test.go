package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// outsiders are recipients outside y.test, or whose local part leads there, as a mail server may see it.
var outsiders = []string{
	"<victim@outside.test>", "<victim%outside.test@y.test>", "<outside.test!victim@y.test>", `<"victim@outside.test"@y.test>`,
	`<"victim%outside.test"@y.test>`, `<"outside.test!victim"@y.test>`, `<"victim\@outside.test"@y.test>`, `<"@outside.test:victim"@y.test>`,
	"<victim%outside.test@Y.TEST>", "<a!outside.test!victim@y.test>", "<victim%outside.test%y.test@y.test>", "<victim@[127.0.0.1]>",
}

// outsidersOff are those that only address-check off lets pass.
var outsidersOff = []string{
	"<victim%outside.test>", "<outside.test!victim>", "victim%outside.test", `<"victim@outside.test">`, "<@y.test:victim@outside.test>",
	"<@y.test,@x.test:victim%outside.test@y.test>", "<bob>", "<victim%outside.test@y.test.>",
}

// TestRLY_01_RelayByLocalPart names outside recipients in every way, for each rule that keeps strangers from relaying
// and for each check of addresses. None may come through, nor reach the next hop.
func TestRLY_01_RelayByLocalPart(t *testing.T) {
	t.Parallel()
	for _, rule := range []struct{ name, setting, reply string }{
		{"stamps", "--clientip-scope=relay", "550 5.7.1"}, {"refuse-relay", "--refuse-relay=yes", "554 5.7.1"},
	} {
		for _, check := range []string{"rfc", "off"} {
			t.Run(rule.name+" "+check, func(t *testing.T) {
				b := testenv.StartBackend(t)
				args := []string{behind(b), rule.setting, "--local-domains=y.test", "--address-check=" + check, "--max-refusals=100", "--max-errors=100"}
				if rule.name == "stamps" {
					args = append(args, "--clientip-dir", t.TempDir())
				}
				c := greeted(t, startProxy(t, args...).addr)
				c.cmd("MAIL FROM:<a@b.example>", "250")
				all := outsiders
				if check == "off" {
					all = append(outsidersOff, all...)
				}
				for _, to := range all {
					if got := c.cmd("RCPT TO:"+to, "").String(); !strings.HasPrefix(got, rule.reply) {
						t.Errorf("RCPT TO:%s: %q, want %s", to, got, rule.reply)
					}
				}
				c.cmd("RCPT TO:<bob@y.test>", "250")
				c.cmd("RCPT TO:<postmaster>", "250")
				for _, line := range b.Commands() {
					if strings.Contains(line, "victim") {
						t.Errorf("the next hop saw %q", line)
					}
				}
			})
		}
	}
}

// TestRefuseRelay shows who may relay all the same: trusted networks, clients with a stamp, users who logged in.
func TestRefuseRelay(t *testing.T) {
	t.Parallel()
	const outside, refused = "RCPT TO:<x@outside.test>", "554 5.7.1 Relay access denied"
	common := []string{"--refuse-relay=yes", "--local-domains=y.test"}
	start := func(t *testing.T, args ...string) *dialog {
		b := testenv.StartBackend(t)
		b.Extend("AUTH PLAIN")
		return greeted(t, startProxy(t, append(append(args, behind(b)), common...)...).addr)
	}
	t.Run("stranger", func(t *testing.T) {
		c := start(t)
		c.cmd("MAIL FROM:<a@y.test>", "250")
		c.cmd(outside, refused)
		c.cmd("RCPT TO:<bob@y.test>", "250")
	})
	t.Run("trusted network", func(t *testing.T) {
		c := start(t, "--relay-clients=10.0.0.0/8 127.0.0.0/8")
		c.cmd("MAIL FROM:<a@b.example>", "250")
		c.cmd(outside, "250")
	})
	t.Run("logged in", func(t *testing.T) {
		c := start(t, "--auth-requires-tls=no")
		c.cmd("AUTH PLAIN AGJvYgBzZWNyZXQ=", "235")
		c.cmd("MAIL FROM:<a@b.example>", "250")
		c.cmd(outside, "250")
	})
	t.Run("login by XCLIENT", func(t *testing.T) {
		for believed, reply := range map[string]string{"yes": "250", "no": refused} {
			c := start(t, "--xclient-from=127.0.0.1", "--xclient-login="+believed)
			c.cmd("XCLIENT ADDR=192.0.2.1 LOGIN=bob", "220")
			c.cmd("EHLO c.example", "250")
			c.cmd("MAIL FROM:<a@b.example>", "250")
			c.cmd(outside, reply)
		}
	})
	for _, scope := range []string{"session", "relay"} {
		t.Run("stamp "+scope, func(t *testing.T) {
			dir := t.TempDir()
			stampAged(0)(t, filepath.Join(dir, "127.0.0.1"))
			c := start(t, "--clientip-dir", dir, "--clientip-scope="+scope)
			c.cmd("MAIL FROM:<a@b.example>", "250")
			c.cmd(outside, "250")
		})
		t.Run("no stamp wanted "+scope, func(t *testing.T) {
			// Who need not fetch mail to connect is not by that one whose mail is relayed.
			c := start(t, "--clientip-dir", t.TempDir(), "--clientip-scope="+scope, "--clientip-exempt=127.0.0.1")
			c.cmd("MAIL FROM:<a@b.example>", "250")
			c.cmd(outside, map[string]string{"session": refused, "relay": "250"}[scope])
		})
	}
	t.Run("no domains", func(t *testing.T) {
		// Nobody's mail is bounced because a setting is missing.
		b := testenv.StartBackend(t)
		c := greeted(t, startProxy(t, behind(b), "--refuse-relay=yes").addr)
		c.cmd("MAIL FROM:<a@b.example>", "250")
		c.cmd("RCPT TO:<bob@y.test>", "454 4.7.1 Relay access denied")
		c.cmd("RCPT TO:<postmaster>", "250")
	})
	t.Run("reload", func(t *testing.T) {
		b := testenv.StartBackend(t)
		p := startProxy(t, behind(b), "--refuse-relay=yes", "--local-domains=y.test")
		p.use(&live{settings: parseSettings(t, behind(b), "--refuse-relay=yes", "--local-domains=z.test")})
		c := greeted(t, p.addr)
		c.cmd("MAIL FROM:<a@b.example>", "250")
		c.cmd("RCPT TO:<bob@y.test>", refused)
		c.cmd("RCPT TO:<bob@z.test>", "250")
	})
}

// TestRelayWarning shows when the start and --check say that the next hop sees every client as this host.
func TestRelayWarning(t *testing.T) {
	t.Parallel()
	own := "127.0.0.1"
	for _, tt := range []struct {
		name string
		args []string
		want int // warnings
	}{
		{"loopback", []string{"--upstream=smtp://localhost:10025"}, 1},
		{"loopback address", []string{"--upstream=smtp://127.9.9.9:25"}, 1},
		{"loopback IPv6", []string{"--upstream=smtp://[::1]:25"}, 1},
		{"unspecified", []string{"--upstream=smtp://0.0.0.0:25"}, 1},
		{"over TLS", []string{fmt.Sprintf("--upstream=smtps://%s:465", own)}, 1},
		{"UNIX socket", []string{"--upstream=smtp:/run/x.sock"}, 1},
		{"program", []string{"--upstream=exec:/usr/sbin/sendmail -bs"}, 1},
		{"program, told", []string{"--upstream=exec:/usr/sbin/sendmail -bs", "--upstream-client-ip=proxy2"}, 0},
		{"second", []string{"--upstream=smtp://192.0.2.1", "--upstream=smtp://localhost:25"}, 1},
		{"other host", []string{"--upstream=smtp://192.0.2.1:25"}, 0},
		{"delivery only", []string{"--upstream=lmtp:/run/lmtp.sock"}, 0},
		{"Maildir", []string{"--upstream=maildir:/tmp/x"}, 0},
		{"xclient", []string{"--upstream=smtp://localhost:25", "--upstream-client-ip=xclient"}, 0},
		{"proxy2", []string{"--upstream=smtp://localhost:25", "--upstream-client-ip=proxy2"}, 0},
		{"refused here", []string{"--upstream=smtp://localhost:25", "--refuse-relay=yes", "--local-domains=y.test"}, 0},
		{"everybody trusted", []string{"--upstream=smtp://localhost:25", "--refuse-relay=yes", "--local-domains=y.test", "--relay-clients=0.0.0.0/0"}, 1},
		{"loopback trusted", []string{"--upstream=smtp://192.0.2.1", "--refuse-relay=yes", "--local-domains=y.test", "--relay-clients=127.0.0.1"}, 0},
		{"no domains", []string{"--upstream=smtp://192.0.2.1", "--refuse-relay=yes"}, 1},
		{"stamps for all", []string{"--upstream=smtp://localhost:25", "--clientip-dir=/tmp", "--clientip-scope=session"}, 0},
		{"stamps to relay", []string{"--upstream=smtp://localhost:25", "--clientip-dir=/tmp", "--clientip-scope=relay"}, 0},
		{"local clients only", []string{"--upstream=smtp://localhost:25", "--smtp=inet:2525"}, 0},
		{"outside, too", []string{"--upstream=smtp://localhost:25", "--smtp=inet:2525", "--submission=inet_any:587"}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := new(program)
			p.settings = *parseSettings(t, tt.args...)
			if got := p.settings.relayWarnings(t.Context(), nil); len(got) != tt.want {
				t.Errorf("%d warnings, want %d: %q", len(got), tt.want, got)
			}
		})
	}
}

// TestUselessWarning: settings that keep out those whom they are for are warned of.
func TestUselessWarning(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args string
		want string
	}{
		{"--submission=inet:2587", "nobody can log in"},
		{"--submission=inet:2587 --auth-requires-tls=no", ""},
		{"--refuse-relay=yes --local-domains=y.test --xforward-from=127.0.0.0/8", "xforward-from"},
		{"--xforward-from=127.0.0.0/8", ""},
	} {
		s := parseSettings(t, append(strings.Fields(tt.args), "--upstream=smtp://192.0.2.1")...)
		got := strings.Join(s.uselessWarnings(), "\n")
		if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
			t.Errorf("%s: warned %q, want %q", tt.args, got, tt.want)
		}
	}
}

// TestExplainAsksUpstream shows what the next hop makes of an outside client, without a message.
func TestExplainAsksUpstream(t *testing.T) {
	t.Parallel()
	l, b := startFront(t)
	b.Answer(func(a testenv.Asked) string {
		if a.Verb == "RCPT" && strings.Contains(a.Line, "bad@") {
			return "554 5.7.1 <bad>: Relay access denied"
		}
		return ""
	})
	ask := func(status int, args []string, want ...string) {
		t.Helper()
		p := new(program)
		p.settings = *parseSettings(t, append([]string{behind(b), "--upstream-client-ip=proxy2", "--local-domains=y.test", "explain", "--client=192.0.2.7", "--from=a@b.test"}, args...)...)
		var out, errs strings.Builder
		if got := p.explain(&out, &errs); got != status {
			t.Errorf("status %d, want %d\n%s%s", got, status, &out, &errs)
		}
		for _, text := range want {
			if !strings.Contains(out.String(), text) {
				t.Errorf("no %q in\n%s", text, &out)
			}
		}
	}
	ask(0, []string{"--ask-upstream", "--to=x@outside.test", "--to=bob@y.test"}, "upstream       open   <x@outside.test> 250", "it relays to <x@outside.test> for 192.0.2.7", "open   <bob@y.test> 250")
	ask(1, []string{"--ask-upstream", "--to=bad@outside.test"}, "upstream       shut   554 5.7.1")
	l.mu.Lock()
	if len(l.headers) == 0 || l.headers[0].Source.Addr().String() != "192.0.2.7" {
		t.Errorf("headers %v do not name the client", l.headers)
	}
	l.mu.Unlock()
	if len(b.Messages()) != 0 {
		t.Error("a message was sent")
	}
	if all := strings.Join(b.Commands(), "\n"); !strings.Contains(all, "RSET") || strings.Contains(all, "DATA") {
		t.Errorf("commands:\n%s", all)
	}
	b.Close()
	ask(75, []string{"--ask-upstream", "--to=bob@y.test"}, "upstream       shut   451 4.4.1")
}
