package tlsconf

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/testenv"
)

var listeners = []string{"smtp", "submission", "smtps"}

func TestCheck(t *testing.T) {
	one, ca := []string{"cert.pem"}, "ca.pem"
	for _, tt := range []struct {
		name string
		conf Server
		want string // "" for no error
	}{
		{"nothing", Server{}, ""},
		{"one", Server{Cert: one, Key: one}, ""},
		{"key in the same file", Server{Cert: one}, ""},
		{"two with one key", Server{Cert: []string{"a", "b"}, Key: one}, "tls-key: is set 1 times, and tls-cert 2 times"},
		{"key alone", Server{Key: one}, "tls-key: "},
		{"all", Server{Cert: one, ClientCert: []string{"ask"}, ClientCA: ca}, ""},
		{"some", Server{Cert: one, ClientCert: []string{"ask smtp", "require submission smtps"}, ClientCA: ca}, ""},
		{"none asks for nothing", Server{ClientCert: []string{"none"}}, ""},
		{"what", Server{Cert: one, ClientCert: []string{"optional"}, ClientCA: ca}, `tls-client-cert: "optional" does not begin`},
		{"empty", Server{Cert: one, ClientCert: []string{""}, ClientCA: ca}, "tls-client-cert: "},
		{"unknown listener", Server{Cert: one, ClientCert: []string{"ask pop3"}, ClientCA: ca}, `tls-client-cert: "pop3" is none of the listeners smtp, submission, smtps`},
		{"no authority", Server{Cert: one, ClientCert: []string{"require smtps"}}, "tls-client-cert: needs tls-client-ca"},
		{"no certificate", Server{ClientCert: []string{"ask"}, ClientCA: ca}, "tls-client-cert: needs tls-cert"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.conf.Timeout = time.Second
			err := tt.conf.Check(listeners...)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	if err := (&Server{Timeout: time.Millisecond}).Check(); err == nil {
		t.Error("a handshake of a millisecond is taken")
	}
	if (&Client{Key: "key.pem"}).Check() == nil || (&Client{Cert: "cert.pem"}).Check() != nil {
		t.Error("upstream-tls-key without certificate, or certificate without key")
	}
}

// Each listener has its rule, and the last line about it counts.
func TestLoadRules(t *testing.T) {
	dir := testenv.ShortDir(t)
	ca := testenv.NewAuthority(t)
	cert, key := ca.Files(dir, "mx.test")
	s := Server{Cert: []string{cert}, Key: []string{key}, Min: []string{"1.3"}, ClientCert: []string{"require", "ask smtp", "none submission"}, ClientCA: ca.File(dir)}
	all, err := s.Load(listeners...)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]tls.ClientAuthType{
		"smtp": tls.RequestClientCert, "submission": tls.NoClientCert, "smtps": tls.RequireAndVerifyClientCert,
	} {
		l := all[name]
		if l.Config.ClientAuth != want || l.Required != (name == "smtps") || l.Config.MinVersion != tls.VersionTLS13 {
			t.Errorf("%s: %v, required %v, least version %x", name, l.Config.ClientAuth, l.Required, l.Config.MinVersion)
		}
	}
	if all, err := (&Server{}).Load(listeners...); all != nil || err != nil {
		t.Errorf("without a certificate: %v, %v", all, err)
	}
}

// The name that the client asks for chooses the certificate; without one, or for another, it is the first.
func TestServerName(t *testing.T) {
	ca := testenv.NewAuthority(t)
	var s Server
	for _, name := range []string{"mx.one.test", "*.two.test", "mx.three.test"} {
		cert, key := ca.Files(t.TempDir(), name)
		s.Cert, s.Key = append(s.Cert, cert), append(s.Key, key)
	}
	all, err := s.Load("smtp")
	if err != nil {
		t.Fatal(err)
	}
	for asked, want := range map[string]string{
		"mx.one.test": "mx.one.test", "mx.two.test": "*.two.test", "MX.THREE.TEST": "mx.three.test", "mx.four.test": "mx.one.test", "": "mx.one.test",
	} {
		ours, theirs := net.Pipe()
		go func() {
			_ = tls.Server(theirs, all["smtp"].Config).Handshake()
			theirs.Close()
		}()
		tc := tls.Client(ours, &tls.Config{ServerName: asked, InsecureSkipVerify: true})
		if err := tc.Handshake(); err != nil {
			t.Fatal(err)
		}
		if got := tc.ConnectionState().PeerCertificates[0].Subject.CommonName; got != want {
			t.Errorf("asked for %q: got %s, want %s", asked, got, want)
		}
		ours.Close()
	}
}

// Certificate and key may be in one file. FS-10: a key that others may write is not taken.
func TestKeyFile(t *testing.T) {
	dir := testenv.ShortDir(t)
	cert, key := testenv.NewAuthority(t).Files(dir, "mx.test")
	var both bytes.Buffer
	for _, file := range []string{cert, key} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		both.Write(text)
	}
	one := filepath.Join(dir, "one.pem")
	if err := os.WriteFile(one, both.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if all, err := (&Server{Cert: []string{one}}).Load("smtp"); err != nil || len(all) != 1 {
		t.Errorf("one file: %v, %v", all, err)
	}
	if conf, err := (&Client{Cert: one}).Load(); err != nil || len(conf.Certificates) != 1 {
		t.Errorf("one file for us as a client: %v", err)
	}
	for _, mode := range []os.FileMode{0o602, 0o660} {
		if err := os.Chmod(one, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := (&Server{Cert: []string{one}}).Load("smtp"); err == nil || !strings.Contains(err.Error(), "others may write") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	if _, err := (&Server{Cert: []string{cert}}).Load("smtp"); err == nil {
		t.Error("a certificate without a key is taken")
	}
}

// The authorities and the certificate of the settings are those that TLS with the upstream server uses.
func TestClientLoad(t *testing.T) {
	dir := testenv.ShortDir(t)
	ca := testenv.NewAuthority(t)
	authority := ca.File(dir)
	cert, key := ca.Files(dir, "proxy.test")
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	conf, err := (&Client{CA: authority, Cert: cert, Key: key}).Load()
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(conf.Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: conf.RootCAs, DNSName: "proxy.test"}); err != nil {
		t.Errorf("authority is not known: %v", err)
	}
	if len(conf.Certificates) != 1 || conf.MinVersion != tls.VersionTLS12 {
		t.Errorf("%d certificates, least version %x", len(conf.Certificates), conf.MinVersion)
	}
	for name, c := range map[string]Client{
		"authorities missing": {CA: filepath.Join(dir, "none")},
		"authorities empty":   {CA: empty},
		"key missing":         {Cert: cert, Key: filepath.Join(dir, "none")},
	} {
		if conf, err := c.Load(); err == nil {
			t.Errorf("%s: %v", name, conf)
		}
	}
}
