package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"postern/internal/evloop"
)

// forkServer is one process that has loaded a filter, or is loading it.
type forkServer struct {
	forks *forks
	born  chan birth // the process that is being made
	pid   int
	since time.Duration // when it had loaded the filter

	control, stderr evloop.Stream
	timer           evloop.Timer // for the load, and then for the oldest fork
	ready           bool         // it has said hello
	abandoned       bool
	buried          bool

	sent     map[int]pendingStart // forks asked for
	lastID   int
	children int // workers it keeps
	words    string
	gate     lineGate
}

// birth is a new fork server process: its id and our ends of its control socket
// and standard error.
type birth struct {
	pid, control, stderr int
	err                  error
}

// startForkServer starts the process. It may block.
func (pr *program) startForkServer() (b birth) {
	path, argv, perl := pr.forkServerCommand()
	var open []int
	defer func() {
		for _, fd := range open {
			_ = syscall.Close(fd)
		}
	}()
	null, err := syscall.Open(os.DevNull, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return birth{err: fmt.Errorf("open %s: %w", os.DevNull, err)}
	}
	open = append(open, null)
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return birth{err: fmt.Errorf("make a control socket: %w", err)}
	}
	open = append(open, pair[1])
	var errs [2]int
	if err := syscall.Pipe2(errs[:], syscall.O_CLOEXEC); err != nil {
		_ = syscall.Close(pair[0])
		return birth{err: fmt.Errorf("pipe failed: %w", err)}
	}
	open = append(open, errs[1])
	ours := []int{pair[0], errs[0]}
	fail := func(err error) birth {
		open = append(open, ours...)
		return birth{err: err}
	}
	for _, fd := range ours {
		if err := syscall.SetNonblock(fd, true); err != nil {
			return fail(fmt.Errorf("make a descriptor non-blocking: %w", err))
		}
	}
	files := []uintptr{uintptr(null), uintptr(errs[1]), uintptr(errs[1]), uintptr(null), uintptr(pair[1])}
	if perl {
		text, err := loaderPipe()
		if err != nil {
			return fail(err)
		}
		open = append(open, text)
		files = append(files, uintptr(text))
	}
	pid, err := syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Env: append(pr.Env[:len(pr.Env):len(pr.Env)], forkSocketVariable+"="+strconv.Itoa(controlFD)), Files: files,
		Sys: &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return fail(fmt.Errorf("run %s: %w", path, err))
	}
	return birth{pid: pid, control: ours[0], stderr: ours[1]}
}

// loaderPipe gives a pipe from which the loader can be read. It is far smaller
// than any pipe.
func loaderPipe() (int, error) {
	var p [2]int
	if err := syscall.Pipe2(p[:], syscall.O_CLOEXEC); err != nil {
		return -1, fmt.Errorf("pipe failed: %w", err)
	}
	defer syscall.Close(p[1])
	if n, err := syscall.Write(p[1], perlLoader); err != nil || n < len(perlLoader) {
		_ = syscall.Close(p[0])
		return -1, fmt.Errorf("write the loader: %d bytes, %w", n, err)
	}
	return p[0], nil
}

// started takes over the new process.
func (s *forkServer) started() {
	var b birth
	select {
	case b = <-s.born:
	default:
		return // Close has it
	}
	if b.err != nil {
		s.forks.lost(s, "was not started: "+b.err.Error())
		return
	}
	s.adopt(b)
	if s.abandoned {
		s.bury(0)
		return
	}
	if err := errors.Join(s.control.Watch(true), s.stderr.Watch(true)); err != nil {
		s.fail(err.Error())
	}
}

// adopt notes what the server's process is.
func (s *forkServer) adopt(b birth) {
	s.pid = b.pid
	s.control.Open(s.forks.loop, b.control, (*serverControl)(s))
	s.stderr.Open(s.forks.loop, b.stderr, (*serverError)(s))
}

// fork asks for a worker.
func (s *forkServer) fork(st pendingStart) {
	s.lastID++
	if len(s.sent) == 0 {
		s.forks.loop.Start(&s.timer, forkLimit)
	}
	s.sent[s.lastID] = st
	s.say("fork", s.lastID)
}

// say writes a line. What goes wrong with the socket is seen when it is read.
func (s *forkServer) say(word string, number int) {
	if s.control.IsOpen() {
		_ = s.control.Write(fmt.Appendf(nil, "%s %d\n", word, number))
	}
}

// line takes one line of the server.
func (s *forkServer) line(line string) {
	words := strings.Fields(line)
	switch {
	case len(words) == 2 && words[0] == "hello" && words[1] == "1" && !s.ready:
		s.ready = true
		s.forks.loop.Timers.Stop(&s.timer)
		s.forks.loaded(s)
	case len(words) >= 2 && words[0] == "child" && s.ready:
		var n [7]int
		want := 6
		if s.forks.program.StatusPipe {
			want = 7
		}
		ok := len(words) == want
		for i := 1; ok && i < want; i++ {
			var err error
			n[i], err = strconv.Atoi(words[i])
			ok = err == nil && n[i] >= 0
		}
		st, known := s.answered(n[1])
		if !ok || !known {
			s.fail(fmt.Sprintf("said %.100q", line))
			return
		}
		s.child(st, n[1], n[2], n[3:want])
	case len(words) >= 2 && words[0] == "failed" && s.ready:
		id, _ := strconv.Atoi(words[1])
		if st, known := s.answered(id); known {
			st.done(nil, fmt.Errorf("fork failed: %.200q", strings.Join(words[2:], " ")))
			return
		}
		s.fail(fmt.Sprintf("said %.100q", line))
	default:
		s.fail(fmt.Sprintf("said %.100q", line))
	}
}

// answered takes note of the answer to a fork.
func (s *forkServer) answered(id int) (pendingStart, bool) {
	st, known := s.sent[id]
	delete(s.sent, id)
	if len(s.sent) == 0 {
		s.forks.loop.Timers.Stop(&s.timer)
	} else if known {
		s.forks.loop.Start(&s.timer, forkLimit)
	}
	return st, known
}

// child takes over a worker that the server has forked. Until it is told to reap
// the worker, its process id is nobody else's.
func (s *forkServer) child(st pendingStart, id, pid int, fds []int) {
	s.children++
	c, err := s.take(pid, fds)
	s.say("taken", id)
	if err != nil {
		st.done(nil, err)
		return
	}
	if f := s.forks; f.next != nil || f.current != s || f.stopped {
		// There was a reread in between: the worker has the old rules.
		c.discard()
		f.Start(st.w, st.done)
		return
	}
	if err := c.adopt(s.forks.loop, st.w); err != nil {
		st.done(nil, err)
		return
	}
	st.done(c, nil)
}

// take opens what there is of a worker.
func (s *forkServer) take(pid int, fds []int) (*osChild, error) {
	info, err := readStat(pid)
	if err != nil || info.parent != s.pid {
		s.children--
		return nil, fmt.Errorf("process %d is no child of the fork server %d", pid, s.pid)
	}
	c := &osChild{pid: pid, group: true, keeper: s, pipes: &pipes{theirs: [4]int{-1, -1, -1, -1}}}
	if c.pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		s.reap(pid)
		return nil, fmt.Errorf("watch process %d: %w", pid, err)
	}
	for i, fd := range fds {
		mode := syscall.O_RDONLY
		if i == 0 {
			mode = syscall.O_WRONLY
		}
		// To open a pipe by this name gives a descriptor of our own, with flags of our own.
		name := fmt.Sprintf("/proc/%d/fd/%d", s.pid, fd)
		if c.pipes.ours[i], err = syscall.Open(name, mode|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0); err != nil {
			c.discard()
			return nil, fmt.Errorf("open %s: %w", name, err)
		}
		c.pipes.n++
	}
	if err := s.forks.program.limit(pid); err != nil {
		c.Kill() // it ends at once, and is seen to
	}
	return c, nil
}

// discard kills a worker that is not on the loop.
func (c *osChild) discard() {
	c.Kill()
	c.pipes.close()
	_ = syscall.Close(c.pidfd)
	c.keeper.reap(c.pid)
}

// reap tells the server that a worker's process id is not needed any more.
func (s *forkServer) reap(pid int) {
	s.say("reap", pid)
	s.children--
	s.checkDone()
}

// wait says how a worker of the server ended, and lets it go. That is read of the
// zombie itself: asking the server would mean to wait for it.
func (s *forkServer) wait(pid int) exit {
	info, err := readStat(pid)
	mine := err == nil && info.state == 'Z' && info.parent == s.pid
	s.reap(pid)
	if !mine {
		return exit{Lost: true} // the server has gone, and init has taken it
	}
	return info.exit()
}

// keeps says whether the process id of a dead worker is still the worker's.
func (s *forkServer) keeps(pid int) bool {
	info, err := readStat(pid)
	return err == nil && info.state == 'Z' && info.parent == s.pid
}

// checkDone ends a server of an old generation after its last worker.
func (s *forkServer) checkDone() {
	f := s.forks
	if s != f.current && s != f.next && s != f.before && s.children == 0 && len(s.sent) == 0 {
		s.bury(buryWait)
	}
}

// tooSlow: the time for a load or a fork is over.
func (s *forkServer) tooSlow() {
	if s.ready {
		s.fail("did not answer")
	} else {
		s.fail(fmt.Sprintf("was not ready after %v", loadLimit))
	}
}

// fail gives up a server. Its workers are not harmed.
func (s *forkServer) fail(how string) {
	if s.buried {
		return
	}
	s.bury(0)
	s.forks.lost(s, how)
}

// abandon ends a server that nobody waits for any more.
func (s *forkServer) abandon() {
	s.abandoned = true
	if s.pid != 0 {
		s.bury(buryWait)
		return
	}
	if s.forks.stopped {
		// The loop may not turn any more.
		b := <-s.born
		if b.err != nil {
			delete(s.forks.servers, s)
			return
		}
		s.adopt(b)
		s.bury(0)
	}
}

// buryWait is how long a server may take to see that its socket is closed.
const buryWait = 2 * time.Second

// bury closes the control socket, which is the server's sign to end, makes sure of
// it after a while, and waits for the process.
func (s *forkServer) bury(wait time.Duration) {
	if s.buried || s.pid == 0 {
		return
	}
	s.buried = true
	f := s.forks
	f.loop.Timers.Stop(&s.timer)
	s.control.Close()
	if !s.ready {
		wait = 0 // it is loading, and does not look
	}
	pid := s.pid
	f.burials.Go(func() {
		how := waitOrKill(pid, wait)
		f.loop.Post(func() { s.gone(how) })
	})
}

// waitOrKill waits for a process that leads a group, kills the group when the time
// is over, and says in words how the process ended.
func waitOrKill(pid int, wait time.Duration) (how string) {
	// Our child, not waited for yet: the number is its own.
	if pidfd, err := unix.PidfdOpen(pid, 0); err == nil {
		poll := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		for end := time.Now().Add(wait); ; {
			_, err := unix.Poll(poll, int(max(time.Until(end), 0)/time.Millisecond))
			if err != unix.EINTR {
				break
			}
		}
		_ = syscall.Close(pidfd)
	}
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	var ws syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &ws, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return "has ended"
		case ws.Signaled():
			return fmt.Sprintf("was ended by signal %d", int(ws.Signal()))
		default:
			return fmt.Sprintf("exited with status %d", ws.ExitStatus())
		}
	}
}

// gone: the process is no more.
func (s *forkServer) gone(how string) {
	for range maxDrain {
		if !s.stderr.IsOpen() || !s.stderr.ReadMore() {
			break
		}
	}
	s.takeWords(s.stderr.Rest())
	s.stderr.Close()
	if s.forks.servers[s] {
		s.forks.lost(s, how)
	}
}

// serverControl and serverError are the handlers of a server's streams.
type (
	serverControl forkServer
	serverError   forkServer
)

// maxControlLine bounds what a server may write without LF.
const maxControlLine = 4096

func (c *serverControl) Input(_ *evloop.Stream, b []byte) (taken int) {
	s := (*forkServer)(c)
	for s.control.IsOpen() {
		i := bytes.IndexByte(b[taken:], '\n')
		if i < 0 {
			break
		}
		line := string(b[taken : taken+i])
		taken += i + 1
		s.line(line)
	}
	if len(b)-taken > maxControlLine {
		s.fail("wrote a line without end")
		return len(b)
	}
	return taken
}

// Ended: the server has ended, or wants no more to do with us.
func (c *serverControl) Ended(*evloop.Stream, error) {
	s := (*forkServer)(c)
	s.ending()
}

func (c *serverControl) Flushed(_ *evloop.Stream, err error) {
	if err != nil {
		(*forkServer)(c).ending()
	}
}

// ending waits for the end of a server whose socket is closed. Nothing is started
// before: how it ended belongs into the log, and it ends at once.
func (s *forkServer) ending() {
	wasReady := s.ready
	s.ready = true // so that it may take the time to end by itself
	s.bury(buryWait)
	s.ready = wasReady
}

func (e *serverError) Input(_ *evloop.Stream, b []byte) (taken int) {
	s := (*forkServer)(e)
	for taken < len(b) {
		i := bytes.IndexByte(b[taken:], '\n')
		if i < 0 && len(b)-taken < maxStderrLine {
			break
		}
		size := min(len(b)-taken, maxStderrLine)
		if i >= 0 && i < size {
			size = i + 1
		}
		s.takeWords(b[taken : taken+size])
		taken += size
	}
	return taken
}

func (e *serverError) Ended(*evloop.Stream, error)   {}
func (e *serverError) Flushed(*evloop.Stream, error) {}

// takeWords notes a line of standard error.
func (s *forkServer) takeWords(line []byte) {
	line = bytes.TrimSpace(line)
	if len(line) == 0 {
		return
	}
	s.words = printable(string(line[:min(len(line), 300)]))
	if ok, _ := s.gate.pass(s.forks.loop.Now()); ok {
		s.forks.event(levelInfo, fmt.Sprintf("Fork server (pid %d) stderr: %s", s.pid, line))
	}
}

// lastWords is what the server wrote last, for a log line.
func (s *forkServer) lastWords() string {
	if s.words == "" {
		return ""
	}
	return ": " + s.words
}

// stat is what is read of /proc/PID/stat.
type stat struct {
	state        byte
	parent       int
	minflt       int64
	majflt       int64
	utime, stime time.Duration
	status       syscall.WaitStatus
}

// readStat reads the state of a process, which may be a zombie: proc(5).
func readStat(pid int) (stat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, fmt.Errorf("look at process %d: %w", pid, err)
	}
	// The second field is a name in parentheses that may hold anything.
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 50 {
		return stat{}, fmt.Errorf("look at process %d: %d fields", pid, len(f))
	}
	number := func(field int) int64 { // counted from 1, as in the manual page
		n, _ := strconv.ParseInt(string(f[field-3]), 10, 64)
		return n
	}
	ticks := func(field int) time.Duration { return time.Duration(number(field)) * (time.Second / clockTicks) }
	return stat{state: f[0][0], parent: int(number(4)), minflt: number(10), majflt: number(12),
		utime: ticks(14), stime: ticks(15), status: syscall.WaitStatus(number(52))}, nil
}

func (st stat) exit() exit {
	ru := &syscall.Rusage{Utime: syscall.NsecToTimeval(int64(st.utime)), Stime: syscall.NsecToTimeval(int64(st.stime)), Minflt: st.minflt, Majflt: st.majflt}
	if st.status.Signaled() {
		return exit{Signal: st.status.Signal(), Rusage: ru}
	}
	return exit{Status: st.status.ExitStatus(), Rusage: ru}
}
