package test

import (
	"crypto/tls"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/testenv"
)

// readable lets the proxy's user read a file again after the start.
func readable(t *testing.T, file string) {
	t.Helper()
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestHangupReadsCertificates has the real proxy read again what TLS begins with on both sides: the certificates it shows
// to clients, that it shows to the next hop, and the authorities whose servers it trusts.
func TestHangupReadsCertificates(t *testing.T) {
	t.Parallel()
	ca, other := testenv.NewAuthority(t), testenv.NewAuthority(t)
	shown := make(chan string, 100)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := testenv.ServeBackend(t, tls.NewListener(l, &tls.Config{
		Certificates: []tls.Certificate{ca.Issue("127.0.0.1", time.Hour)}, ClientAuth: tls.RequireAnyClientCert,
		VerifyConnection: func(s tls.ConnectionState) error {
			shown <- s.PeerCertificates[0].Subject.CommonName
			return nil
		},
	}))
	ours, theirs := testenv.ShortDir(t), testenv.ShortDir(t)
	authority := ca.File(theirs)
	issue := func(name string) (args []string) {
		cert, key := ca.Files(ours, "clients-"+name)
		upCert, upKey := ca.Files(theirs, "server-"+name)
		readable(t, key)
		readable(t, upKey)
		return []string{"--tls-cert", cert, "--tls-key", key, "--upstream-tls", "verify", "--upstream-tls-ca", authority,
			"--upstream-tls-cert", upCert, "--upstream-tls-key", upKey}
	}
	address, p := startProxyTo(t, "smtps://"+b.Addr, issue("old")...)
	// one sends a message and gives the names of both certificates, the server's side only if it was connected to anew.
	one := func() (toClient, toServer string) {
		c := dialSMTP(t, address)
		defer c.Close()
		c.say("STARTTLS\r\n", "220")
		s := c.secured()
		s.say("EHLO client.example.org\r\n", "250")
		s.message()
		toClient = s.Conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Subject.CommonName
		for len(shown) > 0 {
			toServer = testenv.Receive(t, "a name", shown)
		}
		return toClient, toServer
	}
	if toClient, toServer := one(); toClient != "clients-old" || toServer != "server-old" {
		t.Fatalf("certificates %s and %s", toClient, toServer)
	}
	if _, toServer := one(); toServer != "" {
		t.Error("the connection to the server was not used again")
	}
	issue("new")
	p.Stop(syscall.SIGHUP)
	fresh := false // the next hop has seen the new one
	testenv.Eventually(t, "the new certificate for clients", func() bool {
		toClient, toServer := one()
		fresh = fresh || toServer == "server-new"
		return toClient == "clients-new"
	})
	if !fresh {
		t.Error("the server was not shown the new certificate")
	}
	other.File(theirs)
	p.Stop(syscall.SIGHUP)
	testenv.Eventually(t, "the server is not trusted any more", func() bool {
		c := dialSMTP(t, address)
		defer c.Close()
		c.say("MAIL FROM:<ann@example.org>\r\n", "250")
		return strings.HasPrefix(c.say("RCPT TO:<bob@example.net>\r\n", ""), "451 4.7.5")
	})
	// Files that are no good change nothing.
	if err := os.WriteFile(authority, []byte("nothing\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p.Stop(syscall.SIGHUP)
	p.WaitOutput("settings are not reloaded")
}
