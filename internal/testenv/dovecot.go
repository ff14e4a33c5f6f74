package testenv

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Certificate makes a self-signed certificate for 127.0.0.1, ::1 and localhost in dir, good for a day, and returns
// the files of the certificate and of its key, in PEM.
func Certificate(t testing.TB, dir string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if err := errors.Join(os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600)); err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// POP3Server is a real Dovecot with settings of its own, on 127.0.0.1.
type POP3Server struct {
	Port    int    // POP3, with STLS; takes XCLIENT
	TLSPort int    // POP3 over TLS
	Behind  int    // POP3 behind a header of the PROXY protocol
	Maildir string // of the only user
	Cert    string // certificate that it shows
	Auth    string // UNIX socket where a Postfix may ask for SASL
	Process *Process
}

// The users of a POP3Server; the second has as long a password as tokens are.
const (
	POP3User     = "bob"
	POP3Password = "secret word"
	POP3LongUser = "long"
)

// POP3LongPassword is that of POP3LongUser.
var POP3LongPassword = strings.Repeat("longpassword", 80)

const dovecotConf = `
base_dir = %[1]s/run
state_dir = %[1]s/state
instance_name = %[1]s
log_path = /dev/stderr
protocols = pop3
listen = 127.0.0.1
ssl = yes
ssl_cert = <%[2]s
ssl_key = <%[3]s
disable_plaintext_auth = no
auth_mechanisms = plain login cram-md5 apop
auth_failure_delay = 0
default_login_user = dovenull
default_internal_user = dovecot
first_valid_uid = 1
mail_location = maildir:%[1]s/Maildir
login_trusted_networks = 127.0.0.1
haproxy_trusted_networks = 127.0.0.1
passdb {
  driver = passwd-file
  args = %[1]s/passwd
}
userdb {
  driver = static
  args = uid=nobody gid=nogroup home=%[1]s
}
service anvil {
  chroot =
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service pop3-login {
  chroot =
  inet_listener pop3 {
    port = %[4]d
  }
  inet_listener pop3s {
    port = %[5]d
    ssl = yes
  }
  inet_listener behind {
    port = %[6]d
    haproxy = yes
  }
}
service auth {
  unix_listener %[1]s/run/sasl {
    mode = 0666
  }
}
service stats {
  unix_listener stats-writer {
    mode = 0666
  }
}
`

// StartDovecot starts a Dovecot that serves POP3 on free ports to POP3User with POP3Password, with more settings. It needs root.
func StartDovecot(t testing.TB, more ...string) *POP3Server {
	t.Helper()
	const what = "Dovecot as POP3 server"
	program := Path(t, what, "dovecot")
	Need(t, what, "/usr/lib/dovecot/pop3")
	NeedRoot(t)
	dir := ShortDir(t)
	s := &POP3Server{Port: FreePort(t), TLSPort: FreePort(t), Behind: FreePort(t), Maildir: filepath.Join(dir, "Maildir")}
	s.Auth = filepath.Join(dir, "run", "sasl")
	var key string
	s.Cert, key = Certificate(t, dir)
	for _, d := range []string{dir, filepath.Join(dir, "run"), filepath.Join(dir, "state"), s.Maildir,
		filepath.Join(s.Maildir, "cur"), filepath.Join(s.Maildir, "new"), filepath.Join(s.Maildir, "tmp")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"", "cur", "new", "tmp"} {
		chown(t, filepath.Join(s.Maildir, d), "nobody")
	}
	conf := filepath.Join(dir, "dovecot.conf")
	if err := errors.Join(os.WriteFile(conf, fmt.Appendf(nil, dovecotConf+strings.Join(more, "\n"), dir, s.Cert, key, s.Port, s.TLSPort, s.Behind), 0o644),
		os.WriteFile(filepath.Join(dir, "passwd"), []byte(POP3User+":{PLAIN}"+POP3Password+"\n"+POP3LongUser+":{PLAIN}"+POP3LongPassword+"\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	s.Process = Start(t, exec.Command(program, "-F", "-c", conf))
	t.Cleanup(s.Process.Kill) // now and then its master waits long for a child
	Eventually(t, "Dovecot to answer", func() bool {
		if !s.Process.Running() {
			t.Fatalf("Dovecot has ended: %s", s.Process.Output())
		}
		conn, err := net.Dial("tcp4", s.Address())
		if err != nil {
			return false
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		greeting := make([]byte, 3)
		n, _ := conn.Read(greeting)
		return string(greeting[:n]) == "+OK"
	})
	return s
}

// Address gives HOST:PORT of the server.
func (s *POP3Server) Address() string { return fmt.Sprintf("127.0.0.1:%d", s.Port) }

// Deliver puts a message into the mailbox.
func (s *POP3Server) Deliver(t testing.TB, name string, message []byte) {
	t.Helper()
	path := filepath.Join(s.Maildir, "new", name)
	if err := os.WriteFile(path, message, 0o644); err != nil {
		t.Fatal(err)
	}
	chown(t, path, "nobody")
}
