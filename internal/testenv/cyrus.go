package testenv

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// CyrusServer is a real Cyrus POP3 server on 127.0.0.1 that serves POP3User with POP3Password.
type CyrusServer struct {
	*Jail
	Port    int
	Process *Process

	mu  sync.Mutex
	log strings.Builder
}

var cyrusAccounts = []JailAccount{{Name: "cyrus", ID: 64924, Home: "/"}, {Name: "mail", ID: 64925, Home: "/"}}

const (
	cyrusSettings = `configdirectory: /var/lib/cyrus
proc_path: /run/cyrus/proc
mboxname_lockpath: /run/cyrus/lock
defaultpartition: default
partition-default: /var/spool/cyrus
allowplaintext: yes
sasl_pwcheck_method: saslauthd
sasl_saslauthd_path: /run/mux
sasl_mech_list: PLAIN
cyrus_user: cyrus
`
	cyrusServices = `START {
}
SERVICES {
  pop3 cmd="/usr/lib/cyrus/bin/pop3d" listen="127.0.0.1:%d" prefork=0
}
EVENTS {
}
`
	// cyrusZone is UTC as tzfile(5) has it: it does not start without a time zone.
	cyrusZone = "TZif\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x04" + "\x00\x00\x00\x00\x00\x00UTC\x00"
)

// StartCyrus starts a Cyrus on a free port. It needs root. What is asked for passwords, saslauthd, and what takes the log
// is the test.
func StartCyrus(t testing.TB) *CyrusServer {
	t.Helper()
	s := &CyrusServer{Port: FreePort(t)}
	const master = "/usr/lib/cyrus/bin/master"
	s.Jail = NewJail(t, "Cyrus as POP3 server", "cyrus-pop3d", cyrusAccounts, master, "/usr/lib/cyrus/bin/pop3d")
	s.Write("/etc/imapd.conf", cyrusSettings, 0o644)
	s.Write("/etc/cyrus.conf", fmt.Sprintf(cyrusServices, s.Port), 0o644)
	s.Mkdir("/usr/share/zoneinfo/Etc", 0o755, 0)
	s.Write("/usr/share/zoneinfo/zone.tab", "GB\t+513030-0000731\tEtc/UTC\n", 0o644)
	s.Write("/usr/share/zoneinfo/Etc/UTC", cyrusZone, 0o644)
	for _, d := range []string{"/run/cyrus", "/run/cyrus/proc", "/run/cyrus/lock", "/var/spool/cyrus", "/var/lib/cyrus", "/var/lib/cyrus/db",
		"/var/lib/cyrus/socket", "/var/lib/cyrus/proc", "/var/lib/cyrus/log", "/var/lib/cyrus/msg", "/var/lib/cyrus/quota", "/var/lib/cyrus/user"} {
		s.Mkdir(d, 0o755, cyrusAccounts[0].ID)
	}
	s.takeLog(t)
	l := s.listen(t, "/run/mux")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go cyrusAuth(c)
		}
	}()
	s.Process = Start(t, s.Command(master, "-D", "-C", "/etc/imapd.conf", "-M", "/etc/cyrus.conf"))
	awaitGreeting(t, s.Process, "tcp4", s.Address(), s.Log)
	return s
}

// listen listens on a UNIX socket within the jail, for any account.
func (j *Jail) listen(t testing.TB, path string) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(j.Dir, path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	j.chmod(path, 0o666)
	return l
}

// takeLog is syslogd.
func (s *CyrusServer) takeLog(t testing.TB) {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(s.Dir, "dev/log")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	s.chmod("/dev/log", 0o666)
	go func() {
		line := make([]byte, 8192)
		for {
			n, err := c.Read(line)
			if err != nil {
				return
			}
			_, text, _ := strings.Cut(string(line[:n]), ">") // behind the priority
			s.mu.Lock()
			s.log.WriteString(strings.TrimRight(text, "\n\x00") + "\n")
			s.mu.Unlock()
		}
	}()
}

// Log gives what the server has said so far, as lines of a log.
func (s *CyrusServer) Log() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// cyrusAuth answers a question for a password in saslauthd's protocol: name, password, service and realm, each behind its
// length, and OK or NO behind its length.
func cyrusAuth(c net.Conn) {
	defer c.Close()
	_ = Patient(c)
	var words [4]string
	for i := range words {
		var size uint16
		if binary.Read(c, binary.BigEndian, &size) != nil {
			return
		}
		word := make([]byte, size)
		if _, err := io.ReadFull(c, word); err != nil {
			return
		}
		words[i] = string(word)
	}
	answer := "\x00\x02NO"
	if words[0] == POP3User && words[1] == POP3Password {
		answer = "\x00\x02OK"
	}
	_, _ = io.WriteString(c, answer)
}

// Address gives HOST:PORT of the server.
func (s *CyrusServer) Address() string { return fmt.Sprintf("127.0.0.1:%d", s.Port) }
