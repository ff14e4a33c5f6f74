package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	startWithin = 10 * time.Second // for each program to answer
	stopWithin  = 5 * time.Second  // for each program to end after SIGTERM

	// eventsWithin bounds the wait for the events of what has just happened, and
	// eventsPause is how long none may come for it to be over.
	eventsWithin = 2 * time.Second
	eventsPause  = 150 * time.Millisecond

	// account is who the daemons become when the demo runs as root.
	account = "nobody"
)

// suite is the set-up that runs: everything in one temporary directory.
type suite struct {
	bin     string // the programs as built
	dir     string // top of all that follows
	sockets string // requests, status and notification sockets
	spool   string // working directories of messages
	maildir string // where smtp-proxy delivers to
	port    int    // of smtp-proxy, on 127.0.0.1
	out     *output
	events  *lines     // what notify-cat prints
	running []*program // in the order of their start
}

// program is a child process whose standard error goes to a log file.
type program struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

// start makes the directories and starts the programs one after the other, each
// when the one before answers.
func start(ctx context.Context, bin string, out *output) (*suite, error) {
	s := &suite{bin: bin, out: out, events: &lines{out: out, prefix: "    event  "}}
	err := s.prepare()
	for _, step := range []func(context.Context) error{s.startMultiplexor, s.startProxy, s.startEvents} {
		if err == nil {
			err = step(ctx)
		}
	}
	if err != nil {
		s.showLogs()
		s.stop()
		return nil, err
	}
	return s, nil
}

// prepare makes the directories, and keeps the settings files of this machine
// out of the show. When run as root, those that the daemons write
// to belong to the account that they become, and the programs are copied to
// where that account may execute them.
func (s *suite) prepare() (err error) {
	syscall.Umask(0o022) // the daemons' account reads what root makes here
	if s.bin, err = filepath.Abs(s.bin); err != nil {
		return err
	}
	for _, program := range []string{"SMTP_PROXY", "MULTIPLEXOR", "FILTER_BASIC"} {
		if err := os.Setenv(program+"_CONFIG", os.DevNull); err != nil {
			return err
		}
	}
	base := os.TempDir()
	if len(base) > 40 { // the path of a socket has 107 bytes at most
		base = "/tmp"
	}
	if s.dir, err = os.MkdirTemp(base, "postern-demo-"); err != nil {
		return err
	}
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return err
	}
	s.sockets = filepath.Join(s.dir, "run")
	s.spool = filepath.Join(s.dir, "spool")
	s.maildir = filepath.Join(s.dir, "Maildir")
	for _, dir := range []string{s.sockets, s.spool, s.maildir} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		if err := giveAway(dir); err != nil {
			return err
		}
	}
	if asRoot() {
		worker, err := os.ReadFile(filepath.Join(s.bin, "filter-basic"))
		if err != nil {
			return err
		}
		if err := os.WriteFile(s.worker(), worker, 0o755); err != nil {
			return err
		}
	}
	s.out.printf("DIR is %s", s.dir)
	s.port, err = freePort()
	return err
}

func asRoot() bool { return os.Geteuid() == 0 }

// giveAway makes a directory belong to the daemons' account, as root.
func giveAway(dir string) error {
	if !asRoot() {
		return nil
	}
	u, err := user.Lookup(account)
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return err
	}
	return os.Chown(dir, uid, gid)
}

// worker is the path of the filter that the multiplexor starts.
func (s *suite) worker() string {
	if asRoot() {
		return filepath.Join(s.dir, "filter-basic")
	}
	return filepath.Join(s.bin, "filter-basic")
}

func (s *suite) socket(name string) string { return filepath.Join(s.sockets, name) }

// freePort finds a TCP port that nothing listens on.
func freePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func (s *suite) startMultiplexor(ctx context.Context) error {
	args := []string{"-D", "-m", "2", "-x", "4",
		"-s", s.socket("multiplexor.sock"), "-O", s.socket("multiplexor-notify.sock"),
		"-z", s.spool, "-f", s.worker()}
	if asRoot() {
		args = append(args, "-U", account)
	}
	p, err := s.launch("multiplexor", args...)
	if err != nil {
		return err
	}
	return p.answers(ctx, func() bool {
		free, err := exec.CommandContext(ctx, s.program("mx-ctrl"), "-s", s.socket("multiplexor.sock"), "free").Output()
		n, convErr := strconv.Atoi(strings.TrimSpace(string(free)))
		return err == nil && convErr == nil && n > 0
	})
}

func (s *suite) startProxy(ctx context.Context) error {
	args := []string{"--smtp", fmt.Sprintf("tcp:127.0.0.1:%d", s.port), "--notify", s.socket("smtp-proxy-notify.sock"),
		"--multiplexor", s.socket("multiplexor.sock"), "--multiplexor-notify", s.socket("multiplexor-notify.sock"),
		"--spool", s.spool, "--upstream", "maildir:" + s.maildir, "--hostname", "gateway.example.net",
		"--maxloadavg", "0"} // however busy this machine is
	if asRoot() {
		args = append(args, "--user", account)
	}
	p, err := s.launch("smtp-proxy", args...)
	if err != nil {
		return err
	}
	return p.answers(ctx, func() bool {
		c, err := dial(s.address(), nil)
		if err != nil {
			return false
		}
		defer c.close()
		code, _, err := c.reply()
		return err == nil && code == 220
	})
}

func (s *suite) startEvents(ctx context.Context) error {
	p, err := s.prepareProgram("notify-cat", s.socket("multiplexor-notify.sock"), s.socket("smtp-proxy-notify.sock"))
	if err != nil {
		return err
	}
	p.cmd.Stdout = s.events
	if err := s.begin(p); err != nil {
		return err
	}
	s.awaitEvents(0) // what it is told first is the present state
	return nil
}

// awaitEvents waits until the events of what has just happened are shown: until
// there are more than before and then none for a moment.
func (s *suite) awaitEvents(before int) {
	last, since := before, time.Now()
	for deadline := time.Now().Add(eventsWithin); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if n := s.events.printed(); n != last {
			last, since = n, time.Now()
		}
		if last > before && time.Since(since) > eventsPause {
			return
		}
	}
}

func (s *suite) address() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

func (s *suite) program(name string) string { return filepath.Join(s.bin, name) }

func (s *suite) launch(name string, args ...string) (*program, error) {
	p, err := s.prepareProgram(name, args...)
	if err != nil {
		return nil, err
	}
	return p, s.begin(p)
}

func (s *suite) prepareProgram(name string, args ...string) (*program, error) {
	p := &program{name: name, cmd: exec.Command(s.program(name), args...), log: filepath.Join(s.dir, name+".log"), done: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	// A group of its own, because Ctrl-C at the terminal is for us, and SIGINT
	// means something else to the multiplexor.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return p, nil
}

func (s *suite) begin(p *program) error {
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	s.running = append(s.running, p)
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	line := strings.Join(append([]string{p.name}, p.cmd.Args[1:]...), " ")
	s.out.printf("started %s", strings.ReplaceAll(line, s.dir, "DIR"))
	return nil
}

// answers waits until a program does what it is for.
func (p *program) answers(ctx context.Context, try func() bool) error {
	deadline := time.Now().Add(startWithin)
	for !try() {
		select {
		case <-ctx.Done():
			return errors.New("interrupted")
		case <-p.done:
			return fmt.Errorf("%s has ended: %v", p.name, p.cmd.ProcessState)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not answer after %v", p.name, startWithin)
		}
	}
	return nil
}

// stop ends the programs, the last one first, and removes the directory.
func (s *suite) stop() {
	for i := len(s.running) - 1; i >= 0; i-- {
		p := s.running[i]
		p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(stopWithin):
			p.cmd.Process.Kill()
			<-p.done
			s.out.printf("%s had to be killed", p.name)
		}
	}
	if s.dir != "" {
		if err := os.RemoveAll(s.dir); err != nil {
			s.out.printf("demo: %v", err)
		}
	}
}

// showLogs prints what the programs logged, when something went wrong.
func (s *suite) showLogs() {
	for _, p := range s.running {
		text, _ := os.ReadFile(p.log)
		s.out.heading("log of " + p.name)
		s.out.printf("%s", strings.TrimRight(string(text), "\n"))
	}
}

// explain tells how to use what runs.
func (s *suite) explain() {
	s.out.printf(`
The suite runs until you press Ctrl-C. Mail sent to 127.0.0.1 port %[1]d is filtered
and delivered to %[2]s

From another terminal:

    swaks --server %[3]s --from ann@example.org --to bob@example.net
    swaks --server %[3]s --from ann@example.org --to bob@example.net --attach-name invoice.pdf.exe --attach x
    %[4]s %[5]s %[6]s
    %[7]s -s %[8]s status
    ls %[2]s/new

Events:`, s.port, s.maildir, s.address(), s.program("notify-cat"), s.socket("multiplexor-notify.sock"),
		s.socket("smtp-proxy-notify.sock"), s.program("mx-ctrl"), s.socket("multiplexor.sock"))
}
