package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

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
	ru := &syscall.Rusage{Utime: syscall.NsecToTimeval(int64(st.utime)), Stime: syscall.NsecToTimeval(int64(st.stime))}
	setCount(&ru.Minflt, st.minflt)
	setCount(&ru.Majflt, st.majflt)
	if st.status.Signaled() {
		return exit{Signal: st.status.Signal(), Rusage: ru}
	}
	return exit{Status: st.status.ExitStatus(), Rusage: ru}
}

// setCount sets a figure that has as many bits as the machine's words.
func setCount[T int32 | int64](to *T, n int64) { *to = T(n) }
