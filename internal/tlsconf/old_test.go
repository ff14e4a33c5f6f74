package tlsconf

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/testenv"
)

// rsaFiles makes a certificate with an RSA key, which the oldest cipher suites need.
func rsaFiles(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"mail.example"}, NotAfter: time.Now().Add(time.Hour)}
	public, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	for file, block := range map[string]*pem.Block{
		cert: {Type: "CERTIFICATE", Bytes: public}, key: {Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private)},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// TestTLS_61_OldVersionsByChoice takes clients of TLS 1.0 and 1.1, with their cipher suites, at the listener that is named
// and at no other one, and warns of it.
func TestTLS_61_OldVersionsByChoice(t *testing.T) {
	cert, key := rsaFiles(t)
	s := Server{Cert: []string{cert}, Key: []string{key}, Timeout: time.Minute, Min: []string{"1.0 smtps", "1.3 submission"}}
	names := []string{"smtp", "submission", "smtps"}
	if err := s.Check(names...); err != nil {
		t.Fatal(err)
	}
	all, err := s.Load(names...)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		listener string
		version  uint16
		suite    uint16
		ok       bool
	}{
		{"smtps", tls.VersionTLS10, tls.TLS_RSA_WITH_AES_128_CBC_SHA, true}, {"smtps", tls.VersionTLS10, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, true},
		{"smtps", tls.VersionTLS11, 0, true}, {"smtps", tls.VersionTLS12, 0, true}, {"smtps", tls.VersionTLS13, 0, true},
		{"smtp", tls.VersionTLS10, 0, false}, {"smtp", tls.VersionTLS11, 0, false}, {"smtp", tls.VersionTLS12, 0, true},
		{"submission", tls.VersionTLS12, 0, false}, {"submission", tls.VersionTLS13, 0, true},
	} {
		conf := &tls.Config{InsecureSkipVerify: true, MinVersion: tt.version, MaxVersion: tt.version}
		if tt.suite != 0 {
			conf.CipherSuites = []uint16{tt.suite}
		}
		ours, theirs := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = tls.Server(ours, all[tt.listener].Config).Handshake()
			ours.Close()
		}()
		err := tls.Client(theirs, conf).Handshake()
		theirs.Close()
		testenv.Receive(t, "the end of the server", done)
		if (err == nil) != tt.ok {
			t.Errorf("%s with %s: %v, want it to work: %v", tt.listener, tls.VersionName(tt.version), err, tt.ok)
		}
	}
	if w := s.Warnings(names...); len(w) != 1 || !strings.Contains(w[0], "listener smtps takes TLS 1.0") {
		t.Errorf("warnings %q", w)
	}
	for _, bad := range []string{"", "1.4", "1.0 pop3", "smtps", "1"} {
		s.Min = []string{bad}
		if s.Check(names...) == nil {
			t.Errorf("tls-min %q is taken", bad)
		}
	}
}
