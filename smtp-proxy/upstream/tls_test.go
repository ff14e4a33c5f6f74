package upstream

import (
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"postern/internal/testenv"
)

const tlsEhlo = "250-peer.test\r\n250-PIPELINING\r\n250 STARTTLS\r\n"

// serveStartTLS is a server with STARTTLS; extra is sent in clear behind its reply, in the same write. It
// gives what it heard before TLS, and goes on as a good server.
func (c *peerConn) serveStartTLS(conf *tls.Config, extra string) {
	c.say("220 peer.test ESMTP\r\n")
	for {
		switch line := c.line(); {
		case line == "":
			return
		case line == "STARTTLS":
			c.say("220 2.0.0 Go\r\n" + extra)
			if c.startTLS(conf) {
				c.serveCommands(replies{}, func(text, good string) {
					if text == "" {
						text = good
					}
					c.say(text)
				})
			}
			return
		case strings.HasPrefix(line, "EHLO"):
			c.say(tlsEhlo)
		default:
			c.say("250 in clear\r\n")
		}
	}
}

func (c *peerConn) startTLS(conf *tls.Config) bool {
	nc := tls.Server(c.Conn, conf)
	_ = testenv.Patient(nc)
	if nc.Handshake() != nil {
		return false
	}
	_ = nc.SetDeadline(time.Time{})
	c.Conn = nc
	c.r.Reset(nc)
	return true
}

func TestStartTLS(t *testing.T) {
	t.Parallel()
	ca := testenv.NewAuthority(t)
	for _, mode := range []TLS{TLSMay, TLSRequire, TLSVerify} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(string(mode)+"/"+tls.VersionName(version), func(t *testing.T) {
				conf := &tls.Config{Certificates: []tls.Certificate{ca.Issue("127.0.0.1", time.Hour)}, MaxVersion: version}
				p := startPeer(t, func(c *peerConn) { c.serveStartTLS(conf, "") })
				set := newSet(t, Config{URLs: []string{p.url()}, TLS: mode, TLSConfig: &tls.Config{RootCAs: ca.Pool}})
				for range 3 {
					c := get(t, set, Client{})
					if c.Capabilities().StartTLS || !c.Capabilities().DSN {
						t.Errorf("capabilities are those in clear: %+v", c.Capabilities())
					}
					if code, _ := send(t, c, "a@a.test", "b@b.test", strings.Repeat("content\r\n", 10000)); code != 250 {
						t.Errorf("code %d", code)
					}
					c.Release()
				}
				if p.count() != 1 {
					t.Errorf("%d connections, want 1", p.count())
				}
				// What a server says while idle is heard within TLS, too.
				p.mu.Lock()
				p.conns[0].say("421 4.4.2 Timeout\r\n")
				p.mu.Unlock()
				c := get(t, set, Client{})
				defer c.Release()
				if code, _ := send(t, c, "a@a.test", "b@b.test", "x\r\n"); code != 250 || p.count() != 2 {
					t.Errorf("code %d on %d connections", code, p.count())
				}
			})
		}
	}
}

// TLS-04: bytes in clear behind the reply to STARTTLS end the connection; they are never read as if they had
// come within TLS.
func TestTLS_04_BytesBehindTheReplyToStartTLS(t *testing.T) {
	t.Parallel()
	ca := testenv.NewAuthority(t)
	conf := &tls.Config{Certificates: []tls.Certificate{ca.Issue("127.0.0.1", time.Hour)}}
	for _, mode := range []TLS{TLSMay, TLSRequire, TLSVerify} {
		t.Run(string(mode), func(t *testing.T) {
			p := startPeer(t, func(c *peerConn) { c.serveStartTLS(conf, "250-AUTH PLAIN\r\n250 ok\r\n") })
			set := newSet(t, Config{URLs: []string{p.url()}, TLS: mode, TLSConfig: &tls.Config{RootCAs: ca.Pool}})
			r, err := getError(t, set, Client{})
			if r.Code != 451 || !errors.Is(err, ErrProtocol) {
				t.Errorf("got %v, %v", r, err)
			}
		})
	}
}

// TLS-05: nothing is sent behind STARTTLS until the server has answered.
func TestTLS_05_NothingIsSentBehindStartTLS(t *testing.T) {
	t.Parallel()
	waits := make(chan bool, 1)
	p := startPeer(t, func(c *peerConn) {
		c.say("220 a\r\n")
		c.line()
		c.say(tlsEhlo)
		c.line()
		_ = testenv.Impatient(c)
		_, err := c.r.ReadByte()
		waits <- errors.Is(err, errTimeout(err))
	})
	set := newSet(t, Config{URLs: []string{p.url()}, TLS: TLSRequire, HelloTimeout: testenv.Patience})
	getError(t, set, Client{})
	if !testenv.Receive(t, "what comes behind STARTTLS", waits) {
		t.Error("something was sent behind STARTTLS")
	}
}

// errTimeout gives err if it is a timeout.
func errTimeout(err error) error {
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return err
	}
	return errors.New("no timeout")
}

// TLS-08: with require nothing is sent in clear but EHLO and STARTTLS.
func TestTLS_08_NothingInClearWithRequire(t *testing.T) {
	t.Parallel()
	ca := testenv.NewAuthority(t)
	conf := &tls.Config{Certificates: []tls.Certificate{ca.Issue("127.0.0.1", time.Hour)}}
	for _, test := range []struct {
		name   string
		handle func(c *peerConn)
	}{
		{"not offered", good},
		{"454", func(c *peerConn) { c.serve(replies{ehlo: tlsEhlo, other: "454 4.7.0 Not now\r\n"}) }},
		{"502", func(c *peerConn) { c.serve(replies{ehlo: tlsEhlo, other: "502 5.5.1 What\r\n"}) }},
		{"250", func(c *peerConn) { c.serve(replies{ehlo: tlsEhlo, other: "250 Ok\r\n"}) }},
		{"goes on in clear", func(c *peerConn) { c.serve(replies{ehlo: tlsEhlo, other: "220 Go\r\n"}) }},
		{"closes", func(c *peerConn) {
			c.say("220 a\r\n")
			c.line()
			c.say(tlsEhlo)
			c.line()
			c.say("220 Go\r\n")
		}},
		{"old TLS", func(c *peerConn) {
			old := conf.Clone()
			old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
			c.serveStartTLS(old, "")
		}},
	} {
		for _, mode := range []TLS{TLSRequire, TLSVerify} {
			t.Run(test.name+"/"+string(mode), func(t *testing.T) {
				p := startPeer(t, test.handle)
				limit := testenv.Patience
				if test.name == "goes on in clear" {
					limit = second // runs out
				}
				set := newSet(t, Config{URLs: []string{p.url()}, TLS: mode, HelloTimeout: limit})
				r, _ := getError(t, set, Client{})
				if r.Code != 451 || r.Enhanced != "4.7.4" {
					t.Errorf("reply for the client is %v", r)
				}
				for _, verb := range []string{"MAIL", "RCPT", "DATA", "AUTH", "XCLIENT", "HELO"} {
					if p.told(verb) {
						t.Errorf("sent in clear: %s", verb)
					}
				}
			})
		}
	}
	t.Run("smtps that is none", func(t *testing.T) {
		p := startPeer(t, good)
		set := newSet(t, Config{URLs: []string{strings.Replace(p.url(), "smtp:", "smtps:", 1)}, TLS: TLSMay, HelloTimeout: testenv.Patience})
		if r, _ := getError(t, set, Client{}); r.Enhanced != "4.7.4" {
			t.Errorf("reply for the client is %v", r)
		}
		if p.told("EHLO") {
			t.Error("EHLO was sent in clear")
		}
	})
}

// TLS-09: with verify the certificate must be the host's.
func TestTLS_09_CertificateOfAnother(t *testing.T) {
	t.Parallel()
	ca, other := testenv.NewAuthority(t), testenv.NewAuthority(t)
	for _, test := range []struct {
		name string
		cert tls.Certificate
	}{
		{"wrong host", ca.Issue("127.0.0.2", time.Hour)},
		{"wrong name", ca.Issue("mx.test", time.Hour)},
		{"expired", ca.Issue("127.0.0.1", -time.Hour)},
		{"unknown authority", other.Issue("127.0.0.1", time.Hour)},
	} {
		t.Run(test.name, func(t *testing.T) {
			conf := &tls.Config{Certificates: []tls.Certificate{test.cert}}
			p := startPeer(t, func(c *peerConn) { c.serveStartTLS(conf, "") })
			roots := &tls.Config{RootCAs: ca.Pool}
			r, err := getError(t, newSet(t, Config{URLs: []string{p.url()}, TLS: TLSVerify, TLSConfig: roots}), Client{})
			if r.Code != 451 || r.Enhanced != "4.7.5" {
				t.Errorf("reply for the client is %v (%v)", r, err)
			}
			if p.told("MAIL") {
				t.Error("mail was sent")
			}
			get(t, newSet(t, Config{URLs: []string{p.url()}, TLS: TLSRequire, TLSConfig: roots}), Client{}).Release()
		})
	}
}

// With may a server whose TLS is broken is spoken to without, and not asked for TLS again for a while.
func TestMayGoesOnInClear(t *testing.T) {
	t.Parallel()
	ca := testenv.NewAuthority(t)
	old := &tls.Config{Certificates: []tls.Certificate{ca.Issue("x", time.Hour)}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	p := startPeer(t, func(c *peerConn) { c.serveStartTLS(old, "") })
	set := newSet(t, Config{URLs: []string{p.url()}, TLS: TLSMay})
	a, b := get(t, set, Client{}), get(t, set, Client{})
	defer a.Abort()
	defer b.Abort()
	say(t, b, envelope[:1], 250)
	if p.count() != 3 {
		t.Errorf("%d connections, want 3: with TLS, without, without", p.count())
	}
}

// smtps:// with a client certificate, and SNI.
func TestSMTPS(t *testing.T) {
	t.Parallel()
	ca := testenv.NewAuthority(t)
	names := make(chan string, 1)
	conf := &tls.Config{
		Certificates: []tls.Certificate{ca.Issue("localhost", time.Hour)},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool,
		VerifyConnection: func(s tls.ConnectionState) error { names <- s.ServerName; return nil },
	}
	p := startPeer(t, func(c *peerConn) {
		if c.startTLS(conf) {
			c.serve(replies{})
		}
	})
	url := strings.Replace(strings.Replace(p.url(), "smtp:", "smtps:", 1), "127.0.0.1", "localhost", 1)
	ours := &tls.Config{RootCAs: ca.Pool, Certificates: []tls.Certificate{ca.Issue("proxy.test", time.Hour)}}
	c := get(t, newSet(t, Config{URLs: []string{url}, TLS: TLSVerify, TLSConfig: ours}), Client{})
	defer c.Release()
	if code, _ := send(t, c, "a@a.test", "b@b.test", "x\r\n"); code != 250 {
		t.Errorf("code %d", code)
	}
	if name := testenv.Receive(t, "a server name", names); name != "localhost" {
		t.Errorf("SNI is %q", name)
	}
}

// UseTLS exchanges roots and certificate; what came of the old ones is not used again, not even a TLS session.
func TestUseTLS(t *testing.T) {
	t.Parallel()
	ca, other := testenv.NewAuthority(t), testenv.NewAuthority(t)
	names := make(chan string, 10)
	conf := &tls.Config{
		Certificates: []tls.Certificate{ca.Issue("127.0.0.1", time.Hour)}, ClientAuth: tls.RequireAnyClientCert,
		VerifyConnection: func(s tls.ConnectionState) error {
			names <- s.PeerCertificates[0].Subject.CommonName
			return nil
		},
	}
	p := startPeer(t, func(c *peerConn) { c.serveStartTLS(conf, "") })
	ours := func(roots *testenv.Authority, name string) *tls.Config {
		return &tls.Config{RootCAs: roots.Pool, Certificates: []tls.Certificate{ca.Issue(name, time.Hour)}}
	}
	set := newSet(t, Config{URLs: []string{p.url()}, TLS: TLSVerify, TLSConfig: ours(ca, "old.test")})
	busy := get(t, set, Client{})
	get(t, set, Client{}).Release()
	set.UseTLS(ours(ca, "new.test"))
	if idle := set.Stats()[0].Idle; idle != 0 {
		t.Errorf("%d idle connections of the old certificate", idle)
	}
	say(t, busy, envelope[:1], 250) // it serves to the end
	busy.Release()
	if idle := set.Stats()[0].Idle; idle != 0 {
		t.Errorf("%d connections of the old certificate are kept", idle)
	}
	fresh := get(t, set, Client{})
	fresh.Release()
	for i, want := range []string{"old.test", "old.test", "new.test"} {
		if got := testenv.Receive(t, "a certificate", names); got != want {
			t.Errorf("connection %d showed %s, want %s", i, got, want)
		}
	}
	set.UseTLS(ours(other, "new.test"))
	if r, _ := getError(t, set, Client{}); r.Enhanced != "4.7.5" {
		t.Errorf("an authority that is not trusted any more: %v", r)
	}
}
