package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Mailserver is a real Postfix with settings of its own, on 127.0.0.1.
type Mailserver struct {
	Port    int    // of smtpd
	Dir     string // everything that it writes is below
	Maildir string // where mail for example.net is delivered to
	Process *Process

	t testing.TB
}

// postfixMain are the settings of Postfix; more may be given to StartPostfix.
const postfixMain = `compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
daemon_directory = /usr/lib/postfix/sbin
command_directory = /usr/sbin
shlib_directory = /usr/lib/postfix
mail_owner = postfix
setgid_group = postdrop
maillog_file = %[1]s/log
maillog_file_prefixes = %[1]s
myhostname = mx.example.net
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
alias_maps =
local_recipient_maps =
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_peername_lookup = no
smtp_host_lookup = native
virtual_mailbox_domains = example.net
virtual_mailbox_base = %[1]s
virtual_mailbox_maps = static:Maildir/
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
default_transport = error:nothing leaves this machine
smtpd_timeout = 600s
milter_connect_timeout = 600s
milter_command_timeout = 600s
milter_content_timeout = 600s
`

// postfixMaster are the services that a delivery needs.
const postfixMaster = `127.0.0.1:%[1]d inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
`

// StartPostfix starts a Postfix that takes mail on a free port and delivers
// mail for example.net to a Maildir. Lines of main.cf and master.cf may be
// given that count more than, or come after, its own. It needs root.
func StartPostfix(t testing.TB, mainLines, masterLines string) *Mailserver {
	t.Helper()
	Need(t, "Postfix as mail server", "postfix")
	NeedRoot(t)
	m := &Mailserver{Port: FreePort(t), Dir: ShortDir(t), t: t}
	m.Maildir = filepath.Join(m.Dir, "Maildir")
	settings := filepath.Join(m.Dir, "etc")
	for _, dir := range []string{settings, filepath.Join(m.Dir, "queue"), filepath.Join(m.Dir, "data"), m.Maildir} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	chown(t, m.Maildir, "nobody")
	chown(t, filepath.Join(m.Dir, "data"), "postfix")
	for name, text := range map[string]string{
		"main.cf":   overridden(fmt.Sprintf(postfixMain, m.Dir), mainLines) + mainLines + "\n",
		"master.cf": fmt.Sprintf(postfixMaster, m.Port) + masterLines + "\n",
	} {
		if err := os.WriteFile(filepath.Join(settings, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// master is started by itself, as the postfix command detaches it from us;
	// but that command makes the directories of the queue.
	check := exec.Command(Path(t, "Postfix as mail server", "postfix"), "-c", settings, "check")
	if out, err := check.CombinedOutput(); err != nil {
		t.Fatalf("postfix check: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of Postfix:\n%s", m.Log())
		}
	})
	m.Start()
	return m
}

// overridden gives settings without those that others override. Postfix would take the last one, but each of its
// processes would warn; and the log's server, which sends its own warnings to itself, can then wait for itself for ever
// when ten datagrams, the most that a socket holds, came before it.
func overridden(settings, others string) string {
	var kept []string
	for line := range strings.Lines(settings) {
		key, _, _ := strings.Cut(line, "=")
		again := slices.ContainsFunc(strings.Split(others, "\n"), func(other string) bool {
			k, _, ok := strings.Cut(other, "=")
			return ok && strings.TrimSpace(k) == strings.TrimSpace(key)
		})
		if !again {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// Start starts the server, again if it was ended.
func (m *Mailserver) Start() {
	m.t.Helper()
	m.Process = Start(m.t, exec.Command("/usr/lib/postfix/sbin/master", "-c", filepath.Join(m.Dir, "etc"), "-d"))
	awaitGreeting(m.t, m.Process, "tcp4", m.Address(), m.Log)
}

// Address gives HOST:PORT of the server.
func (m *Mailserver) Address() string { return fmt.Sprintf("127.0.0.1:%d", m.Port) }

// Log gives what Postfix has logged so far.
func (m *Mailserver) Log() string {
	text, err := os.ReadFile(filepath.Join(m.Dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Delivered gives the messages that have arrived, whole, in no order.
func (m *Mailserver) Delivered() []string {
	m.t.Helper()
	return readFiles(m.t, filepath.Join(m.Maildir, "new", "*"))
}

// AwaitDelivered waits for a message that contains text and gives it.
func (m *Mailserver) AwaitDelivered(text string) string {
	m.t.Helper()
	var found string
	Eventually(m.t, fmt.Sprintf("Postfix to deliver a message with %q", text), func() bool {
		for _, message := range m.Delivered() {
			if strings.Contains(message, text) {
				found = message
				return true
			}
		}
		return false
	})
	return found
}
