package testenv

import (
	"fmt"
	"testing"
)

// MailutilsServer is a real GNU pop3d with settings of its own, on 127.0.0.1, that serves POP3User with
// POP3Password. Only one session at a time may have the mailbox.
type MailutilsServer struct {
	*Jail
	Port    int
	Process *Process
}

var mailutilsAccount = JailAccount{Name: POP3User, ID: 64921, Home: "/"}

const (
	mailutilsConf = `auth { authentication clear; authentication generic; authorization clear; authorization system; };
mailbox { mail-spool /var/mail; };
logging { syslog no; };
server 127.0.0.1:%d {
  acl {
    log any "connect from ${address}";
    allow any;
  };
};
`
	// mailutilsPassword is POP3Password as crypt(3) has it.
	mailutilsPassword = "$6$postern$RoS8iHBL.HVsZftK1sRpPZMBg6Ap1aVvazAh95powNJJgWFpUNTI4yemwP4Aaym54M9yDtpMkBLStXAgNDJaX/"
)

// StartMailutils starts a GNU pop3d on a free port, with the mailbox, in mbox form. It needs root.
func StartMailutils(t testing.TB, mbox string) *MailutilsServer {
	t.Helper()
	s := &MailutilsServer{Port: FreePort(t)}
	s.Jail = NewJail(t, "GNU pop3d as POP3 server", "mailutils-pop3d", []JailAccount{mailutilsAccount}, "/usr/sbin/pop3d")
	s.Write("/etc/passwd", fmt.Sprintf("root:x:0:0::/:/bin/sh\n%s:%s:%d:8::/:/bin/sh\n", POP3User, mailutilsPassword, mailutilsAccount.ID), 0o600)
	s.Write("/etc/group", "root:x:0:\nmail:x:8:\n", 0o644)
	s.Mkdir("/var/mail", 0o755, mailutilsAccount.ID)
	s.Write("/var/mail/"+POP3User, mbox, 0o666)
	s.Write("/etc/mailutils.conf", fmt.Sprintf(mailutilsConf, s.Port), 0o644)
	s.Process = Start(t, s.Command("/usr/sbin/pop3d", "--daemon", "--foreground"))
	awaitGreeting(t, s.Process, "tcp4", s.Address(), func() string { return "" })
	return s
}

// Address gives HOST:PORT of the server.
func (s *MailutilsServer) Address() string { return fmt.Sprintf("127.0.0.1:%d", s.Port) }
