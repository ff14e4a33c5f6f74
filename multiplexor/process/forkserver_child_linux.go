package process

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"postern/internal/procstat"
	"postern/multiplexor/pool"
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
		f.Start(st.owner, st.probe, st.done)
		return
	}
	if err := c.adopt(s.forks.loop, st.owner); err != nil {
		st.done(nil, err)
		return
	}
	st.done(c, nil)
}

// take opens what there is of a worker.
func (s *forkServer) take(pid int, fds []int) (*child, error) {
	info, err := procstat.Read(pid)
	if err != nil || info.Parent != s.pid {
		s.children--
		return nil, fmt.Errorf("process %d is no child of the fork server %d", pid, s.pid)
	}
	c := &child{pid: pid, keeper: s, pipes: &pipes{theirs: [4]int{-1, -1, -1, -1}}}
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
func (c *child) discard() {
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
func (s *forkServer) wait(pid int) pool.Exit {
	info, err := procstat.Read(pid)
	mine := err == nil && info.State == 'Z' && info.Parent == s.pid
	s.reap(pid)
	if !mine {
		return pool.Exit{Lost: true} // the server has gone, and init has taken it
	}
	return exitOfZombie(info)
}

// keeps reports whether the process id of a dead worker is still the worker's.
func (s *forkServer) keeps(pid int) bool {
	info, err := procstat.Read(pid)
	return err == nil && info.State == 'Z' && info.Parent == s.pid
}
