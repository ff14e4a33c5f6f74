package test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"postern/internal/testenv"
)

// takeovers are daemons that another process of theirs takes over from, each with the port that clients come to and an
// event socket that it has bound itself.
func takeovers(t *testing.T, dir string) map[string][]string {
	b := testenv.StartBackend(t)
	events := func(name string) string { return filepath.Join(dir, name) }
	return map[string][]string{
		"smtp": {testenv.Binary(t, "smtp-proxy"), "--maxloadavg", "0", "--upstream", "smtp://" + b.Addr, "--notify", events("smtp")},
		"pop3": {testenv.Binary(t, "pop3-stamp"), "--upstream", "pop3://127.0.0.1:1", "--upstream-tls", "none", "--notify", events("pop3")},
	}
}

// TestTakeOver has a new process take over from one with a session, while clients come: none is refused, the session goes
// on, and the first process ends with it.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	dir := testenv.DaemonDir(t, filepath.Join(testenv.ShortDir(t), "d"))
	for name, command := range takeovers(t, dir) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			port := testenv.Activate(t, name)
			manager := testenv.StartManager(t)
			pidfile := filepath.Join(dir, name+".pid")
			cmd := port.Command(command[0], append(command[1:], "--config", "/dev/null", "--hostname", "gw.example", "--pidfile", pidfile)...)
			cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+manager.Path, "WATCHDOG_USEC=1000000")
			p := testenv.Start(t, cmd)
			manager.Wait("READY=1")
			old := greetedAt(t, port.Addr)
			var stop atomic.Bool
			var came atomic.Int64
			clients := testenv.Play(t, "clients that come and go", func(t testing.TB) {
				for !stop.Load() {
					greetedAt(t, port.Addr).quit()
					came.Add(1)
				}
			})
			next := takeOver(t, p, manager, pidfile)
			manager.AwaitPat()
			after := came.Load()
			testenv.Eventually(t, "clients have come since", func() bool { return came.Load() > after+10 })
			if !p.Running() {
				t.Error("the first process has ended before its session")
			}
			stop.Store(true)
			clients.Wait()
			old.quit()
			if status := p.Wait(); status != 0 {
				t.Errorf("status of the first process: %d", status)
			}
			if conn := testenv.Dial(t, "unix", filepath.Join(dir, name)); conn != nil {
				conn.Close()
			}
			if err := syscall.Kill(next, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			testenv.Eventually(t, "the second process has ended", func() bool { return syscall.Kill(next, 0) != nil })
		})
	}
}

// visitor is a client of any of the daemons.
type visitor struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

// greetedAt is a client that is welcome.
func greetedAt(t testing.TB, address string) *visitor {
	t.Helper()
	conn := testenv.Dial(t, "tcp4", address)
	testenv.Patient(conn)
	c := &visitor{t, conn, bufio.NewReader(conn)}
	c.expect()
	return c
}

// expect wants a positive reply.
func (c *visitor) expect() {
	c.t.Helper()
	if line, err := c.r.ReadString('\n'); err != nil || line[0] != '2' && line[0] != '+' {
		c.t.Fatalf("reply %q, %v", line, err)
	}
}

func (c *visitor) quit() {
	c.t.Helper()
	fmt.Fprint(c.conn, "QUIT\r\n")
	c.expect()
	c.conn.Close()
}

// takeOver has another process take over, and returns its id.
func takeOver(t *testing.T, p *testenv.Process, manager *testenv.Manager, pidfile string) int {
	t.Helper()
	p.Stop(syscall.SIGUSR2)
	text := manager.Wait(`MAINPID=\d+`)
	manager.Wait("READY=1") // which the manager believes, as it knows the process
	pid, err := strconv.Atoi(strings.TrimPrefix(text, "MAINPID="))
	if err != nil {
		t.Fatal(err)
	}
	if written, err := os.ReadFile(pidfile); err != nil || string(written) != fmt.Sprintf("%d\n", pid) {
		t.Errorf("pid file holds %q, %v; want %d", written, err, pid)
	}
	return pid
}

// TestTakeOverFails: with wrong settings there is no other process, and the first one goes on.
func TestTakeOverFails(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	conf := filepath.Join(testenv.ShortDir(t), "conf")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	address, p := startProxyTo(t, "smtp://"+b.Addr, "--config", conf)
	write("max-message-size many\n")
	for range 2 {
		p.Stop(syscall.SIGUSR2)
		p.WaitOutput("no take-over")
	}
	dialSMTP(t, address).say("NOOP\r\n", "250")
	p.Stop(syscall.SIGTERM)
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d", status)
	}
}

// TestTakeOverIsEnded: what ends the first process in the middle of a take-over ends the other one, too.
func TestTakeOverIsEnded(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	_, p := startProxyTo(t, "smtp://"+b.Addr, "--config", "/dev/null")
	p.Stop(syscall.SIGUSR2)
	p.WaitOutput("another process is to take over")
	if err := syscall.Kill(p.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the other one has ended", func() bool { return syscall.Kill(-p.Pid(), 0) == syscall.ESRCH })
}
