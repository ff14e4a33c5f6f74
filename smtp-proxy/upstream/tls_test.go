package upstream

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

// authority makes certificates for a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{pool: x509.NewCertPool()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.key = key
	a.pool.AddCert(a.cert)
	return a
}

// issue makes a certificate for a name or an address, valid for so long from now.
func (a *authority) issue(t *testing.T, host string, valid time.Duration) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: host},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(valid),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

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
	_ = nc.SetDeadline(time.Now().Add(5 * time.Second))
	if nc.Handshake() != nil {
		return false
	}
	_ = nc.SetDeadline(time.Time{})
	c.Conn = nc
	c.r.Reset(nc)
	return true
}

func TestStartTLS(t *testing.T) {
	ca := newAuthority(t)
	for _, mode := range []TLS{TLSMay, TLSRequire, TLSVerify} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(string(mode)+"/"+tls.VersionName(version), func(t *testing.T) {
				conf := &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "127.0.0.1", time.Hour)}, MaxVersion: version}
				p := startPeer(t, func(c *peerConn) { c.serveStartTLS(conf, "") })
				set := newSet(t, Config{URLs: []string{p.url()}, TLS: mode, TLSConfig: &tls.Config{RootCAs: ca.pool}})
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
func TestTLS_04(t *testing.T) {
	ca := newAuthority(t)
	conf := &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "127.0.0.1", time.Hour)}}
	for _, mode := range []TLS{TLSMay, TLSRequire, TLSVerify} {
		t.Run(string(mode), func(t *testing.T) {
			p := startPeer(t, func(c *peerConn) { c.serveStartTLS(conf, "250-AUTH PLAIN\r\n250 ok\r\n") })
			set := newSet(t, Config{URLs: []string{p.url()}, TLS: mode, TLSConfig: &tls.Config{RootCAs: ca.pool}})
			r, err := getError(t, set, Client{})
			if r.Code != 451 || !errors.Is(err, ErrProtocol) {
				t.Errorf("got %v, %v", r, err)
			}
		})
	}
}

// TLS-05: nothing is sent behind STARTTLS until the server has answered.
func TestTLS_05(t *testing.T) {
	waits := make(chan bool, 1)
	p := startPeer(t, func(c *peerConn) {
		c.say("220 a\r\n")
		c.line()
		c.say(tlsEhlo)
		c.line()
		_ = c.SetReadDeadline(time.Now().Add(second / 5))
		_, err := c.r.ReadByte()
		waits <- errors.Is(err, errTimeout(err))
	})
	set := newSet(t, Config{URLs: []string{p.url()}, TLS: TLSRequire, HelloTimeout: second})
	getError(t, set, Client{})
	if !<-waits {
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
func TestTLS_08(t *testing.T) {
	ca := newAuthority(t)
	conf := &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "127.0.0.1", time.Hour)}}
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
				set := newSet(t, Config{URLs: []string{p.url()}, TLS: mode, HelloTimeout: second})
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
		set := newSet(t, Config{URLs: []string{strings.Replace(p.url(), "smtp:", "smtps:", 1)}, TLS: TLSMay, HelloTimeout: second})
		if r, _ := getError(t, set, Client{}); r.Enhanced != "4.7.4" {
			t.Errorf("reply for the client is %v", r)
		}
		if p.told("EHLO") {
			t.Error("EHLO was sent in clear")
		}
	})
}

// TLS-09: with verify the certificate must be the host's.
func TestTLS_09(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	for _, test := range []struct {
		name string
		cert tls.Certificate
	}{
		{"wrong host", ca.issue(t, "127.0.0.2", time.Hour)},
		{"wrong name", ca.issue(t, "mx.test", time.Hour)},
		{"expired", ca.issue(t, "127.0.0.1", -time.Hour)},
		{"unknown authority", other.issue(t, "127.0.0.1", time.Hour)},
	} {
		t.Run(test.name, func(t *testing.T) {
			conf := &tls.Config{Certificates: []tls.Certificate{test.cert}}
			p := startPeer(t, func(c *peerConn) { c.serveStartTLS(conf, "") })
			roots := &tls.Config{RootCAs: ca.pool}
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
	ca := newAuthority(t)
	old := &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "x", time.Hour)}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
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
	ca := newAuthority(t)
	names := make(chan string, 1)
	conf := &tls.Config{
		Certificates: []tls.Certificate{ca.issue(t, "localhost", time.Hour)},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: ca.pool,
		VerifyConnection: func(s tls.ConnectionState) error { names <- s.ServerName; return nil },
	}
	p := startPeer(t, func(c *peerConn) {
		if c.startTLS(conf) {
			c.serve(replies{})
		}
	})
	url := strings.Replace(strings.Replace(p.url(), "smtp:", "smtps:", 1), "127.0.0.1", "localhost", 1)
	ours := &tls.Config{RootCAs: ca.pool, Certificates: []tls.Certificate{ca.issue(t, "proxy.test", time.Hour)}}
	c := get(t, newSet(t, Config{URLs: []string{url}, TLS: TLSVerify, TLSConfig: ours}), Client{})
	defer c.Release()
	if code, _ := send(t, c, "a@a.test", "b@b.test", "x\r\n"); code != 250 {
		t.Errorf("code %d", code)
	}
	if name := <-names; name != "localhost" {
		t.Errorf("SNI is %q", name)
	}
}
