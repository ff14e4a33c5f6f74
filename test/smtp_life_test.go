package test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/testenv"
)

// TestTermLetsMessagesEnd ends the real proxy while one client is idle and another sends a message.
func TestTermLetsMessagesEnd(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	pidfile := filepath.Join(testenv.ShortDir(t), "pid")
	address, p := startProxyTo(t, "smtp://"+b.Addr, "--pidfile", pidfile, "--hostname", "proxy.example")
	if text, err := os.ReadFile(pidfile); err != nil || string(text) != fmt.Sprintf("%d\n", p.Pid()) {
		t.Errorf("pid file holds %q, %v; want %d", text, err, p.Pid())
	}
	idle, busy := dialSMTP(t, address), dialSMTP(t, address)
	busy.say("MAIL FROM:<ann@example.org>\r\n", "250")
	busy.say("RCPT TO:<bob@example.net>\r\n", "250")
	busy.say("DATA\r\n", "354")
	p.Stop(syscall.SIGTERM)
	idle.expect("421 4.3.2")
	busy.say("Subject: x\r\n\r\ntext\r\n.\r\n", "250")
	busy.expect("421 4.3.2")
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	if n := len(b.Messages()); n != 1 {
		t.Errorf("%d messages, want 1", n)
	}
}

// TestHangupChangesLimits has the real proxy read its settings again.
func TestHangupChangesLimits(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	conf := filepath.Join(testenv.ShortDir(t), "smtp-proxy.conf")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("max-message-size 1000\n")
	address, p := startProxyTo(t, "smtp://"+b.Addr, "--config", conf)
	old := dialSMTP(t, address)
	write("max-message-size 100\n")
	p.Stop(syscall.SIGHUP)
	testenv.Eventually(t, "the new limit is in force", func() bool {
		c := dialSMTP(t, address)
		defer c.Close()
		line := c.say("MAIL FROM:<ann@example.org> SIZE=500\r\n", "")
		return strings.HasPrefix(line, "552")
	})
	old.say("MAIL FROM:<ann@example.org> SIZE=500\r\n", "250")
	write("max-message-size many\n")
	p.Stop(syscall.SIGHUP)
	p.WaitOutput("settings are not reloaded")
	dialSMTP(t, address).say("MAIL FROM:<ann@example.org> SIZE=500\r\n", "552")
	write("max-message-size 100\nupstream-helo other.example\n")
	p.Stop(syscall.SIGHUP)
	p.WaitOutput("not_in_force=upstream-helo")
}

// TestLoadGateIsHeardOf listens to the real proxy while the load rises and falls and no client comes.
func TestLoadGateIsHeardOf(t *testing.T) {
	t.Parallel()
	dir := testenv.DaemonDir(t, filepath.Join(testenv.ShortDir(t), "d"))
	load, socket := filepath.Join(dir, "load"), filepath.Join(dir, "n")
	setLoad := func(text string) {
		if err := os.WriteFile(load, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	setLoad("0.1 0 0 1/1 1\n")
	startProxyTo(t, "smtp://127.0.0.1:1", "--maxloadavg", "5", "--loadavg-file", load, "--notify", socket)
	nc := testenv.Dial(t, "unix", socket)
	fmt.Fprint(nc, "?L+\n")
	heard := bufio.NewReader(nc)
	await := func(end string) {
		t.Helper()
		if err := testenv.Patient(nc); err != nil {
			t.Fatal(err)
		}
		for line := ""; !strings.HasSuffix(line, end); {
			var err error
			if line, err = heard.ReadString('\n'); err != nil {
				t.Fatalf("%q was not heard: %v", end, err)
			}
		}
	}
	await(" L 0\n") // the snapshot
	setLoad("7 0 0 1/1 1\n")
	await(" L 1\n")
	setLoad("0.1 0 0 1/1 1\n")
	await(" L 0\n")
}

// TestWorkerGateBesideMultiplexor: while a real multiplexor has no worker for anybody the proxy greets nobody, and it does
// again once there is one, whether it asks or is told.
func TestWorkerGateBesideMultiplexor(t *testing.T) {
	t.Parallel()
	pool := startNotifyPool(t, testenv.Binary(t, "multiplexor"), "", "-q", "0")
	spool := testenv.DaemonDir(t, filepath.Join(testenv.ShortDir(t), "spool"))
	for _, more := range [][]string{nil, {"--multiplexor-notify", pool.notify}} {
		address, _ := startProxyTo(t, "smtp://127.0.0.1:1", append([]string{"--multiplexor", pool.socket(), "--spool", spool}, more...)...)
		for range 2 {
			release := pool.hold()
			testenv.Eventually(t, "nobody is let in", func() bool { return !greets(address) })
			for range 5 {
				if greets(address) {
					t.Errorf("%v: the gate is open while no worker is free", more)
				}
			}
			release()
			testenv.Eventually(t, "clients are let in again", func() bool { return greets(address) })
		}
	}
}

// TestCheckFindsWhatIsWrong: settings with which the proxy could not start do not pass --check.
func TestCheckFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ flag, value string }{
		{"upstream", "bogus://x"}, {"upstream", "smtp://localhost:99999"}, {"upstream-source", "nonsense"}, {"hold", "foo:"}, {"multiplexor", "inet:x"},
		{"multiplexor-notify", "tcp:x"}, {"clientip-owner", "no-such-user"}, {"notify-users", "no-such-user"}, {"smtp", "inet:x"}, {"upstream-helo", "a b"},
		{"spool-group", "no-such-group"},
	} {
		args := []string{"--check", "--config", "/dev/null", "--upstream", "maildir:/nowhere", "--clientip-dir", "/nowhere", "--" + tt.flag, tt.value}
		if tt.flag == "spool-group" {
			args = append(args, "--multiplexor", "/nowhere")
		}
		_, stderr, status := testenv.Run(t, testenv.Binary(t, "smtp-proxy"), args...)
		if status != 78 {
			t.Errorf("%s %s: status %d, want 78\n%s", tt.flag, tt.value, status, stderr)
		}
	}
}

// TestNoDescriptorLeft has the real proxy run out of descriptors: RES-06. It goes on serving who is there, does not
// spin, and takes new clients once others have left.
func TestNoDescriptorLeft(t *testing.T) {
	t.Parallel()
	port := testenv.FreePort(t)
	address := fmt.Sprintf("127.0.0.1:%d", port)
	user := ""
	if account, drops := testenv.DaemonAccount(); drops {
		user = "--user " + account
	}
	p := testenv.Start(t, exec.Command("/bin/sh", "-c", fmt.Sprintf("ulimit -n 40; exec %s --config /dev/null --maxloadavg 0 --smtp tcp:%s --upstream smtp://127.0.0.1:1 %s",
		testenv.Binary(t, "smtp-proxy"), address, user)))
	testenv.Eventually(t, "the proxy's greeting", func() bool { return greets(address) })
	var open []net.Conn
	for range 60 {
		nc := testenv.Dial(t, "tcp", address)
		open = append(open, nc)
	}
	p.WaitOutput("too many open files")
	before := processorTime(t, p.Pid())
	say := bufio.NewReader(open[0])
	if _, err := say.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	for range 10 { // each takes a while on a machine that is busy; nothing else is to be done meanwhile
		fmt.Fprint(open[0], "NOOP\r\n")
		if line, err := say.ReadString('\n'); err != nil || !strings.HasPrefix(line, "250") {
			t.Fatalf("reply %q, %v", line, err)
		}
	}
	if n := strings.Count(p.Output(), "too many open files"); n > 100 {
		t.Errorf("%d lines about one shortage", n)
	}
	for _, nc := range open {
		nc.Close()
	}
	testenv.Eventually(t, "the proxy greets again", func() bool { return greets(address) })
	if spent := processorTime(t, p.Pid()) - before; spent > time.Second {
		t.Errorf("the proxy spent %v of processor time", spent)
	}
}

// processorTime gives what all threads of a process have used of the processor: proc_pid_stat(5).
func processorTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, fields, _ := strings.Cut(string(text), ") ")
	words := strings.Fields(fields)
	if len(words) < 13 {
		t.Fatalf("%q is no status of a process", text)
	}
	var user, system int64
	if _, err := fmt.Sscan(words[11]+" "+words[12], &user, &system); err != nil {
		t.Fatal(err)
	}
	const tick = time.Second / 100
	return time.Duration(user+system) * tick
}

// TestStartWhileAnotherProxyDrains: a proxy that takes over while another still has a message to take keeps its pid
// file and sockets when that one ends.
func TestStartWhileAnotherProxyDrains(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	// Not a directory that root owns alone, or nobody could remove anything once root is given up.
	dir := testenv.DaemonDir(t, filepath.Join(testenv.ShortDir(t), "d"))
	address := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
	args := []string{"--config", "/dev/null", "--maxloadavg", "0", "--hostname", "proxy.example", "--upstream", "smtp://" + b.Addr, "--smtp", "tcp:" + address,
		"--pidfile", filepath.Join(testenv.ShortDir(t), "pid"), "--notify", filepath.Join(dir, "notify"), "--metrics", filepath.Join(dir, "metrics")}
	pidfile := args[slices.Index(args, "--pidfile")+1]
	if account, drops := testenv.DaemonAccount(); drops {
		args = append(args, "--user", account)
	}
	start := func() *testenv.Process {
		p := testenv.Start(t, exec.Command(testenv.Binary(t, "smtp-proxy"), args...))
		testenv.Eventually(t, "the proxy's greeting", func() bool {
			if !p.Running() {
				t.Fatal("smtp-proxy has ended")
			}
			return greets(address)
		})
		return p
	}
	first := start()
	busy := dialSMTP(t, address)
	busy.say("MAIL FROM:<ann@example.org>\r\n", "250")
	busy.say("RCPT TO:<bob@example.net>\r\n", "250")
	busy.say("DATA\r\n", "354")
	first.Stop(syscall.SIGTERM)
	testenv.Eventually(t, "the first to give up its names", func() bool {
		_, err := os.Lstat(filepath.Join(dir, "metrics"))
		return os.IsNotExist(err) && !greets(address)
	})
	second := start()
	busy.say("Subject: x\r\n\r\ntext\r\n.\r\n", "250")
	if status := first.Wait(); status != 0 {
		t.Errorf("first: status %d", status)
	}
	if text, err := os.ReadFile(pidfile); err != nil || string(text) != fmt.Sprintf("%d\n", second.Pid()) {
		t.Errorf("pid file holds %q, %v; want %d", text, err, second.Pid())
	}
	for _, name := range []string{"notify", "metrics"} {
		conn, err := testenv.Connect("unix", filepath.Join(dir, name))
		if err != nil {
			t.Errorf("the second has lost %s: %v", name, err)
			continue
		}
		conn.Close()
	}
	if n := len(b.Messages()); n != 1 {
		t.Errorf("%d messages, want 1", n)
	}
}
