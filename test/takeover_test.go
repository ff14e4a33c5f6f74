package test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"postern/internal/testenv"
)

// takenOver is a daemon that a process of its own takes over from.
type takenOver struct {
	*testing.T
	address, pidfile, events string
	cmd                      func() *exec.Cmd
	manager                  *testenv.Manager
	p                        *testenv.Process
}

// takeovers are daemons with a port that systemd has passed, or with one that they have bound, each with an event socket
// that it has bound itself.
func takeovers(t *testing.T) map[string]*takenOver {
	b := testenv.StartBackend(t)
	all := map[string]*takenOver{}
	for name, command := range map[string][]string{
		"smtp": {testenv.Binary(t, "smtp-proxy"), "--maxloadavg", "0", "--upstream", "smtp://" + b.Addr},
		"pop3": {testenv.Binary(t, "pop3-stamp"), "--upstream", "pop3://127.0.0.1:1", "--upstream-tls", "none"},
	} {
		for _, bound := range []bool{false, true} {
			dir := testenv.DaemonDir(t, filepath.Join(testenv.ShortDir(t), "d"))
			d := &takenOver{pidfile: filepath.Join(dir, "pid"), events: filepath.Join(dir, "events")}
			args := append(command[1:len(command):len(command)], "--config", "/dev/null", "--hostname", "gw.example", "--pidfile", d.pidfile, "--notify", d.events)
			if bound {
				d.address = fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
				args = append(args, "--"+name, "tcp:"+d.address)
				d.cmd = func() *exec.Cmd { return exec.Command(command[0], args...) }
				name += ", bound"
			} else {
				port := testenv.Activate(t, name)
				d.address = port.Addr
				d.cmd = func() *exec.Cmd { return port.Command(command[0], args...) }
			}
			all[name] = d
		}
	}
	return all
}

// start starts the daemon.
func (d *takenOver) start() {
	d.Helper()
	d.manager = testenv.StartManager(d.T)
	cmd := d.cmd()
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+d.manager.Path, "WATCHDOG_USEC=1000000")
	d.p = testenv.Start(d.T, cmd)
	d.manager.Wait("READY=1")
}

// pid returns what the pid file says.
func (d *takenOver) pid() int {
	d.Helper()
	text, err := os.ReadFile(d.pidfile)
	pid, numErr := strconv.Atoi(strings.TrimSuffix(string(text), "\n"))
	if err != nil || numErr != nil {
		d.Fatalf("pid file holds %q, %v", text, err)
	}
	return pid
}

// takeOver has another process take over, and returns its id.
func (d *takenOver) takeOver() int {
	d.Helper()
	d.p.Stop(syscall.SIGUSR2)
	text := d.manager.Wait(`MAINPID=\d+`)
	d.manager.Wait("READY=1") // which the manager believes, as it knows the process
	pid, err := strconv.Atoi(strings.TrimPrefix(text, "MAINPID="))
	if err != nil || d.pid() != pid {
		d.Errorf("pid file holds %d, want that of %q", d.pid(), text)
	}
	return pid
}

// TestTakeOver has a new process take over from one with a session, while clients come: none is refused, the session goes
// on, and the first process ends with it. The new one is what the first one was: the next start finds no trace of it.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	for name, d := range takeovers(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d.T = t
			d.start()
			old := greetedAt(t, d.address)
			var stop atomic.Bool
			var came atomic.Int64
			clients := testenv.Play(t, "clients that come and go", func(t testing.TB) {
				for !stop.Load() {
					greetedAt(t, d.address).quit()
					came.Add(1)
				}
			})
			next := d.takeOver()
			d.manager.AwaitPat()
			after := came.Load()
			testenv.Eventually(t, "clients have come since", func() bool { return came.Load() > after+10 })
			stop.Store(true)
			clients.Wait()
			old.quit()
			if status := d.p.Wait(); status != 0 {
				t.Errorf("status of the first process: %d", status)
			}
			testenv.Dial(t, "unix", d.events).Close()
			if err := syscall.Kill(next, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			testenv.Eventually(t, "the second process has ended", func() bool { return syscall.Kill(next, 0) != nil })
			if _, err := os.Lstat(d.events); err == nil {
				t.Error("the event socket is left")
			}
			d.start()
			greetedAt(t, d.address).quit()
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

// TestTakeOverFails: a new process that cannot begin, for wrong settings or for want of a place that is only looked for
// when it serves, changes nothing for the first one.
func TestTakeOverFails(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	dir := testenv.DaemonDir(t, filepath.Join(testenv.ShortDir(t), "d"))
	conf, stats, pidfile := filepath.Join(dir, "conf"), filepath.Join(dir, "stats"), filepath.Join(dir, "pid")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	testenv.DaemonDir(t, stats)
	good := fmt.Sprintf("statdir %s\nnotify %s/events\n", stats, dir)
	write(good)
	address, p := startProxyTo(t, "smtp://"+b.Addr, "--config", conf, "--pidfile", pidfile)
	for i, wrong := range []func(){func() { write("max-message-size many\n") }, func() { write(good); os.RemoveAll(stats) }} {
		wrong()
		p.Stop(syscall.SIGUSR2)
		testenv.Eventually(t, "no take-over", func() bool { return strings.Count(p.Output(), "no take-over") > i })
		if text, err := os.ReadFile(pidfile); err != nil || string(text) != fmt.Sprintf("%d\n", p.Pid()) {
			t.Errorf("pid file holds %q, %v", text, err)
		}
		testenv.Dial(t, "unix", filepath.Join(dir, "events")).Close()
		dialSMTP(t, address).say("NOOP\r\n", "250")
	}
	p.Stop(syscall.SIGTERM)
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d", status)
	}
}

// TestReloadTakesOver: with --take-over a reload has a new process take over if a setting has changed that needs it, or the
// program; what it cannot change is still named, and when it fails that is the outcome.
func TestReloadTakesOver(t *testing.T) {
	t.Parallel()
	dir := testenv.DaemonDir(t, filepath.Join(testenv.ShortDir(t), "d"))
	conf, program := filepath.Join(dir, "conf"), filepath.Join(dir, "smtp-proxy")
	install := func() {
		t.Helper()
		testenv.Run(t, "rm", "-f", program)
		if _, said, status := testenv.Run(t, "cp", testenv.Binary(t, "smtp-proxy"), program); status != 0 {
			t.Fatal(said)
		}
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(conf, []byte("upstream smtp://127.0.0.1:1\nnotify "+dir+"/events\nsmtp "+dir+"/smtp\n"+text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	install()
	write("")
	m := testenv.StartManager(t)
	cmd := exec.Command(program, "--config", conf)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+m.Path)
	p := testenv.Start(t, cmd)
	m.Wait("READY=1")
	pid := p.Pid()
	for _, step := range []struct {
		name, settings, want string
		before               func()
		status               int
		replaced             bool
	}{
		{"the same", "", "", nil, 0, false},
		{"what a reload changes", "max-sessions 7\n", "", nil, 0, false},
		{"what it does not", "hostname other.test\n", "has taken over, for: hostname\n", nil, 0, true},
		{"what nothing but a restart changes", "hostname other.test\npidfile " + dir + "/pid\n", "not in force before a restart: pidfile\n", nil, 0, false},
		{"both", "pidfile " + dir + "/pid\n", "not in force before a restart: pidfile\n", nil, 0, true},
		{"another program", "pidfile " + dir + "/pid\n", "has taken over, for: program\n", install, 0, true},
		{"a new process that cannot begin", "statdir " + dir + "/none\n", "no take-over: the new process has ended", nil, 1, false},
	} {
		write(step.settings)
		if step.before != nil {
			step.before()
		}
		_, said, status := testenv.Run(t, program, "--config", conf, "--reload", fmt.Sprint(pid), "--take-over")
		if status != step.status || !strings.Contains(said, step.want) || step.want == "" && said != "" {
			t.Errorf("%s: status %d, want %d and %q:\n%s", step.name, status, step.status, step.want, said)
		}
		if replaced := strings.Contains(said, "has taken over"); replaced != step.replaced {
			t.Errorf("%s: replaced %v, want %v:\n%s", step.name, replaced, step.replaced, said)
		}
		if step.replaced {
			var err error
			if pid, err = strconv.Atoi(strings.TrimPrefix(m.Wait(`MAINPID=\d+`), "MAINPID=")); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(said, fmt.Sprintf("process %d has taken over", pid)) {
				t.Errorf("%s: the manager knows %d, and we %s", step.name, pid, said)
			}
			m.Wait("READY=1")
		}
	}
	if status := p.Wait(); status != 0 {
		t.Errorf("status of the first process: %d", status)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the last process has ended", func() bool { return syscall.Kill(pid, 0) != nil })
}

// TestTakeOverTwice: a second SIGUSR2, at any time, has another process take over from the one that is just doing so, or
// has done so. SIGHUP gets to that one, too.
func TestTakeOverTwice(t *testing.T) {
	t.Parallel()
	const taken = "another process has taken over"
	for _, moment := range []string{"another process is to take over", taken} {
		t.Run(moment, func(t *testing.T) {
			t.Parallel()
			d := takeovers(t)["smtp"]
			d.T = t
			d.start()
			kept := greetedAt(t, d.address)
			d.p.Stop(syscall.SIGUSR2)
			d.p.WaitOutput(moment)
			if moment == taken {
				d.p.Stop(syscall.SIGHUP)
				d.p.WaitOutput("settings reloaded")
			}
			d.p.Stop(syscall.SIGUSR2)
			second, err := strconv.Atoi(strings.TrimPrefix(d.manager.Wait(`MAINPID=\d+`), "MAINPID="))
			if err != nil {
				t.Fatal(err)
			}
			d.manager.Wait(`MAINPID=\d+`)
			testenv.Eventually(t, "the second process has ended", func() bool { return syscall.Kill(second, 0) == syscall.ESRCH })
			greetedAt(t, d.address).quit()
			kept.quit()
			if d.p.Wait(); strings.Contains(d.p.Output(), "had taken over has ended") {
				t.Errorf("the first process takes the second, which was replaced, for one that has failed:\n%s", d.p.Output())
			}
		})
	}
}

// TestTakeOverIsEnded: what ends the first process in the middle of a take-over ends the other one, too; a process that
// dies after it has taken over ends the first one, as nobody else would know.
func TestTakeOverIsEnded(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	_, p := startProxyTo(t, "smtp://"+b.Addr)
	p.Stop(syscall.SIGUSR2)
	p.WaitOutput("another process is to take over")
	if err := syscall.Kill(p.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the other one has ended", func() bool { return syscall.Kill(-p.Pid(), 0) == syscall.ESRCH })

	pidfile := filepath.Join(testenv.DaemonDir(t, filepath.Join(testenv.ShortDir(t), "d")), "pid")
	address, p := startProxyTo(t, "smtp://"+b.Addr, "--pidfile", pidfile)
	dialSMTP(t, address)
	p.Stop(syscall.SIGUSR2)
	p.WaitOutput("another process has taken over")
	d := &takenOver{T: t, pidfile: pidfile}
	testenv.Eventually(t, "the new process has the pid file", func() bool { text, _ := os.ReadFile(pidfile); return len(text) > 0 && d.pid() != p.Pid() })
	if err := syscall.Kill(d.pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.WaitOutput("had taken over has ended")
	p.Wait()
}
