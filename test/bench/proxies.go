package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// A proxy is a way from a client to the sink.
type proxy struct {
	name    string
	port    int
	pid     int    // 0: there is none, clients talk to the sink
	metrics string // socket with figures, of ours
}

// A proxyKind says how one of them is started between two ports of 127.0.0.1.
type proxyKind struct {
	name  string
	needs []string // programs, or files
	root  bool     // must be started as root
	start func(b *bench, in, out int, dir string) (command []string, err error)
}

var proxyKinds = []proxyKind{
	{name: "haproxy", needs: []string{"haproxy"}, start: (*bench).haproxy},
	{name: "nginx", needs: []string{"nginx", nginxMail}, start: (*bench).nginx},
	{name: "postfix", needs: []string{"postfix", postfixMaster}, root: true, start: (*bench).postfix},
	{name: "proxsmtpd", needs: []string{"proxsmtpd"}, start: (*bench).proxsmtpd},
	{name: "ours", start: (*bench).smtpProxy},
}

// startProxy starts the proxy of that name in front of a sink, nil if it is not
// installed.
func (b *bench) startProxy(name string, sink int) (*proxy, error) {
	return b.startOneOf(proxyKinds, name, sink)
}

func (b *bench) startOneOf(kinds []proxyKind, name string, sink int) (*proxy, error) {
	for _, kind := range kinds {
		if kind.name != name {
			continue
		}
		for _, file := range kind.needs {
			if missing(file) {
				return nil, nil
			}
		}
		if kind.root && !asRoot() {
			fmt.Printf("(not root: the row of %s is left out)\n", name)
			return nil, nil
		}
		p, err := b.launch(kind, sink)
		if err != nil {
			err = fmt.Errorf("%s: %w", name, err)
		}
		return p, err
	}
	return nil, fmt.Errorf("no proxy %q", name)
}

func (b *bench) launch(kind proxyKind, sink int) (*proxy, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(b.dir, kind.name)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	command, err := kind.start(b, port, sink, dir)
	if err != nil {
		return nil, err
	}
	p := &proxy{name: kind.name, port: port, metrics: filepath.Join(dir, "metrics")}
	log := filepath.Join(dir, "output")
	if p.pid, err = b.children.start(log, command[0], command[1:]...); err != nil {
		return nil, err
	}
	return p, awaitChild(kind.name, p.pid, log, func() bool { return takes(port) })
}

// startSink starts Postfix's sink, which takes any mail, and gives its port.
func (b *bench) startSink() (port int, err error) {
	if port, err = freePort(); err != nil {
		return 0, err
	}
	args := []string{"-m", "20000", address(port), "4096"}
	if asRoot() {
		args = append([]string{"-u", account}, args...)
	}
	log := filepath.Join(b.dir, "smtp-sink.log")
	pid, err := b.children.start(log, "smtp-sink", args...)
	if err != nil {
		return 0, err
	}
	return port, awaitChild("smtp-sink", pid, log, func() bool { return takes(port) })
}

// takes says whether connections are taken at a port.
func takes(port int) bool {
	conn, err := net.Dial("tcp4", address(port))
	if err == nil {
		conn.Close()
	}
	return err == nil
}

// smtpProxy is started without the limits that stand in the way of a single
// client that is many.
func (b *bench) smtpProxy(in, out int, dir string) ([]string, error) {
	return []string{b.ours("smtp-proxy"), "--smtp", "tcp:" + address(in), "--upstream", "smtp://" + address(out),
		"--metrics", filepath.Join(dir, "metrics"), "--maxloadavg", "0", "--max-sessions", strconv.Itoa(b.idleSessions() + spareSessions),
		"--max-sessions-per-address", "0", "--max-transactions", "0", "--max-message-size", "0", "--log-level", "warn"}, nil
}

func (b *bench) haproxy(in, out int, dir string) ([]string, error) {
	settings := filepath.Join(dir, "haproxy.cfg")
	text := fmt.Sprintf("global\n maxconn %d\ndefaults\n mode tcp\n timeout connect 10s\n timeout client 1h\n timeout server 1h\n"+
		"listen l\n bind %s backlog 4096\n server s %s\n", descriptorLimit()/2-50, address(in), address(out))
	return []string{"haproxy", "-db", "-q", "-f", settings}, os.WriteFile(settings, []byte(text), 0o644)
}

const nginxMail = "/usr/lib/nginx/modules/ngx_mail_module.so"

// nginx passes SMTP on.
func (b *bench) nginx(in, out int, dir string) ([]string, error) {
	return nginxFor("smtp", in, out, dir)
}

// nginxFor asks a server of ours where each session goes.
func nginxFor(protocol string, in, out int, dir string) ([]string, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header["Auth-Status"] = []string{"OK"}
		header["Auth-Server"] = []string{"127.0.0.1"}
		header["Auth-Port"] = []string{strconv.Itoa(out)}
		header["Date"] = nil
	}))
	settings := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(`load_module %s;
daemon off; worker_processes auto; pid %s/pid; error_log %[2]s/log error; %s
events { worker_connections %d; }
mail {
	server_name mx.example.net; auth_http %s/; timeout 1h; proxy_timeout 1h; xclient off;
	server { listen %s backlog=4096; protocol %s; smtp_auth none; proxy on; }
}
`, nginxMail, dir, pick(asRoot(), "user www-data;", ""), descriptorLimit()-100, l.Addr(), address(in), protocol)
	return []string{"nginx", "-c", settings, "-e", dir + "/log"}, os.WriteFile(settings, []byte(text), 0o644)
}

func (b *bench) proxsmtpd(in, out int, dir string) ([]string, error) {
	settings := filepath.Join(dir, "proxsmtpd.conf")
	text := fmt.Sprintf("OutAddress: %s\nListen: %s\nMaxConnections: 1000\nTempDirectory: %s\nTimeOut: 3000\n", address(out), address(in), dir)
	return []string{"proxsmtpd", "-d", "0", "-f", settings}, os.WriteFile(settings, []byte(text), 0o644)
}

const postfixMaster = "/usr/lib/postfix/sbin/master"

const postfixMain = `compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = %[1]s/log
maillog_file_prefixes = %[1]s
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mx.example.net
mydestination =
alias_maps =
local_recipient_maps =
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_client_connection_count_limit = 0
smtpd_peername_lookup = no
default_process_limit = 450
message_size_limit = 0
mailbox_size_limit = 0
`

const postfixServices = `%s inet n - n - 450 smtpd -o smtpd_proxy_filter=%s -o smtpd_proxy_timeout=600
cleanup unix n - n - 0 cleanup
rewrite unix - - n - - trivial-rewrite
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
`

// postfix is an smtpd with the sink as its filter before the queue.
func (b *bench) postfix(in, out int, dir string) ([]string, error) {
	return postfixIn(dir, fmt.Sprintf(postfixMain, dir), fmt.Sprintf(postfixServices, address(in), address(out)))
}

// postfixIn writes the settings of a Postfix below dir, and gives its command.
func postfixIn(dir, main, services string) ([]string, error) {
	for _, name := range []string{"etc", "queue", "data"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			return nil, err
		}
	}
	if err := giveTo("postfix", filepath.Join(dir, "data")); err != nil {
		return nil, err
	}
	settings := filepath.Join(dir, "etc")
	for name, text := range map[string]string{"main.cf": main, "master.cf": services} {
		if err := os.WriteFile(filepath.Join(settings, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	// The command makes the directories of the queue.
	if text, err := exec.Command("postfix", "-c", settings, "check").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("postfix check: %w\n%s", err, text)
	}
	return []string{postfixMaster, "-c", settings, "-d"}, nil
}

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// freePort finds a TCP port that nothing listens on.
func freePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
