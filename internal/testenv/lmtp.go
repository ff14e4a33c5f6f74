package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// LMTPServer is a real Dovecot that speaks LMTP on a UNIX socket.
type LMTPServer struct {
	Socket  string
	Dir     string // everything that it writes is below
	Process *Process

	t testing.TB
}

const lmtpConf = `
base_dir = %[1]s/run
state_dir = %[1]s/state
instance_name = %[1]s
log_path = %[1]s/log
protocols = lmtp
ssl = no
default_login_user = dovenull
default_internal_user = dovecot
first_valid_uid = 1
mail_location = maildir:%[1]s/mail/%%n
mail_plugins = quota
plugin {
  quota = maildir:User quota
  quota_rule = *:storage=100M
}
passdb {
  driver = static
}
userdb {
  driver = passwd-file
  args = %[1]s/users
}
service lmtp {
  unix_listener %[1]s/lmtp {
    mode = 0666
  }
}
service anvil {
  chroot =
}
service stats {
  chroot =
}
`

// StartLMTP starts a Dovecot that delivers mail for bob and eve at example.net, has no
// room left for full at example.net, and has never heard of anybody else. It needs root.
func StartLMTP(t testing.TB) *LMTPServer {
	t.Helper()
	const what = "Dovecot as LMTP server"
	Need(t, what, "dovecot", "/usr/lib/dovecot/lmtp")
	NeedRoot(t)
	s := &LMTPServer{Dir: ShortDir(t), t: t}
	s.Socket = filepath.Join(s.Dir, "lmtp")
	for _, dir := range []string{"run", "state", "mail"} {
		path := filepath.Join(s.Dir, dir)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		chown(t, path, "nobody")
	}
	users := ""
	for user, extra := range map[string]string{"bob": "", "eve": "", "full": "userdb_quota_rule=*:bytes=1"} {
		users += fmt.Sprintf("%s@example.net::65534:65534::%s/mail/%s::%s\n", user, s.Dir, user, extra)
	}
	for name, text := range map[string]string{"users": users, "conf": fmt.Sprintf(lmtpConf, s.Dir)} {
		if err := os.WriteFile(filepath.Join(s.Dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of Dovecot:\n%s", s.Log())
		}
	})
	s.Start()
	return s
}

// Start starts the server, again if it was ended.
func (s *LMTPServer) Start() {
	s.t.Helper()
	s.Process = Start(s.t, exec.Command(Path(s.t, "Dovecot as LMTP server", "dovecot"), "-F", "-c", filepath.Join(s.Dir, "conf")))
	s.t.Cleanup(s.Process.Kill) // now and then its master waits long for a child
	awaitGreeting(s.t, s.Process, "unix", s.Socket, s.Log)
}

// Log gives what Dovecot has logged so far.
func (s *LMTPServer) Log() string {
	text, err := os.ReadFile(filepath.Join(s.Dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Delivered gives the messages that have arrived, whole, in no order.
func (s *LMTPServer) Delivered() []string {
	s.t.Helper()
	return readFiles(s.t, filepath.Join(s.Dir, "mail", "*", "new", "*"))
}
