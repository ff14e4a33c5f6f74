package test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"postern/internal/testenv"
)

// host is a network namespace of its own, with one address. It lasts as long as a process that only sleeps in it, so that
// nothing is left of it when that ends, however the test does.
type host struct {
	name, addr string
	ns         string // file of the namespace
}

// rack is some hosts on a switch.
type rack struct {
	t     *testing.T
	world host // with the bridge; clients and mail servers are there
	next  int
}

// newRack makes the switch, which clients have addresses of.
func newRack(t *testing.T, clients int) *rack {
	t.Helper()
	testenv.NeedNamespaces(t)
	testenv.Need(t, "network namespaces", "ip", "nsenter")
	r := &rack{t: t, world: newHost(t, "world", "10.99.0.1")}
	script := "link set lo up\nlink add switch0 type bridge\nlink set switch0 up\naddr add 10.99.0.1/16 dev switch0\n"
	for i := range clients {
		script += fmt.Sprintf("addr add %s/16 dev switch0\n", clientAddr(i))
	}
	r.world.ip(t, script)
	return r
}

// clientAddr is the address of a client.
func clientAddr(i int) string { return fmt.Sprintf("10.99.1.%d", i+1) }

// newHost makes a namespace.
func newHost(t *testing.T, name, addr string) host {
	t.Helper()
	p := testenv.Start(t, exec.Command("unshare", "--net", "sleep", "infinity"))
	h := host{name, addr, fmt.Sprintf("/proc/%d/ns/net", p.Pid())}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	p.Until("a namespace for "+name, func() bool {
		ns, err := os.Readlink(h.ns)
		return err == nil && ns != own
	})
	return h
}

// host adds a host to the rack.
func (r *rack) host(name, addr string) *host {
	r.t.Helper()
	h := newHost(r.t, name, addr)
	r.next++
	port := fmt.Sprintf("veth%d", r.next)
	r.world.ip(r.t, fmt.Sprintf("link add %s type veth peer name eth0 netns %s\nlink set %s master switch0 up\n", port, pidOf(h.ns), port))
	h.ip(r.t, fmt.Sprintf("link set lo up\naddr add %s/16 dev eth0\nlink set eth0 up\n", addr))
	return &h
}

func pidOf(ns string) string { return strings.Split(ns, "/")[2] }

// ip runs commands of ip(8).
func (h host) ip(t *testing.T, script string) {
	t.Helper()
	cmd := h.command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(script)
	if _, stderr, status := testenv.RunCmd(t, cmd); status != 0 {
		t.Fatalf("ip at %s: %s", h.name, stderr)
	}
}

// command is a program that runs at the host.
func (h host) command(program string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=" + h.ns, program}, args...)...)
}

// at calls f on a thread that is at the host: sockets that it makes are the host's. The thread is not used again.
func (h host) at(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		ns, err := os.Open(h.ns)
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			_ = ns.Close()
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// listen opens a port at the host.
func (h host) listen(t *testing.T, port int) (l net.Listener) {
	t.Helper()
	err := h.at(func() (err error) {
		l, err = net.Listen("tcp4", fmt.Sprintf("%s:%d", h.addr, port))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// dial connects from an address of the host.
func (h host) dial(from, to string) (c net.Conn, err error) {
	err = h.at(func() (err error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IP(netip.MustParseAddr(from).AsSlice())}, Timeout: testenv.Patience}
		c, err = d.Dial("tcp4", to)
		return err
	})
	if err == nil {
		err = testenv.Patient(c)
	}
	return c, err
}

// The addresses of the rack.
const (
	balancer = "10.99.0.2"
	gateway1 = "10.99.0.11"
	gateway2 = "10.99.0.12"
	store1   = "10.99.0.21"
	store2   = "10.99.0.22"
)

const rackHAProxy = `defaults
  mode tcp
  timeout connect 5s
  timeout client 2m
  timeout server 2m
  timeout check 20s
  option redispatch
listen smtp
  bind 10.99.0.2:25
  balance roundrobin
  option smtpchk EHLO haproxy.example.org
  server gw1 10.99.0.11:25 send-proxy-v2 check check-send-proxy inter 300ms
  server gw2 10.99.0.12:25 send-proxy-v2 check check-send-proxy inter 300ms
listen pop3
  bind 10.99.0.2:110
  server gw1 10.99.0.11:110 send-proxy-v2
`

// storeURL is the store as Sentinels know it.
const storeURL = "redis://" + store1 + "/0?sentinel=rack&addr=" + store2 + "&addr=" + balancer

// shelf is the rack with all that runs in it.
type shelf struct {
	*rack
	gateways [2]*host
	proxies  [2]*testenv.Process
	args     [2][]string
	master   *testenv.Process
	backend  *testenv.Backend
	events   *testenv.Process
}

// TestRack is two gateways behind a load balancer, with one POP3 proxy and one store, on hosts of their own. A login lets the client send
// through both, limits hold over both, and while mail goes through one gateway is killed, one is drained, and the store's master
// dies: what was acknowledged is delivered, and delivered twice only where the client never heard the answer. One listener
// hears what happens everywhere.
func TestRack(t *testing.T) {
	t.Parallel()
	clients, messages := testenv.Load(5, 20), testenv.Load(300, 10_000)
	s := startShelf(t, clients)
	first := clientAddr(0)
	if got := s.greeting(first); !strings.HasPrefix(got, "421") {
		t.Errorf("without a login: %q", got)
	}
	testenv.Eventually(t, "the listener hears of a login", func() bool {
		s.login(first)
		return strings.Contains(s.events.Output(), "pop P "+first+" alice")
	})
	for i := range clients {
		s.login(clientAddr(i))
	}
	for range 4 { // two at each gateway
		if got := s.greeting(first); !strings.HasPrefix(got, "220") {
			t.Errorf("with a login: %q", got)
		}
	}
	s.limitHolds(first)

	sent := &sending{acked: map[string]bool{}, unsure: map[string]bool{}}
	var tasks []*testenv.Task
	for i := range clients {
		tasks = append(tasks, testenv.Go(t, "client "+clientAddr(i), func() error { return s.client(i, messages/clients, sent) }))
	}
	s.after(sent, messages/5, "gateway 1 is killed")
	s.proxies[0].Kill()
	s.after(sent, messages*2/5, "gateway 1 is back")
	s.startProxy(0)
	s.after(sent, messages/2, "gateway 2 is drained")
	s.proxies[1].Stop(syscall.SIGTERM)
	if status := s.proxies[1].Wait(); status != 0 {
		t.Errorf("drained: exit status %d", status)
	}
	s.startProxy(1)
	s.after(sent, messages*3/4, "the store's master dies")
	s.killMaster()
	for _, task := range tasks {
		task.Wait()
	}
	s.account(sent, messages/clients*clients)
	s.hearsAll()
}

// startShelf starts everything.
func startShelf(t *testing.T, clients int) *shelf {
	t.Helper()
	for _, program := range []string{"haproxy", "redis-server", "redis-cli"} {
		testenv.Need(t, "a rack", program)
	}
	s := &shelf{rack: newRack(t, clients)}
	lb := s.host("balancer", balancer)
	s.gateways = [2]*host{s.host("gateway1", gateway1), s.host("gateway2", gateway2)}
	s.startStore(lb)
	s.backend = testenv.ServeBackend(t, s.world.listen(t, 2525))
	servePOP3(t, s.world.listen(t, 1110))
	for i := range s.gateways {
		s.startMultiplexor(i)
		s.startProxy(i)
	}
	pop := testenv.Start(t, s.gateways[0].command(testenv.Binary(t, "pop3-stamp"), "--pop3", "tcp:"+gateway1+":110", "--proxy-from", balancer,
		"--upstream", "pop3://10.99.0.1:1110",
		"--clientip-store", storeURL, "--clientip-store-timeout", "1m", "--cluster-limits=yes", "--notify", "tcp:"+gateway1+":4713"))
	conf := filepath.Join(testenv.ShortDir(t), "haproxy.cfg")
	if err := os.WriteFile(conf, []byte(rackHAProxy), 0o644); err != nil {
		t.Fatal(err)
	}
	testenv.Start(t, lb.command(testenv.Path(t, "a rack", "haproxy"), "-db", "-f", conf))
	s.events = testenv.Start(t, s.world.command(testenv.Binary(t, "notify-cat"), "--format", "raw",
		"gw1=tcp:"+gateway1+":4712", "gw2=tcp:"+gateway2+":4712", "pop=tcp:"+gateway1+":4713"))
	testenv.Eventually(t, "the rack answers", func() bool {
		if !pop.Running() {
			t.Fatal("pop3-stamp has ended")
		}
		return s.greeting(clientAddr(0)) != "" && s.talk(clientAddr(0), balancer+":110") != nil
	})
	return s
}

// startStore starts a master, its replica and three Sentinels.
func (s *shelf) startStore(lb *host) {
	t := s.t
	t.Helper()
	hosts := []*host{s.host("store1", store1), s.host("store2", store2), lb}
	for i, h := range hosts[:2] {
		args := []string{"--port", "6379", "--bind", h.addr, "--protected-mode", "no", "--dir", testenv.ShortDir(t),
			"--save", "", "--repl-diskless-sync-delay", "0"}
		if i > 0 {
			args = append(args, "--replicaof", store1+" 6379")
		}
		p := testenv.Start(t, h.command("redis-server", args...))
		p.WaitOutput("eady to accept connections")
		if i == 0 {
			s.master = p
		}
	}
	testenv.Eventually(t, "the replica follows", func() bool {
		out, _, _ := testenv.RunCmd(t, hosts[1].command("redis-cli", "-h", store2, "INFO", "replication"))
		return strings.Contains(out, "master_link_status:up")
	})
	for i, h := range hosts {
		conf := filepath.Join(testenv.ShortDir(t), "sentinel.conf")
		text := fmt.Sprintf("port 26379\nbind %s\nprotected-mode no\nsentinel myid %040d\nsentinel monitor rack %s 6379 2\n"+
			"sentinel down-after-milliseconds rack 600000\n"+
			"sentinel failover-timeout rack 3000\nsentinel known-replica rack %s 6379\n", h.addr, i+1, store1, store2)
		for k, other := range hosts {
			if k != i {
				text += fmt.Sprintf("sentinel known-sentinel rack %s 26379 %040d\n", other.addr, k+1)
			}
		}
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		testenv.Start(t, h.command("redis-server", conf, "--sentinel")).WaitOutput("+monitor")
	}
}

// killMaster ends the store's master, and the Sentinels need not wait as long for it as for one that is only slow.
func (s *shelf) killMaster() {
	s.t.Helper()
	s.master.Kill()
	for _, addr := range []string{store1, store2, balancer} {
		cmd := s.world.command("redis-cli", "-h", addr, "-p", "26379", "SENTINEL", "SET", "rack", "down-after-milliseconds", "1000")
		if out, _, status := testenv.RunCmd(s.t, cmd); status != 0 || strings.TrimSpace(out) != "OK" {
			s.t.Fatalf("the Sentinel at %s: status %d, %s", addr, status, out)
		}
	}
}

// startMultiplexor starts the filter of a gateway, and prepares the settings of its proxy.
func (s *shelf) startMultiplexor(i int) {
	t := s.t
	t.Helper()
	dir := testenv.ShortDir(t)
	run, spool := testenv.DaemonDir(t, filepath.Join(dir, "run")), testenv.DaemonDir(t, filepath.Join(dir, "spool"))
	account, _ := testenv.DaemonAccount()
	mx := testenv.Start(t, s.gateways[i].command(testenv.Binary(t, "multiplexor"), "-D",
		"-m", "1", "-x", "2", "-s", filepath.Join(run, "mx"), "-z", spool,
		"-f", testenv.Binary(t, "filter-basic"), "-U", account))
	testenv.Eventually(t, "a free worker", func() bool {
		if !mx.Running() {
			t.Fatal("multiplexor has ended")
		}
		free, _, status := testenv.Run(t, testenv.Binary(t, "mx-ctrl"), "-s", filepath.Join(run, "mx"), "free")
		return status == 0 && strings.TrimSpace(free) != "0"
	})
	addr := s.gateways[i].addr
	s.args[i] = []string{"--smtp", "tcp:" + addr + ":25", "--notify", "tcp:" + addr + ":4712", "--proxy-from", balancer,
		"--maxloadavg", "0", "--client-lookup=no",
		"--user", account, "--multiplexor", filepath.Join(run, "mx"), "--spool", spool, "--upstream", "smtp://10.99.0.1:2525",
		"--clientip-store", storeURL, "--clientip-store-timeout", "1m", "--clientip-exempt", balancer, "--limit-exempt", balancer,
		"--cluster-limits=yes", "--max-sessions-per-address", "6", "--drain-timeout", "1h"}
}

// startProxy starts the proxy of a gateway, for the first time or again.
func (s *shelf) startProxy(i int) {
	s.t.Helper()
	p := testenv.Start(s.t, s.gateways[i].command(testenv.Binary(s.t, "smtp-proxy"), s.args[i]...))
	s.proxies[i] = p
	testenv.Eventually(s.t, "smtp-proxy listens", func() bool {
		if !p.Running() {
			s.t.Fatal("smtp-proxy has ended")
		}
		c, err := s.world.dial("10.99.0.1", s.gateways[i].addr+":25")
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

// servePOP3 is a server with one password for everybody.
func servePOP3(t *testing.T, l net.Listener) {
	t.Cleanup(func() { _ = l.Close() })
	go acceptPOP3(l)
}

// talk sends lines from an address, each behind the answer to the one before, and returns the first lines of the answers, the
// greeting first; nil if there is none.
func (s *shelf) talk(from, to string, send ...string) (got []string) {
	c, err := s.world.dial(from, to)
	if err != nil {
		return nil
	}
	defer c.Close()
	d := &rackDialog{c, bufio.NewReader(c)}
	for _, line := range append([]string{""}, send...) {
		answer, err := d.say(line)
		if err != nil {
			return got
		}
		got = append(got, answer)
	}
	return got
}

func (s *shelf) greeting(from string) string {
	return strings.Join(s.talk(from, balancer+":25"), "")
}

// login fetches mail from an address.
func (s *shelf) login(from string) {
	s.t.Helper()
	if got := s.talk(from, balancer+":110", "USER alice", "PASS good", "QUIT"); len(got) != 4 || !strings.HasPrefix(got[2], "+OK") {
		s.t.Errorf("login from %s: %q", from, got)
	}
}

// limitHolds opens as many sessions as an address may have at both gateways together.
func (s *shelf) limitHolds(from string) {
	s.t.Helper()
	var open []net.Conn
	greet := func() string {
		c, err := s.world.dial(from, balancer+":25")
		if err != nil {
			return err.Error()
		}
		open = append(open, c)
		line, _ := bufio.NewReader(c).ReadString('\n')
		return line
	}
	testenv.Eventually(s.t, "earlier sessions have ended", func() bool {
		for _, c := range open {
			_ = c.Close()
		}
		open = nil
		for range 6 {
			if !strings.HasPrefix(greet(), "220") {
				return false
			}
		}
		return true
	})
	for range 4 { // at either gateway
		if got := greet(); !strings.HasPrefix(got, "421") || !strings.Contains(got, "Too many sessions") {
			s.t.Errorf("a seventh session: %q", got)
		}
	}
	for _, c := range open {
		_ = c.Close()
	}
}

// rackDialog is one side of a connection.
type rackDialog struct {
	c net.Conn
	r *bufio.Reader
}

// say sends a line, if it is one, and returns the first line of the answer.
func (d *rackDialog) say(line string) (string, error) {
	if line != "" {
		if _, err := d.c.Write([]byte(line + "\r\n")); err != nil {
			return "", err
		}
	}
	first := ""
	for {
		answer, err := d.r.ReadString('\n')
		if err != nil {
			return "", err
		}
		if first == "" {
			first = strings.TrimSpace(answer)
		}
		if len(answer) < 4 || answer[3] != '-' {
			return first, nil
		}
	}
}

// sending is what clients know of their messages.
type sending struct {
	count  atomic.Int64 // acknowledged
	mu     sync.Mutex
	acked  map[string]bool
	unsure map[string]bool // sent whole at least once without an answer
}

// client sends messages as a mail server does: again and again, until each is acknowledged, several in a session.
func (s *shelf) client(number, messages int, all *sending) error {
	until := time.Now().Add(testenv.Patience)
	for next := 0; next < messages; {
		if time.Now().After(until) {
			return fmt.Errorf("client %d: stuck at message %d", number, next)
		}
		before := next
		s.clientSession(number, &next, min(next+10, messages), all)
		if next == before {
			testenv.Pause(20 * time.Millisecond)
		} else {
			until = time.Now().Add(testenv.Patience)
		}
	}
	return nil
}

// clientSession sends messages from *next on until one is not taken.
func (s *shelf) clientSession(number int, next *int, last int, all *sending) {
	c, err := s.world.dial(clientAddr(number), balancer+":25")
	if err != nil {
		return
	}
	defer c.Close()
	d := &rackDialog{c, bufio.NewReader(c)}
	if d.expect("", "220") != nil || d.expect("EHLO client.example.org", "250") != nil {
		return
	}
	for ; *next < last; *next++ {
		id := fmt.Sprintf("m-%d-%d", number, *next)
		if d.expect("MAIL FROM:<ann@example.org>", "250") != nil || d.expect("RCPT TO:<bob@example.net>", "250") != nil || d.expect("DATA", "354") != nil {
			return
		}
		answer, err := d.say("Subject: " + id + "\r\nFrom: ann@example.org\r\n\r\nhello\r\n.")
		all.mu.Lock()
		if err != nil {
			all.unsure[id] = true
		}
		acked := strings.HasPrefix(answer, "250")
		if acked {
			all.acked[id] = true
		}
		all.mu.Unlock()
		if !acked {
			return
		}
		all.count.Add(1)
	}
	_, _ = d.say("QUIT")
}

var errAnswer = errors.New("another answer")

// expect says a line and wants an answer that begins so.
func (d *rackDialog) expect(line, code string) error {
	answer, err := d.say(line)
	if err == nil && !strings.HasPrefix(answer, code) {
		return errAnswer
	}
	return err
}

// after waits until so many messages were acknowledged.
func (s *shelf) after(all *sending, messages int, what string) {
	s.t.Helper()
	testenv.Eventually(s.t, "the time when "+what, func() bool { return all.count.Load() >= int64(messages) })
	s.t.Logf("%s, behind %d messages", what, all.count.Load())
}

// account compares what was acknowledged with what was delivered.
func (s *shelf) account(all *sending, messages int) {
	s.t.Helper()
	delivered := map[string]int{}
	for _, m := range s.backend.Messages() {
		_, rest, _ := strings.Cut(m.Data, "Subject: ")
		id, _, _ := strings.Cut(rest, "\r\n")
		delivered[strings.TrimSpace(id)]++
	}
	if len(all.acked) != messages {
		s.t.Errorf("%d messages were acknowledged, want %d", len(all.acked), messages)
	}
	twice := 0
	for id := range all.acked {
		switch n := delivered[id]; {
		case n == 0:
			s.t.Errorf("%s was acknowledged and is lost", id)
		case n > 1 && !all.unsure[id]:
			s.t.Errorf("%s was delivered %d times, and each answer was heard", id, n)
		case n > 1:
			twice++
		}
	}
	s.t.Logf("%d messages acknowledged and delivered, %d of them twice; %d without an answer once", len(all.acked), twice, len(all.unsure))
}

// hearsAll looks whether the listener, who has heard of a stamp, heard of mail at both gateways.
func (s *shelf) hearsAll() {
	s.t.Helper()
	for _, text := range []string{"gw1 A ", "gw2 A "} {
		s.events.WaitOutput(text)
	}
}
