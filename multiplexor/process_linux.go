package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"postern/internal/evloop"
)

// program is what workers run.
type program struct {
	Path         string // absolute
	Filter       string // "" or the argument of -f
	StatusPipe   bool   // descriptor 3 and -serveru
	Group        bool   // umask 027 is the process's, this is for the fork server
	AddressSpace int64  // bytes, 0 = as it is
	Resident     int64  // bytes, 0 = as it is
	Env          []string
}

// args are the worker's arguments after its own name. mode is "-server" or
// "-embserver"; with a status pipe a u is added.
func (pr *program) args(mode string) []string {
	var a []string
	if pr.Filter != "" {
		a = append(a, "-f", pr.Filter)
	}
	if pr.StatusPipe {
		mode += "u"
	}
	return append(a, mode)
}

// workerEnv gives an environment without what is meant for us alone, or could make
// a worker load foreign code. Under the original's name workers get the latter as they
// always did: there are filters whose modules come that way. What was withheld though
// it was not for us is named.
func workerEnv(env []string, original bool) (out, withheld []string) {
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		switch {
		case strings.HasPrefix(name, "LISTEN_"), strings.HasPrefix(name, "WATCHDOG_"), strings.HasPrefix(name, "MULTIPLEXOR_"),
			name == "NOTIFY_SOCKET", name == forkSocketVariable, name == "GODEBUG":
		case !original && loadsCode(name):
			withheld = append(withheld, name)
		default:
			out = append(out, e)
		}
	}
	return out, withheld
}

// loadsCode reports whether a variable can make a program load code that is not its own.
func loadsCode(name string) bool {
	switch name {
	case "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONHASHSEED":
		return false // they say how Python works, not what it loads
	}
	for _, prefix := range []string{"LD_", "PERL5", "PYTHON", "RUBY"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	switch name {
	case "PERLLIB", "BASH_ENV", "ENV", "IFS", "NODE_OPTIONS", "NODE_PATH", "LUA_PATH", "LUA_CPATH", "LUA_INIT":
		return true
	}
	return false
}

// starter starts processes on a goroutine of its own: fork and exec take their
// time and may block.
type starter struct {
	loop    *evloop.Loop
	program *program
	todo    chan func()
	done    chan struct{}
}

// newStarter makes a starter for at most max starts at a time.
func newStarter(l *evloop.Loop, pr *program, max int) *starter {
	s := &starter{loop: l, program: pr, todo: make(chan func(), max), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		startBatch()
		for f := range s.todo {
			f()
		}
	}()
	return s
}

// Close waits for the starts under way.
func (s *starter) Close() {
	close(s.todo)
	<-s.done
}

// Start implements processes.Start. The room in todo is one place for each
// worker, so this does not block.
func (s *starter) Start(w *worker, done func(child, error)) {
	s.todo <- func() {
		c, err := s.fork()
		s.loop.Post(func() {
			if err == nil {
				err = c.adopt(s.loop, w)
			}
			if err != nil {
				done(nil, err)
				return
			}
			done(c, nil)
		})
	}
}

// pipes are the ends of a new worker's pipes: ours, which are non-blocking, and
// the worker's.
type pipes struct {
	ours, theirs [4]int
	n            int
}

// makePipes makes standard input, output, error and, if asked for, the status pipe.
func makePipes(status bool) (*pipes, error) {
	p := &pipes{}
	want := 3
	if status {
		want = 4
	}
	for ; p.n < want; p.n++ {
		var fd [2]int
		if err := syscall.Pipe2(fd[:], syscall.O_CLOEXEC); err != nil {
			p.close()
			return nil, fmt.Errorf("pipe failed: %w", err)
		}
		if p.n == 0 {
			p.theirs[0], p.ours[0] = fd[0], fd[1]
		} else {
			p.ours[p.n], p.theirs[p.n] = fd[0], fd[1]
		}
		if err := syscall.SetNonblock(p.ours[p.n], true); err != nil {
			p.n++
			p.close()
			return nil, fmt.Errorf("pipe failed: %w", err)
		}
	}
	return p, nil
}

func (p *pipes) close() {
	p.closeTheirs()
	for _, fd := range p.ours[:p.n] {
		_ = syscall.Close(fd)
	}
}

func (p *pipes) closeTheirs() {
	for _, fd := range p.theirs[:p.n] {
		_ = syscall.Close(fd)
	}
}

// fork starts a worker process.
func (s *starter) fork() (*osChild, error) {
	pr := s.program
	p, err := makePipes(pr.StatusPipe)
	if err != nil {
		return nil, err
	}
	files := make([]uintptr, p.n)
	for i := range files {
		files[i] = uintptr(p.theirs[i])
	}
	pidfd := -1
	argv := append([]string{filepath.Base(pr.Path)}, pr.args("-server")...)
	pid, err := syscall.ForkExec(pr.Path, argv, &syscall.ProcAttr{
		Env: pr.Env, Files: files,
		// A group of its own, so that what a filter starts can be ended with it.
		Sys: &syscall.SysProcAttr{Setpgid: true, PidFD: &pidfd},
	})
	if err != nil {
		p.close()
		return nil, fmt.Errorf("run %s: %w", pr.Path, err)
	}
	p.closeTheirs()
	c := &osChild{pid: pid, pidfd: pidfd, parent: true, group: true, pipes: p}
	if pidfd < 0 {
		if c.pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			_, _ = syscall.Wait4(pid, nil, 0, nil)
			p.close()
			return nil, fmt.Errorf("watch process %d: %w", pid, err)
		}
	}
	if err := pr.limit(pid); err != nil {
		c.Kill()
		return c, nil // it ends at once, and is seen to
	}
	return c, nil
}

// limit sets the limits of a process that has just been started. Between exec and
// this it may have run for some microseconds; limits count from then on.
func (pr *program) limit(pid int) error {
	set := func(what int, bytes int64) error {
		if bytes <= 0 {
			return nil
		}
		r := unix.Rlimit{Cur: uint64(bytes), Max: uint64(bytes)}
		return unix.Prlimit(pid, what, &r, nil)
	}
	for _, l := range []struct {
		what  int
		bytes int64
	}{{unix.RLIMIT_AS, pr.AddressSpace}, {unix.RLIMIT_DATA, pr.AddressSpace}, {unix.RLIMIT_RSS, pr.Resident}} {
		if err := set(l.what, l.bytes); err != nil {
			return fmt.Errorf("limit process %d: %w", pid, err)
		}
	}
	return nil
}

// osChild is a real process with its pipes on the loop.
type osChild struct {
	loop   *evloop.Loop
	worker *worker
	pid    int
	pidfd  int
	parent bool        // it is our child, not the fork server's
	keeper *forkServer // whose child it is otherwise
	group  bool        // it leads a process group
	told   bool        // it was sent a signal that ends it
	pipes  *pipes

	in, out, err, status evloop.Stream
}

// adopt puts the process on the loop, as w's.
func (c *osChild) adopt(l *evloop.Loop, w *worker) error {
	c.loop, c.worker = l, w
	p := c.pipes
	c.pipes = nil
	c.in.Open(l, p.ours[0], (*childInput)(c))
	c.out.Open(l, p.ours[1], (*childOutput)(c))
	c.err.Open(l, p.ours[2], (*childError)(c))
	errs := []error{c.out.Watch(true), c.err.Watch(true)}
	if p.n > 3 {
		c.status.Open(l, p.ours[3], (*childStatus)(c))
		errs = append(errs, c.status.Watch(true))
	}
	errs = append(errs, l.Add(c.pidfd, evloop.Readable, (*childEnd)(c)))
	for _, err := range errs {
		if err != nil {
			c.Kill()
			if c.parent {
				go func() { _, _ = syscall.Wait4(c.pid, nil, 0, nil) }() // it has been killed: it ends at once
			}
			if c.keeper != nil {
				c.keeper.reap(c.pid)
			}
			c.Release()
			return err
		}
	}
	return nil
}

func (c *osChild) Pid() int { return c.pid }

func (c *osChild) Send(line []byte) error { return c.in.Write(line) }
func (c *osChild) Waiting() bool          { return c.in.Pending() > 0 }
func (c *osChild) CloseInput()            { c.in.Close() }

// Unread asks how much is in the pipe. ioctl_pipe(2)
func (c *osChild) Unread() bool {
	if c.Waiting() {
		return true
	}
	var n int32
	_, _, errno := syscall.RawSyscall(syscall.SYS_IOCTL, uintptr(c.in.FD()), unix.TIOCINQ, uintptr(unsafe.Pointer(&n)))
	return errno == 0 && n > 0
}

func (c *osChild) ReadNow() {
	if c.out.IsOpen() {
		c.out.ReadNow()
	}
}

func (c *osChild) ReadWords() {
	if c.err.IsOpen() {
		c.err.ReadNow()
	}
}

// Look reads what is there: asking costs a system call, and an answer given to
// the wrong request would cost far more.
func (c *osChild) Look() outputState {
	if !c.out.IsOpen() {
		return outputClosed
	}
	switch c.out.Look() {
	case evloop.LookEnd:
		return outputClosed
	case evloop.LookData:
		return outputNoisy
	}
	return outputQuiet
}

func (c *osChild) Signal(sig syscall.Signal) {
	if sig == syscall.SIGTERM {
		c.told = true
	}
	// The process may have gone: then there is nobody to tell.
	_ = unix.PidfdSendSignal(c.pidfd, sig, nil, 0)
}

func (c *osChild) Kill() {
	c.told = true
	if c.group {
		_ = syscall.Kill(-c.pid, syscall.SIGKILL)
	}
	_ = unix.PidfdSendSignal(c.pidfd, syscall.SIGKILL, nil, 0)
}

func (c *osChild) Release() {
	c.in.Close()
	c.out.Close()
	c.err.Close()
	c.status.Close()
	if c.pidfd >= 0 {
		c.loop.CloseFD(c.pidfd)
		c.pidfd = -1
	}
}

// Usage reads /proc, which does not block.
func (c *osChild) Usage() (usage, bool) {
	var u usage
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", c.pid))
	if err != nil {
		return u, false
	}
	if f := bytes.Fields(statm); len(f) > 1 {
		pages, _ := strconv.ParseInt(string(f[1]), 10, 64)
		u.Resident = pages * int64(os.Getpagesize())
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.pid))
	if err != nil {
		return u, false
	}
	// The second field is a name in parentheses that may hold anything.
	f := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(f) > 12 {
		user, _ := strconv.ParseInt(string(f[11]), 10, 64)
		sys, _ := strconv.ParseInt(string(f[12]), 10, 64)
		u.CPU = time.Duration(user+sys) * (time.Second / clockTicks)
	}
	return u, true
}

// clockTicks is USER_HZ, which is 100 on every Linux that Go runs on.
const clockTicks = 100

// The four streams and the end of a process each have a handler; all are the
// child under another name.
type (
	childInput  osChild
	childOutput osChild
	childError  osChild
	childStatus osChild
	childEnd    osChild
)

func (c *childInput) Input(_ *evloop.Stream, b []byte) int  { return len(b) }
func (c *childInput) Ended(*evloop.Stream, error)           {}
func (c *childInput) Flushed(_ *evloop.Stream, err error)   { c.worker.inputFlushed(err) }
func (c *childOutput) Input(_ *evloop.Stream, b []byte) int { return c.worker.gotOutput(b) }
func (c *childOutput) Ended(*evloop.Stream, error)          { c.worker.outputEnded() }
func (c *childOutput) Flushed(*evloop.Stream, error)        {}
func (c *childError) Input(_ *evloop.Stream, b []byte) int  { return c.worker.gotStderr(b, false) }
func (c *childError) Flushed(*evloop.Stream, error)         {}
func (c *childStatus) Input(_ *evloop.Stream, b []byte) int { return c.worker.gotStatus(b) }
func (c *childStatus) Ended(*evloop.Stream, error)          {}
func (c *childStatus) Flushed(*evloop.Stream, error)        {}
func (c *childError) Ended(s *evloop.Stream, _ error)       { c.worker.gotStderr(s.Rest(), true) }

// maxDrain bounds what is read of a dead worker's pipes, in reads: a child of it
// may go on writing.
const maxDrain = 16

// Ready: the process has ended. What it wrote before comes first.
func (e *childEnd) Ready(evloop.Events) {
	c := (*osChild)(e)
	c.loop.Remove(c.pidfd)
	for _, s := range []*evloop.Stream{&c.status, &c.err, &c.out} {
		for range maxDrain {
			if !s.IsOpen() || !s.ReadMore() {
				break
			}
		}
	}
	if rest := c.err.Rest(); len(rest) > 0 {
		c.worker.gotStderr(rest, true)
	}
	if c.told && c.group && (c.parent || c.keeper.keeps(c.pid)) {
		// Before the wait, as long as the number of the group is ours.
		_ = syscall.Kill(-c.pid, syscall.SIGKILL)
	}
	c.worker.exited(c.wait())
}

func (c *osChild) wait() exit {
	if !c.parent {
		return c.keeper.wait(c.pid)
	}
	var ws syscall.WaitStatus
	var ru syscall.Rusage
	pid, err := syscall.Wait4(c.pid, &ws, syscall.WNOHANG, &ru)
	switch {
	case err != nil || pid == 0:
		return exit{Lost: true}
	case ws.Signaled():
		return exit{Signal: ws.Signal(), Rusage: &ru}
	}
	return exit{Status: ws.ExitStatus(), Rusage: &ru}
}
