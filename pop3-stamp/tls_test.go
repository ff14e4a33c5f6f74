package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/testenv"
)

// withTLS are the flags for a certificate, and the settings of a client that trusts it.
func withTLS(t testing.TB) (flags []string, client *tls.Config) {
	t.Helper()
	cert, key := testenv.Certificate(t, t.TempDir())
	pem, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return []string{"--tls-cert", cert, "--tls-key", key}, &tls.Config{RootCAs: pool, ServerName: "localhost"}
}

// A client behind a load balancer has as long for its handshake as any other.
func TestPOP3SHandshakeTime(t *testing.T) {
	t.Parallel()
	flags, conf := withTLS(t)
	flags = append(flags, "--pop3s", "inet:1", "--proxy-from", "127.0.0.1")
	r := start(t, backendAt(t, mailbox("")), append(flags, "--proxy-timeout", "1s", "--tls-timeout", "1h")...)
	var p *peer
	testenv.Eventually(t, "a header in time, and a session that outlasts that time", func() bool {
		p = behindBalancer(t, r, "PROXY TCP4 192.0.2.7 192.0.2.25 4444 995\r\n")
		testenv.Pause(1100 * time.Millisecond)
		return testenv.Silent(p)
	})
	p.upgrade(conf).want("+OK pop.test")
	// One that stalls ends long before the time to log in.
	r = start(t, backendAt(t, mailbox("")), append(flags, "--tls-timeout", "1s", "--login-timeout", "1h")...)
	for _, header := range []string{"PROXY TCP4 192.0.2.7 192.0.2.25 4444 995\r\n", "PROXY TCP4 192.0.2.7 192.0.2.25 4444 995\r\n\x16\x03\x01"} {
		behindBalancer(t, r, header).ended()
	}
}

// Nobody logs in without a certificate where one is required.
func TestClientCertificate(t *testing.T) {
	t.Parallel()
	ca, other := testenv.NewAuthority(t), testenv.NewAuthority(t)
	dir := t.TempDir()
	cert, key := ca.Files(dir, "localhost")
	r := start(t, backendAt(t, mailbox("")), "--tls-cert", cert, "--tls-key", key, "--tls-client-ca", ca.File(dir), "--tls-client-cert", "require", "--sasl", "PLAIN")
	p := r.client(t)
	for _, line := range []string{"USER bob", "PASS secret word", "AUTH PLAIN"} {
		p.ask(line, "-ERR [AUTH] use STLS first")
	}
	for _, certs := range [][]tls.Certificate{nil, {other.Issue("foreign.test", time.Hour)}} {
		p := r.client(t)
		p.ask("STLS", "+OK")
		tc := tls.Client(p.Conn, &tls.Config{RootCAs: ca.Pool, ServerName: "localhost", Certificates: certs})
		if tc.Handshake() == nil { // with TLS 1.3 the client hears of its refusal only now
			p = newPeer(t, tc)
			p.send("USER bob\r\n")
			if line := p.line(); line != "" {
				t.Errorf("answered with %q", line)
			}
		}
	}
	p.ask("STLS", "+OK")
	p = p.upgrade(&tls.Config{RootCAs: ca.Pool, ServerName: "localhost", Certificates: []tls.Certificate{ca.Issue("good.test", time.Hour)}})
	p.ask("USER bob", "+OK")
	p.ask("PASS secret word", "+OK logged in")
	if !strings.Contains(r.log.String(), "subject=\"CN=good.test\"") {
		t.Error("the certificate is not in the log")
	}
}

// The upstream server is checked against upstream-tls-ca, gets our certificate, and both are read again.
func TestUpstreamCertificates(t *testing.T) {
	t.Parallel()
	ca, other := testenv.NewAuthority(t), testenv.NewAuthority(t)
	dir := t.TempDir()
	cert, key := ca.Files(dir, "stamp.test")
	authority := ca.File(dir)
	conf := &tls.Config{Certificates: []tls.Certificate{ca.Issue("127.0.0.1", time.Hour)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool}
	server := func(p *peer) { mailbox("")(newPeer(p.t, tls.Server(p.Conn, conf))) }
	url := strings.Replace(backendAt(t, server), "pop3:", "pop3s:", 1)
	r := start(t, url, "--upstream-tls", "verify", "--upstream-tls-ca", authority, "--upstream-tls-cert", cert, "--upstream-tls-key", key)
	r.login(t).ask("QUIT", "+OK")
	other.File(dir)
	r.hangup <- syscall.SIGHUP
	testenv.Eventually(t, "a server with a certificate of the old authority is not taken", func() bool {
		p := r.client(t)
		p.ask("USER bob", "+OK")
		p.send("PASS secret word\r\n")
		return strings.HasPrefix(p.line(), "-ERR [SYS/TEMP]")
	})
}

// upgrade does the handshake of a client.
func (p *peer) upgrade(conf *tls.Config) *peer {
	p.t.Helper()
	tc := tls.Client(p.Conn, conf)
	if err := tc.Handshake(); err != nil {
		p.t.Fatal(err)
	}
	return &peer{p.t, tc, bufio.NewReader(tc)}
}

func TestSTLS(t *testing.T) {
	t.Parallel()
	flags, conf := withTLS(t)
	r := start(t, backendAt(t, mailbox("")), append(flags, "--login-requires-tls", "--sasl", "PLAIN")...)
	p := r.client(t)
	p.ask("USER bob", "-ERR [AUTH] use STLS first")
	p.ask("AUTH PLAIN", "-ERR [AUTH] use STLS first")
	p.ask("STLS now", "-ERR")
	p.ask("STLS", "+OK")
	p = p.upgrade(conf)
	p.ask("STLS", "-ERR TLS is in use already")
	p.ask("CAPA", "+OK")
	for line := p.line(); line != "."; line = p.line() {
		if line == "STLS" || line == "" {
			t.Errorf("capability %q within TLS", line)
			break
		}
	}
	p.ask("USER bob", "+OK")
	p.ask("PASS secret word", "+OK logged in")
	p.ask("QUIT", "+OK")
	if r.stampLine(t) == "" {
		t.Error("no stamp")
	}
}

// TestSTLSForgetsUser gives the name in clear and the password within TLS.
func TestSTLSForgetsUser(t *testing.T) {
	t.Parallel()
	flags, conf := withTLS(t)
	p := start(t, backendAt(t, mailbox("")), flags...).client(t)
	p.ask("USER eve", "+OK")
	p.ask("STLS", "+OK")
	p.upgrade(conf).ask("PASS secret word", "-ERR USER first")
}

// TLS-03: commands in clear behind STLS are not answered, in clear or within TLS.
func TestTLS_03_CommandsBehindSTLS(t *testing.T) {
	t.Parallel()
	flags, _ := withTLS(t)
	r := start(t, backendAt(t, mailbox("")), flags...)
	for _, behind := range []string{"USER eve\r\n", "QUIT\r\n", strings.Repeat("NOOP\r\n", 1000)} {
		p := r.client(t)
		p.send("STLS\r\n" + behind)
		p.want("-ERR protocol error")
		if line := p.line(); line != "" {
			t.Errorf("and then %q", line)
		}
	}
}

func TestSTLSNotOffered(t *testing.T) {
	t.Parallel()
	p := start(t, backendAt(t, mailbox(""))).client(t)
	p.ask("STLS", "-ERR TLS is not available")
}

func TestPOP3S(t *testing.T) {
	t.Parallel()
	flags, conf := withTLS(t)
	flags = append(flags, "--pop3s", "inet:1")
	r := start(t, backendAt(t, mailbox("")), flags...)
	c := testenv.Dial(t, "tcp", r.addr)
	p := newPeer(t, c).upgrade(conf)
	p.want("+OK pop.test POP3 ready")
	p.ask("USER bob", "+OK")
	p.ask("PASS secret word", "+OK")
	// One that is none gets nothing in clear but an alert of TLS.
	p = newPeer(t, testenv.Dial(t, "tcp", r.addr))
	p.send("USER bob\r\n")
	if line := p.line(); strings.HasPrefix(line, "+OK") || strings.HasPrefix(line, "-ERR") {
		t.Errorf("in clear: %q", line)
	}
	// A handshake that stalls ends with the time to log in.
	r = start(t, backendAt(t, mailbox("")), append(flags, "--login-timeout", "300ms")...)
	newPeer(t, testenv.Dial(t, "tcp", r.addr)).ended()
}

// withSTLS is an upstream server that says +OK to all within TLS, whose handshake it is slow to begin.
func withSTLS(t *testing.T, slow time.Duration) backendFunc {
	cert, key := testenv.Certificate(t, t.TempDir())
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return func(p *peer) {
		p.send("+OK\r\n")
		if p.line() != "STLS" {
			p.send("-ERR STLS first\r\n")
			return
		}
		p.send("+OK go\r\n")
		testenv.Pause(slow)
		inner := newPeer(p.t, tls.Server(p.Conn, &tls.Config{Certificates: []tls.Certificate{pair}}))
		for line := inner.line(); line != ""; line = inner.line() {
			inner.send("+OK\r\n")
		}
	}
}

// An upstream server may be longer about its handshake than the client is left alone meanwhile.
func TestUpstreamHandshakeTime(t *testing.T) {
	t.Parallel()
	p := start(t, backendAt(t, withSTLS(t, 2*lookEvery)), "--upstream-tls", "require").client(t)
	p.ask("USER bob", "+OK")
	p.ask("PASS secret word", "+OK")
}

// TLS-14: upstream servers that mean TLS to different degrees.
func TestTLS_14_ServersThatMeanTLSByHalves(t *testing.T) {
	t.Parallel()
	good := withSTLS(t, 0)
	seen := make(chan string, 100)
	never := func(answer, then string) backendFunc {
		return func(p *peer) {
			p.send("+OK\r\n")
			for line := p.line(); line != ""; line = p.line() {
				seen <- line
				if line == "STLS" {
					p.send(answer + then)
					continue
				}
				p.send("+OK\r\n")
			}
		}
	}
	tests := []struct {
		name   string
		mode   string
		server backendFunc
		works  bool
	}{
		{"require", "require", good, true},
		{"may", "may", good, true},
		{"verify, self-signed", "verify", good, false},
		{"refused, require", "require", never("-ERR no\r\n", ""), false},
		{"refused, may", "may", never("-ERR no\r\n", ""), true},
		{"goes on in clear", "require", never("+OK go\r\n", ""), false},
		{"bytes behind +OK", "require", never("+OK go\r\n", "+OK\r\n+OK\r\n"), false},
		{"goes on in clear, may", "may", never("+OK go\r\n", "+OK\r\n"), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			limit := "2s"
			if tt.works {
				limit = "1m"
			}
			r := start(t, backendAt(t, tt.server), "--upstream-tls", tt.mode, "--connect-timeout", limit, "--upstream-timeout", limit)
			p := r.client(t)
			_ = testenv.Patient(p)
			p.ask("USER bob", "+OK")
			want := "-ERR [SYS/TEMP]"
			if tt.works {
				want = "+OK"
			}
			p.ask("PASS secret word", want)
			for len(seen) > 0 {
				if line := testenv.Receive(t, "a line that was seen", seen); strings.Contains(line, "secret") && !tt.works {
					t.Errorf("the password went out in clear: %q", line)
				}
			}
		})
	}
}

// elsewhere is a connection to a server that seems to be on another host.
type elsewhere struct{ net.Conn }

func (elsewhere) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 110} }

// TestTLS_70_NoLoginInClear has the way to a server lose STLS, as anybody on it can: with may, nothing goes in clear to
// another host, neither a password nor a digest; where nobody else listens it does.
func TestTLS_70_NoLoginInClear(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		mode string
		near bool
		want bool
	}{{"may", false, false}, {"may", true, true}, {"require", false, false}, {"require", true, false}} {
		t.Run(fmt.Sprintf("%s near %v", tt.mode, tt.near), func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			ours := testenv.Dial(t, "tcp", l.Addr().String())
			theirs, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer theirs.Close()
			_ = testenv.Patient(theirs)
			if !tt.near {
				ours = elsewhere{ours}
			}
			b := &backend{timeout: time.Minute, gone: func() parting { return here }}
			b.use(ours)
			server := testenv.Go(t, "the server", func() error {
				if _, err := bufio.NewReader(theirs).ReadString('\n'); err != nil {
					return err
				}
				_, err := io.WriteString(theirs, "-ERR no\r\n")
				return err
			})
			if err := b.startTLS(t.Context(), tt.mode); (err == nil) != tt.want {
				t.Errorf("in clear: %v, want %v", err, tt.want)
			}
			server.Wait()
		})
	}
}
