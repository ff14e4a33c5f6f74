package testenv

import (
	"fmt"
	"path/filepath"
	"testing"
)

// OpenSMTPDServer is a real OpenSMTPD with settings of its own, on 127.0.0.1.
type OpenSMTPDServer struct {
	*Jail
	Port    int
	Process *Process
}

// The accounts whose names are built into OpenSMTPD, and the one that gets the mail.
var (
	smtpdAccount      = JailAccount{Name: "opensmtpd", ID: 64911, Home: "/var/lib/opensmtpd/empty"}
	smtpdQueueAccount = JailAccount{Name: "opensmtpq", ID: 64912, Home: "/var/lib/opensmtpd/empty"}
	smtpdMailAccount  = JailAccount{Name: "vmail", ID: 64913, Home: "/home"}
)

const opensmtpdConf = `smtp max-message-size "50M"
table known { "bob@example.net", "eve@example.net" }
table users { "bob@example.net" = "vmail", "eve@example.net" = "vmail" }
listen on 127.0.0.1 port %[1]d hostname opensmtpd.example.net
action "deliver" maildir "/mail" virtual <users>
match from any for domain "example.net" rcpt-to <known> action "deliver"
`

// StartOpenSMTPD starts an OpenSMTPD that takes mail on a free port and delivers that
// for bob and eve at example.net to a Maildir. It needs root.
func StartOpenSMTPD(t testing.TB) *OpenSMTPDServer {
	t.Helper()
	const what = "OpenSMTPD as mail server"
	s := &OpenSMTPDServer{Port: FreePort(t)}
	s.Jail = NewJail(t, what, "opensmtpd", []JailAccount{smtpdAccount, smtpdQueueAccount, smtpdMailAccount},
		"/usr/sbin/smtpd", "/usr/sbin/smtpctl", "/usr/libexec/opensmtpd/mail.maildir", "/bin/sh")
	s.Mkdir("/var/lib/opensmtpd/empty", 0o755, 0)
	s.Mkdir("/var/spool/smtpd", 0o711, 0)
	for _, dir := range []string{"/mail", "/home"} {
		s.Mkdir(dir, 0o755, smtpdMailAccount.ID)
	}
	s.Write("/etc/mailname", "opensmtpd.example.net\n", 0o644)
	s.Write("/etc/smtpd.conf", fmt.Sprintf(opensmtpdConf, s.Port), 0o644)
	s.Start()
	return s
}

// Start starts the server, again if it was ended.
func (s *OpenSMTPDServer) Start() {
	s.t.Helper()
	s.Process = Start(s.t, s.Command("/usr/sbin/smtpd", "-d"))
	awaitGreeting(s.t, s.Process, "tcp4", s.Address(), func() string { return "" })
}

// Address gives HOST:PORT of the server.
func (s *OpenSMTPDServer) Address() string { return fmt.Sprintf("127.0.0.1:%d", s.Port) }

// Delivered gives the messages that have arrived, whole, in no order.
func (s *OpenSMTPDServer) Delivered() []string {
	s.t.Helper()
	return readFiles(s.t, filepath.Join(s.Dir, "mail", "new", "*"))
}
