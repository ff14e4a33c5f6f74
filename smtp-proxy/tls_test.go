package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/smtp"
	"postern/internal/testenv"
)

// certificate writes a certificate of that name and its key, and gives the arguments for a proxy.
func certificate(t testing.TB, dir, name string) []string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeFile(t, cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	writeFile(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	return []string{"--tls-cert", cert, "--tls-key", keyFile}
}

// startTLS takes a client through STARTTLS.
func startTLS(c *dialog) *dialog {
	c.t.Helper()
	c.cmd("STARTTLS", "220")
	return secured(c)
}

// secured does the handshake.
func secured(c *dialog) *dialog {
	c.t.Helper()
	tc := tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true})
	if err := tc.Handshake(); err != nil {
		c.t.Fatalf("handshake: %v", err)
	}
	return &dialog{tc, c.t, bufio.NewReader(tc)}
}

func TestStartTLS(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, append(certificate(t, t.TempDir(), "proxy.example"), behind(b))...)
	c := dial(t, p.addr)
	c.expect("220")
	if r := c.cmd("EHLO client.example", "250"); !strings.Contains(strings.Join(r.Lines, "|"), "|STARTTLS|") {
		t.Errorf("EHLO offers %q", r.Lines)
	}
	c = startTLS(c)
	c.cmd("MAIL FROM:<a@b.example>", "503")
	if r := c.cmd("EHLO client.example", "250"); strings.Contains(strings.Join(r.Lines, "|"), "STARTTLS") {
		t.Errorf("EHLO within TLS offers %q", r.Lines)
	}
	c.send("MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
	for _, want := range []string{"250", "250", "354"} {
		c.expect(want)
	}
	c.send("Subject: x\r\n\r\n" + strings.Repeat("line\r\n", 50000) + ".\r\n")
	c.expect("250")
	c.cmd("QUIT", "221")
	if got := b.Messages(); len(got) != 1 || !strings.Contains(got[0].Data, "with ESMTPS id") || len(got[0].Data) < 300000 {
		t.Errorf("%d messages", len(got))
	}
}

// TestStartTLSForgetsAuthentication: who said AUTH in clear may be somebody else than who speaks within TLS (RFC 3207, 4.2).
func TestStartTLSForgetsAuthentication(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Extend("PIPELINING", "AUTH PLAIN")
	p := startProxy(t, append(certificate(t, t.TempDir(), "proxy.example"), behind(b), "--auth-requires-tls=no")...)
	c := greeted(t, p.addr)
	c.cmd("AUTH PLAIN AGEAYg==", "235")
	c = startTLS(c)
	c.cmd("EHLO client.example", "250")
	c.send("MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
	for _, want := range []string{"250", "250", "354"} {
		c.expect(want)
	}
	c.send(smallMessage)
	c.expect("250")
	if got := b.Messages(); len(got) != 1 || !strings.Contains(got[0].Data, "with ESMTPS id") || b.Opened() != 2 {
		t.Errorf("arrived over connection %d as %+v", b.Opened(), got)
	}
	c.cmd("AUTH PLAIN AGEAYg==", "235")
}

func TestSMTPS(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxyAs(t, listenSMTPS, append(certificate(t, t.TempDir(), "proxy.example"), behind(b), "--smtps=inet:1")...)
	c := secured(dial(t, p.addr))
	c.expect("220")
	c.cmd("EHLO client.example", "250")
	c.cmd("STARTTLS", "503")
	c.envelope()
}

// TestTLS_01_CommandBehindStartTLS and the next one: commands behind STARTTLS in clear are never carried out within
// TLS.
func TestTLS_01_CommandBehindStartTLS(t *testing.T) { plainBehindStartTLS(t, "NOOP\r\n") }

func TestTLS_02_MoreCommandsBehindStartTLS(t *testing.T) {
	t.Parallel()
	for _, more := range []string{"RSET\r\n", "MAIL FROM:<evil@x>\r\n", "AUTH PLAIN AAAA\r\n", strings.Repeat("MAIL FROM:<evil@x>\r\n", 400)} {
		plainBehindStartTLS(t, more)
	}
}

func plainBehindStartTLS(t *testing.T, more string) {
	t.Helper()
	b := testenv.StartBackend(t)
	p := startProxy(t, append(certificate(t, t.TempDir(), "proxy.example"), behind(b))...)
	for _, pieces := range [][]string{{"STARTTLS\r\n" + more}, {"STARTTLS\r\n", more}} {
		c := greeted(t, p.addr)
		sendPieces(c, pieces...)
		r, err := smtp.ReadReply(c.r)
		if err != nil {
			continue // closed before the handshake
		}
		if r.Code == 554 {
			c.expectEnd()
			continue
		}
		if r.Code != 220 {
			t.Fatalf("reply %q", r)
		}
		tc := tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true})
		if err := tc.Handshake(); err == nil {
			t.Errorf("%.30q was thrown away, and the handshake went on", pieces)
		}
	}
	if n := transactions(b); n != 0 {
		t.Errorf("the next hop saw %q", b.Commands())
	}
}

func TestTLS_06_HandshakeForgetsTheSession(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, append(certificate(t, t.TempDir(), "proxy.example"), behind(b))...)
	c := startTLS(greeted(t, p.addr))
	c.cmd("MAIL FROM:<a@b.example>", "503")
	c.cmd("RCPT TO:<a@b.example>", "503")
}

func TestTLS_07_StartTLSOutOfPlace(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, append(certificate(t, t.TempDir(), "proxy.example"), behind(b))...)
	c := greeted(t, p.addr)
	c.cmd("STARTTLS now", "501")
	c.cmd("MAIL FROM:<a@b.example>", "250")
	c.cmd("STARTTLS", "503")
	c.cmd("RSET", "250")
	c = startTLS(c)
	c.cmd("EHLO a", "250")
	c.cmd("STARTTLS", "503")
}

func TestTLS_10_NoAuthInClear(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Extend("PIPELINING", "AUTH PLAIN LOGIN")
	p := startProxy(t, append(certificate(t, t.TempDir(), "proxy.example"), behind(b))...)
	c := dial(t, p.addr)
	c.expect("220")
	if r := c.cmd("EHLO a", "250"); strings.Contains(strings.Join(r.Lines, "|"), "AUTH") {
		t.Errorf("offered in clear: %q", r.Lines)
	}
	c.cmd("AUTH PLAIN AGEAYg==", "538 5.7.11")
	c = startTLS(c)
	if r := c.cmd("EHLO a", "250"); !strings.Contains(strings.Join(r.Lines, "|"), "|AUTH PLAIN LOGIN|") {
		t.Errorf("offered within TLS: %q", r.Lines)
	}
	c.cmd("AUTH PLAIN AGEAYg==", "235")
	if got := b.Commands(); !slices.Contains(got, "AUTH PLAIN AGEAYg==") {
		t.Errorf("the next hop saw %q", got)
	}
}

func TestTLS_11_HandshakeThatStalls(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, append(certificate(t, t.TempDir(), "proxy.example"), behind(b), "--tls-timeout=1s")...)
	c := greeted(t, p.addr)
	c.cmd("STARTTLS", "220")
	c.expectEnd() // long before the time for a command
}

// TLS-11: handshakes count for the limit per address, from their beginning.
func TestTLS_11_HandshakesCountForTheAddress(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	args := append(certificate(t, t.TempDir(), "proxy.example"), behind(b), "--smtps=inet:1", "--max-sessions-per-address=3", "--tls-timeout=1m")
	p := startProxyAs(t, listenSMTPS, args...)
	for range 3 {
		dial(t, p.addr).send("\x16\x03\x01") // and no more
	}
	testenv.Eventually(t, "three sessions of the address", func() bool {
		return p.gates.Limits.Of(netip.MustParseAddr("127.0.0.1")) == 3
	})
	c := dial(t, p.addr)
	must(t, testenv.Patient(c))
	c.expectEnd()
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}
	nc, err := from.Dial("tcp", p.addr)
	must(t, err)
	defer nc.Close()
	secured(&dialog{nc, t, bufio.NewReader(nc)}).expect("220")
}

// TLS-11: a thousand handshakes that stall at once (where so many descriptors may be) keep nobody else out, and all end.
func TestTLS_11_ThousandHandshakesThatStall(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	stall := func(timeout string, n int) (p *proxy, stalled []*dialog) {
		args := append(certificate(t, t.TempDir(), "proxy.example"), behind(b), "--smtps=inet:1", "--max-sessions-per-address=0", "--tls-timeout="+timeout)
		p = startProxyAs(t, listenSMTPS, args...)
		for range n {
			c := dial(t, p.addr)
			c.send("\x16\x03\x01")
			stalled = append(stalled, c)
		}
		return p, stalled
	}
	n := testenv.Connections(t, 2*1000) / 2 // both ends are here
	p, stalled := stall("1h", n)
	c := secured(dial(t, p.addr))
	c.expect("220")
	c.cmd("EHLO client.example", "250")
	c.envelope()
	for _, c := range stalled {
		c.Close()
	}
	testenv.Eventually(t, "only the good one is left", func() bool { return p.sessionCount() == 1 })

	p, stalled = stall("1s", n)
	for _, c := range stalled {
		c.expectEnd()
	}
	testenv.Eventually(t, "none is left", func() bool { return p.sessionCount() == 0 })
}

func TestTLS_13_ProxyHeaderComesBeforeTLS(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	args := append(certificate(t, t.TempDir(), "proxy.example"), behind(b), "--smtps=inet:1", "--proxy-from=127.0.0.0/8", "--proxy-timeout=1m")
	p := startProxyAs(t, listenSMTPS, args...)
	c := dial(t, p.addr)
	c.send("PROXY TCP4 192.0.2.7 192.0.2.25 4444 465\r\n")
	c = secured(c)
	c.expect("220")
	c.cmd("EHLO a", "250")
	if !strings.Contains(p.log.String(), "verb=EHLO") {
		t.Error("no EHLO in the log")
	}
	c.cmd("PROXY TCP4 192.0.2.8 192.0.2.25 4444 465", "554") // another one is no command
	c.expectEnd()
	// Within TLS it is too late.
	c = dial(t, p.addr)
	tc := tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true})
	if err := tc.Handshake(); err == nil {
		t.Error("handshake without PROXY header")
	}
}

// offering gives settings for a proxy with a certificate of that authority and rules for those of clients.
func offering(t *testing.T, ca *testenv.Authority, rules ...string) []string {
	t.Helper()
	dir := t.TempDir()
	cert, key := ca.Files(dir, "proxy.example")
	args := []string{"--tls-cert", cert, "--tls-key", key, "--tls-client-ca", ca.File(dir)}
	for _, rule := range rules {
		args = append(args, "--tls-client-cert", rule)
	}
	return args
}

// shows does the handshake of a client with a certificate. With TLS 1.3 the client hears only behind it that the server
// does not take its certificate.
func (c *dialog) shows(conf *tls.Config) (*dialog, error) {
	conf.InsecureSkipVerify = true
	tc := tls.Client(c.Conn, conf)
	return &dialog{tc, c.t, bufio.NewReader(tc)}, tc.Handshake()
}

// TestServerName asks for several names.
func TestServerName(t *testing.T) {
	t.Parallel()
	ca := testenv.NewAuthority(t)
	args := []string{behind(testenv.StartBackend(t))}
	for _, name := range []string{"mx.one.example", "mx.two.example"} {
		cert, key := ca.Files(t.TempDir(), name)
		args = append(args, "--tls-cert", cert, "--tls-key", key)
	}
	p := startProxy(t, args...)
	for asked, want := range map[string]string{"mx.one.example": "mx.one.example", "mx.two.example": "mx.two.example", "else.example": "mx.one.example", "": "mx.one.example"} {
		c := greeted(t, p.addr)
		c.cmd("STARTTLS", "220")
		c, err := c.shows(&tls.Config{ServerName: asked})
		must(t, err)
		c.cmd("EHLO client.example", "250")
		if got := c.Conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Subject.CommonName; got != want {
			t.Errorf("asked for %q: got %s, want %s", asked, got, want)
		}
	}
}

// TestClientCertificateAsked lets everybody in, and says in the log who has shown what.
func TestClientCertificateAsked(t *testing.T) {
	t.Parallel()
	ca, other := testenv.NewAuthority(t), testenv.NewAuthority(t)
	p := startProxy(t, append(offering(t, ca, "ask"), behind(testenv.StartBackend(t)))...)
	for name, tt := range map[string]struct {
		certs []tls.Certificate
		want  string
	}{
		"none":    {nil, ""},
		"good":    {[]tls.Certificate{ca.Issue("good.example", time.Hour)}, " certificate=CN=good.example"},
		"expired": {[]tls.Certificate{ca.Issue("old.example", -time.Hour)}, " certificate=CN=old.example fault="},
		"unknown": {[]tls.Certificate{other.Issue("foreign.example", time.Hour)}, " certificate=CN=foreign.example fault="},
	} {
		t.Run(name, func(t *testing.T) {
			c := greeted(t, p.addr)
			c.cmd("STARTTLS", "220")
			c, err := c.shows(&tls.Config{GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if len(tt.certs) == 0 {
					return &tls.Certificate{}, nil
				}
				return &tt.certs[0], nil // whatever authorities the proxy names
			}})
			must(t, err)
			c.cmd("EHLO "+name+".client.example", "250")
			c.envelope()
			c.cmd("QUIT", "221")
			var line string
			testenv.Eventually(t, "the session's end in the log", func() bool {
				for line = range strings.Lines(p.log.String()) {
					if strings.Contains(line, "msg=session ") && strings.Contains(line, "helo="+name+".client.example") {
						return true
					}
				}
				return false
			})
			line = strings.ReplaceAll(line, `"`, "")
			if tt.want == "" && strings.Contains(line, "certificate") || !strings.Contains(line, tt.want) || strings.Contains(line, "fault=") != strings.HasSuffix(tt.want, "fault=") {
				t.Errorf("want %q in %s", tt.want, line)
			}
		})
	}
}

// TestClientCertificateRequired has nobody do anything without a certificate, in clear or within TLS.
func TestClientCertificateRequired(t *testing.T) {
	t.Parallel()
	ca, other := testenv.NewAuthority(t), testenv.NewAuthority(t)
	b := testenv.StartBackend(t)
	b.Extend("AUTH PLAIN")
	p := startProxy(t, append(offering(t, ca, "require smtp"), behind(b), "--auth-requires-tls=no", "--xclient-from=127.0.0.0/8")...)
	c := dial(t, p.addr)
	c.expect("220")
	if r := c.cmd("EHLO client.example", "250"); strings.Contains(strings.Join(r.Lines, "|"), "AUTH") || !strings.Contains(strings.Join(r.Lines, "|"), "STARTTLS") {
		t.Errorf("offered in clear: %q", r.Lines)
	}
	for _, line := range []string{"MAIL FROM:<a@b.example>", "RCPT TO:<a@b.example>", "DATA", "AUTH PLAIN AGEAYg==", "XCLIENT ADDR=192.0.2.7", "VRFY x"} {
		c.cmd(line, "530 5.7.0")
	}
	c.cmd("BDAT 6 LAST\r\nNOOP", "503")
	c.cmd("NOOP", "250")
	for name, certs := range map[string][]tls.Certificate{
		"none": nil, "expired": {ca.Issue("old.example", -time.Hour)}, "unknown": {other.Issue("foreign.example", time.Hour)},
	} {
		c := greeted(t, p.addr)
		c.cmd("STARTTLS", "220")
		c, err := c.shows(&tls.Config{Certificates: certs})
		if err == nil {
			c.send("EHLO client.example\r\n")
			if r, err := smtp.ReadReply(c.r); err == nil {
				t.Errorf("%s: reply %v", name, r)
			}
		}
	}
	testenv.Eventually(t, "the causes are in the log", func() bool {
		return strings.Count(p.log.String(), ` fault="tls: `) >= 3
	})
	c.cmd("STARTTLS", "220")
	c, err := c.shows(&tls.Config{Certificates: []tls.Certificate{ca.Issue("good.example", time.Hour)}})
	must(t, err)
	c.cmd("EHLO client.example", "250")
	c.envelope()
	if n := transactions(b); n != 2 {
		t.Errorf("the next hop saw %q", b.Commands())
	}
}

// TestFilterKnowsCertificate looks at what the filter is told of it.
func TestFilterKnowsCertificate(t *testing.T) {
	t.Parallel()
	ca := testenv.NewAuthority(t)
	var commands string
	scan := scanWith(t, "F\n")
	m := startMultiplexor(t, func(words []string) string {
		if words[0] == "scan" {
			commands = readFile(t, filepath.Join(words[2], "COMMANDS"))
		}
		return scan(words)
	})
	p := startProxy(t, append(m.args(behind(testenv.StartBackend(t))), offering(t, ca, "ask")...)...)
	for want, certs := range map[string][]tls.Certificate{
		"=cert_issuer test%20authority\n=cert_subject good.example\n": {ca.Issue("good.example", time.Hour)}, "=verify NO\n": nil,
	} {
		c := greeted(t, p.addr)
		c.cmd("STARTTLS", "220")
		c, err := c.shows(&tls.Config{Certificates: certs})
		must(t, err)
		c.cmd("EHLO client.example", "250")
		c.envelope()
		c.cmd("DATA", "354")
		c.send(smallMessage)
		c.expect("250")
		if !strings.Contains(commands, want) {
			t.Errorf("no %q in COMMANDS %q", want, commands)
		}
		if verify := map[bool]string{true: "=verify OK\n", false: "=verify NO\n"}[certs != nil]; !strings.Contains(commands, verify) {
			t.Errorf("no %q in COMMANDS %q", verify, commands)
		}
	}
}

// TLS-12: a session that began at a listener without rules for certificates is not taken up at one with them, nor the other
// way round; at its own listener it is.
func TestTLS_12_ResumedAtTheSameListenerOnly(t *testing.T) {
	t.Parallel()
	ca := testenv.NewAuthority(t)
	p := startProxy(t, append(offering(t, ca, "require smtps", "ask submission"), behind(testenv.StartBackend(t)))...)
	at := map[string]string{listenSMTP: p.addr}
	for _, name := range []string{listenSubmission, listenSMTPS} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		at[name] = l.Addr().String()
		served := make(chan error, 1)
		go func() { served <- p.Serve(l, name) }()
		t.Cleanup(func() {
			l.Close()
			must(t, testenv.Receive(t, "the end of Serve", served))
		})
	}
	// talk gives whether the TLS session was one from before; an error if the client was not let in.
	talk := func(name string, conf *tls.Config) (resumed bool, err error) {
		c := dial(t, at[name])
		if name != listenSMTPS {
			c.expect("220")
			c.cmd("EHLO client.example", "250")
			c.cmd("STARTTLS", "220")
		}
		if c, err = c.shows(conf); err != nil {
			return false, err
		}
		c.send("EHLO client.example\r\n") // the ticket comes with the first reply, a refusal too
		_, err = smtp.ReadReply(c.r)
		return c.Conn.(*tls.Conn).ConnectionState().DidResume, err
	}
	good := []tls.Certificate{ca.Issue("good.example", time.Hour)}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, tt := range []struct {
			first, second string
			certs         []tls.Certificate
			letIn         bool
		}{
			{listenSMTP, listenSMTPS, nil, false}, {listenSubmission, listenSMTPS, nil, false}, {listenSubmission, listenSMTPS, good, true},
			{listenSMTPS, listenSMTP, good, true}, {listenSMTPS, listenSubmission, good, true},
		} {
			t.Run(tls.VersionName(version)+"/"+tt.first+" "+tt.second, func(t *testing.T) {
				conf := &tls.Config{ServerName: "proxy.example", ClientSessionCache: tls.NewLRUClientSessionCache(8), MaxVersion: version, Certificates: tt.certs}
				for i, want := range []bool{false, true} {
					if resumed, err := talk(tt.first, conf); err != nil || resumed != want {
						t.Fatalf("time %d at the first listener: taken up %v, %v", i+1, resumed, err)
					}
				}
				resumed, err := talk(tt.second, conf)
				if resumed || (err == nil) != tt.letIn {
					t.Errorf("at the second listener: taken up %v, %v", resumed, err)
				}
			})
		}
	}
}

// TestReloadCertificate has the certificate exchanged while a session goes on.
func TestReloadCertificate(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	dir := t.TempDir()
	args := append(certificate(t, dir, "old.example"), behind(b))
	p := startProxy(t, args...)
	old := greeted(t, p.addr)
	certificate(t, dir, "new.example")
	s := parseSettings(t, args...)
	conf, err := loadTLS(s)
	must(t, err)
	p.use(&live{settings: s, tls: conf})
	for c, want := range map[*dialog]string{old: "old.example", greeted(t, p.addr): "new.example"} {
		tc := startTLS(c).Conn.(*tls.Conn)
		if got := tc.ConnectionState().PeerCertificates[0].Subject.CommonName; got != want {
			t.Errorf("certificate of %s, want %s", got, want)
		}
	}
}

// TestAuthDialog also looks for secrets in the log: LOG-02.
func TestAuthDialog(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Extend("PIPELINING", "AUTH LOGIN PLAIN")
	step := 0
	b.Answer(func(a testenv.Asked) string {
		switch {
		case strings.HasPrefix(a.Line, "AUTH LOGIN"):
			step = 1
			return "334 VXNlcm5hbWU6"
		case step == 1:
			step = 2
			return "334 UGFzc3dvcmQ6"
		case step == 2 && a.Line == "c2VjcmV0":
			step = 3
			return "235 2.7.0 Welcome"
		case step == 2:
			step = 0
			return "535 5.7.8 Wrong"
		}
		return ""
	})
	p := startProxy(t, behind(b), "--auth-requires-tls=no")
	c := greeted(t, p.addr)
	c.cmd("AUTH CRAM-MD5", "504")
	c.cmd("AUTH", "501")
	c.cmd("AUTH LOGIN", "334")
	c.cmd("dXNlcg==", "334")
	c.cmd("d3Jvbmc=", "535 5.7.8")
	c.cmd("AUTH LOGIN", "334 VXNlcm5hbWU6")
	c.cmd("dXNlcg==", "334 UGFzc3dvcmQ6")
	c.cmd("c2VjcmV0", "235 2.7.0 Welcome")
	c.cmd("AUTH LOGIN", "503")
	for range 2 {
		c.envelope()
		c.cmd("DATA", "354")
		c.send(smallMessage)
		c.expect("250")
	}
	c.envelope()
	c.cmd("RSET", "250")
	c.cmd("QUIT", "221")
	got := b.Messages()
	if len(got) != 2 || got[0].Conn != got[1].Conn || !strings.Contains(got[0].Data, "with ESMTPA id") {
		t.Errorf("got %+v", got)
	}
	// Nobody else gets the authenticated connection.
	c = greeted(t, p.addr)
	c.envelope()
	c.cmd("DATA", "354")
	c.send(smallMessage)
	c.expect("250")
	if all := b.Messages(); all[2].Conn == got[0].Conn {
		t.Error("another session got the authenticated connection")
	}
	for _, secret := range []string{"c2VjcmV0", "dXNlcg==", "d3Jvbmc="} {
		if strings.Contains(p.log.String(), secret) {
			t.Errorf("the log holds %s", secret)
		}
	}
}

func TestAuthCancelled(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Extend("AUTH LOGIN")
	b.Answer(func(a testenv.Asked) string {
		switch {
		case a.Line == "*":
			return "501 5.7.0 Cancelled"
		case a.Verb == "AUTH":
			return "334 x"
		}
		return ""
	})
	p := startProxy(t, behind(b), "--auth-requires-tls=no")
	c := greeted(t, p.addr)
	c.cmd("AUTH LOGIN", "334")
	c.cmd("*", "501")
	c.cmd("AUTH LOGIN", "334")
	c.cmd("not base64!", "501")
	c.envelope()
}

// TestAuthRefusedKeepsSecrets: what a client sends after an AUTH that did not begin is no command, but a secret.
func TestAuthRefusedKeepsSecrets(t *testing.T) {
	t.Parallel()
	p := startProxy(t, behind(testenv.StartBackend(t)))
	c := greeted(t, p.addr)
	c.send("AUTH LOGIN\r\nZnJlZGR5\r\nc2VjcmV0\r\nhunter2 secret\r\nNOOP\r\nFROB\r\n")
	for _, want := range []string{"538", "500", "500", "500", "250", "500"} {
		c.expect(want)
	}
	for _, secret := range []string{"ZNJLZGR5", "C2VJCMV0", "HUNTER2", "secret"} {
		if strings.Contains(p.log.String(), secret) {
			t.Errorf("the log holds %s", secret)
		}
	}
	if !strings.Contains(p.log.String(), "FROB") {
		t.Error("a command that is only wrong is not in the log")
	}
}

func TestAuthName(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ mech, response, want string }{
		{"PLAIN", "AGZyZWQAc2VjcmV0", "fred"}, {"PLAIN", "YWRtaW4AZnJlZABzZWNyZXQ=", "fred"}, {"PLAIN", "ZnJlZA==", ""}, {"PLAIN", "!", ""},
		{"LOGIN", "ZnJlZA==", "fred"}, {"LOGIN", "ZnJl\nZA==", "fred"}, {"LOGIN", "AAA=", ""}, {"CRAM-MD5", "ZnJlZA==", ""},
	} {
		if got := authName(tt.mech, tt.response); got != tt.want {
			t.Errorf("authName(%s, %q) = %q, want %q", tt.mech, tt.response, got, tt.want)
		}
	}
}
