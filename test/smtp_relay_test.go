package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// trustingPostfix relays for whom Postfix relays when nobody has said otherwise: for its own host.
const trustingPostfix = `mynetworks_style = host
mynetworks =
smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, defer_unauth_destination
smtpd_authorized_xclient_hosts = 127.0.0.0/8
allow_percent_hack = yes
default_transport = discard
`

// startTrustingPostfix starts one. With mynetworks set at all its style would not count.
func startTrustingPostfix(t *testing.T) *testenv.Mailserver {
	t.Helper()
	return testenv.StartPostfix(t, strings.Replace(trustingPostfix, "mynetworks =\n", "mynetworks = 127.0.0.0/8 [::1]/128\n", 1), "")
}

// stranger begins a session as a client of another host, with a sender of another domain.
func stranger(t *testing.T, address string) *smtpClient {
	t.Helper()
	c := dialSMTP(t, address)
	c.say("XCLIENT ADDR=198.51.100.7 NAME=[UNAVAILABLE]\r\n", "220")
	c.say("EHLO stranger.example.com\r\n", "250")
	c.say("MAIL FROM:<ann@example.com>\r\n", "250")
	return c
}

// foreign are recipients of nobody here, as they are and hidden behind a domain of ours.
var foreign = []string{
	"victim@example.com", "victim%example.com@example.net", "example.com!victim@example.net", `"victim@example.com"@example.net`,
	`"victim%example.com"@EXAMPLE.net`, "victim@[198.51.100.9]",
}

// TestRLY_02_SampleIsNoRelay puts the sample settings in front of a Postfix that relays for its own host: mail of a stranger
// for strangers comes through neither the proxy nor, if that is told to let it, the Postfix.
func TestRLY_02_SampleIsNoRelay(t *testing.T) {
	t.Parallel()
	m := startTrustingPostfix(t)
	sample := filepath.Join(testenv.Root(t), "etc", "smtp-proxy.conf")
	for _, tt := range []struct {
		name  string
		args  []string
		reply string
		local string // for a recipient of ours
	}{
		{"as installed", nil, "454 4.7.1", "454 4.7.1"},
		{"with its domains", []string{"--local-domains", "example.net"}, "554 5.7.1", "250"},
		{"the server alone", []string{"--refuse-relay=no"}, "454 4.7.1", "250"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"--config", sample, "--xclient-from", "127.0.0.0/8", "--max-refusals", "100", "--error-delay", "0",
				"--notify", filepath.Join(testenv.ShortDir(t), "notify"), "--socket-group", fmt.Sprint(os.Getgid())}, tt.args...)
			address, _ := startProxyTo(t, "smtp://"+m.Address(), args...)
			for _, to := range foreign {
				stranger(t, address).say("RCPT TO:<"+to+">\r\n", tt.reply)
			}
			stranger(t, address).say("RCPT TO:<bob@example.net>\r\n", tt.local)
		})
	}
}

// TestRLY_03_OpenRelayIsSeen shows what the sample is there to prevent, that --check and the start warn of it, and that explain
// finds it without a message.
func TestRLY_03_OpenRelayIsSeen(t *testing.T) {
	t.Parallel()
	m := startTrustingPostfix(t)
	args := []string{"--upstream", "smtp://" + m.Address(), "--config", "/dev/null"}
	address, p := startProxyTo(t, "smtp://"+m.Address(), "--xclient-from", "127.0.0.0/8")
	stranger(t, address).say("RCPT TO:<victim@example.com>\r\n", "250")
	if strings.Contains(p.Output(), "OPEN RELAY") {
		t.Error("warned of a proxy that only this host can reach")
	}

	program := testenv.Binary(t, "smtp-proxy")
	for _, listeners := range [][]string{{"--smtp", "inet_any:2525"}, {"--smtp", "inet:2525", "--submission", "inet_any:2587"}} {
		_, stderr, status := testenv.Run(t, program, append(append([]string{"--check"}, args...), listeners...)...)
		if status != 0 || !strings.Contains(stderr, "OPEN RELAY? To smtp://"+m.Address()) {
			t.Errorf("--check %q: status %d, %q", listeners, status, stderr)
		}
	}
	for _, safe := range [][]string{{"--upstream-client-ip=xclient"}, {"--refuse-relay", "--local-domains=example.net"}, nil} {
		listener := "inet_any:2525"
		if safe == nil {
			listener = "inet:2525" // which only this host can reach
		}
		_, stderr, status := testenv.Run(t, program, append(append([]string{"--check", "--smtp", listener}, args...), safe...)...)
		if status != 0 || strings.Contains(stderr, "warning") {
			t.Errorf("--check %q: status %d, %q", safe, status, stderr)
		}
	}
	open := testenv.Start(t, exec.Command(program, append(args, "--maxloadavg=0", "--smtp", fmt.Sprintf("inet_any:%d", testenv.FreePort(t)))...))
	open.WaitOutput("OPEN RELAY? To smtp://")

	explain := append(args, "explain", "--client=198.51.100.7", "--from=ann@example.com", "--to=victim@example.com", "--to=bob@example.net", "--ask-upstream")
	stdout, stderr, status := testenv.Run(t, program, append([]string{"--maxloadavg=0", "--local-domains=example.net"}, explain...)...)
	if status != 0 || !strings.Contains(stdout, "it relays to <victim@example.com> for 198.51.100.7") || strings.Contains(stdout, "relays to <bob@") {
		t.Errorf("explain: status %d\n%s%s", status, stdout, stderr)
	}
	stdout, stderr, status = testenv.Run(t, program, append([]string{"--maxloadavg=0", "--upstream-client-ip=xclient", "--local-domains=example.net"}, explain...)...)
	if status != 75 || strings.Contains(stdout, "relays") || !strings.Contains(stdout, "shut   454 4.7.1") {
		t.Errorf("explain with xclient: status %d\n%s%s", status, stdout, stderr)
	}
	testenv.Eventually(t, "Postfix to log the end of the sessions", func() bool { return strings.Count(m.Log(), "disconnect from") >= 3 })
	if strings.Contains(m.Log(), "message-id=") {
		t.Error("a message was sent")
	}
}
