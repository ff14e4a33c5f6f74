package testenv

import (
	"fmt"
	"path/filepath"
	"testing"
)

// EximServer is a real Exim with settings of its own, on 127.0.0.1.
type EximServer struct {
	*Jail
	Port    int
	Process *Process
}

// eximAccount is the account whose name is built into Debian's Exim.
var eximAccount = JailAccount{Name: "Debian-exim", ID: 64901, Home: "/var/spool/exim4"}

// eximConf delivers mail for bob and eve at example.net to a Maildir and sends all
// else to a port of this machine.
const eximConf = `primary_hostname = exim.example.net
daemon_smtp_ports = %[1]d
local_interfaces = <; 127.0.0.1
disable_ipv6 = true
spool_directory = /var/spool/exim4
notifier_socket =
log_file_path = /var/log/exim4/%%slog
tls_advertise_hosts =
host_lookup =
rfc1413_query_timeout = 0s
smtp_accept_queue_per_connection = 0
message_size_limit = 50M
keep_environment =
deliver_drop_privilege = true
smtputf8_advertise_hosts = *
acl_smtp_rcpt = check_rcpt
acl_smtp_data = accept
prdr_enable = false

begin acl
check_rcpt:
  accept domains = example.net
         local_parts = bob : eve
  deny domains = example.net
       message = No such user here
  accept hosts = 127.0.0.0/8
  deny message = Relaying denied

begin routers
mailbox:
  driver = accept
  domains = example.net
  transport = maildir
elsewhere:
  driver = manualroute
  route_list = * 127.0.0.1
  self = send
  transport = next_hop

begin transports
maildir:
  driver = appendfile
  directory = /mail
  maildir_format
  user = Debian-exim
  envelope_to_add
  return_path_add
next_hop:
  driver = smtp
  port = %[2]d
  allow_localhost
%[3]s

begin retry
* * F,1h,1s

begin rewrite
`

// StartExim starts an Exim that takes mail on a free port, delivers that for bob
// and eve at example.net to a Maildir, and sends what is for other domains to nextPort,
// with more settings of its smtp transport if any are given. It needs root.
func StartExim(t testing.TB, nextPort int, transport string) *EximServer {
	t.Helper()
	const what, program = "Exim as mail server", "/usr/sbin/exim4"
	s := &EximServer{Port: FreePort(t), Jail: NewJail(t, what, "exim4-daemon-light", []JailAccount{eximAccount}, program)}
	for _, dir := range []string{"/var/spool/exim4", "/var/log/exim4", "/mail"} {
		s.Mkdir(dir, 0o750, eximAccount.ID)
	}
	s.Mkdir("/etc/exim4", 0o755, 0)
	s.Write("/etc/exim4/exim4.conf", fmt.Sprintf(eximConf, s.Port, nextPort, transport), 0o644)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of Exim:\n%s", s.Log())
		}
	})
	s.Start()
	return s
}

// Start starts the server, again if it was ended.
func (s *EximServer) Start() {
	s.t.Helper()
	// -bdf stays in the foreground; the queue is run every second.
	s.Process = Start(s.t, s.Command("/usr/sbin/exim4", "-bdf", "-q1s"))
	awaitGreeting(s.t, s.Process, "tcp4", s.Address(), s.Log)
}

// Address gives HOST:PORT of the server.
func (s *EximServer) Address() string { return fmt.Sprintf("127.0.0.1:%d", s.Port) }

// Log gives what Exim has logged so far.
func (s *EximServer) Log() string {
	return s.Read("/var/log/exim4/mainlog") + s.Read("/var/log/exim4/rejectlog") + s.Read("/var/log/exim4/paniclog")
}

// Delivered gives the messages that have arrived, whole, in no order.
func (s *EximServer) Delivered() []string {
	s.t.Helper()
	return readFiles(s.t, filepath.Join(s.Dir, "mail", "new", "*"))
}
