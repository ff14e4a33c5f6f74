package process

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"postern/internal/evloop"
	"postern/internal/procstat"
	"postern/multiplexor/pool"
)

// child is a real process with its pipes on the loop.
type child struct {
	loop   *evloop.Loop
	owner  pool.Owner
	pid    int
	pidfd  int
	parent bool        // it is our child, not the fork server's
	keeper *forkServer // whose child it is otherwise
	told   bool        // it was sent a signal that ends it
	pipes  *pipes

	in, out, err, status evloop.Stream
}

// adopt puts the process on the loop, as the owner's.
func (c *child) adopt(l *evloop.Loop, o pool.Owner) error {
	c.loop, c.owner = l, o
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

func (c *child) Pid() int { return c.pid }

func (c *child) Send(line []byte) error { return c.in.Write(line) }
func (c *child) Waiting() bool          { return c.in.Pending() > 0 }
func (c *child) CloseInput()            { c.in.Close() }

// Unread asks how much is in the pipe. ioctl_pipe(2)
func (c *child) Unread() bool {
	if c.Waiting() {
		return true
	}
	var n int32
	_, _, errno := syscall.RawSyscall(syscall.SYS_IOCTL, uintptr(c.in.FD()), unix.TIOCINQ, uintptr(unsafe.Pointer(&n)))
	return errno == 0 && n > 0
}

func (c *child) ReadNow() {
	if c.out.IsOpen() {
		c.out.ReadNow()
	}
}

func (c *child) ReadWords() {
	if c.err.IsOpen() {
		c.err.ReadNow()
	}
}

// Look reads what is there: asking costs a system call, and an answer given to
// the wrong request would cost far more.
func (c *child) Look() pool.OutputState {
	if !c.out.IsOpen() {
		return pool.OutputClosed
	}
	switch c.out.Look() {
	case evloop.LookEnd:
		return pool.OutputClosed
	case evloop.LookData:
		return pool.OutputNoisy
	}
	return pool.OutputQuiet
}

func (c *child) Signal(sig syscall.Signal) {
	if sig == syscall.SIGTERM {
		c.told = true
	}
	// The process may have gone: then there is nobody to tell.
	_ = unix.PidfdSendSignal(c.pidfd, sig, nil, 0)
}

func (c *child) Kill() {
	c.told = true
	_ = syscall.Kill(-c.pid, syscall.SIGKILL) // its group, which it leads
	_ = unix.PidfdSendSignal(c.pidfd, syscall.SIGKILL, nil, 0)
}

func (c *child) Release() {
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
func (c *child) Usage() (pool.Usage, bool) {
	var u pool.Usage
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", c.pid))
	if err != nil {
		return u, false
	}
	if f := bytes.Fields(statm); len(f) > 1 {
		pages, _ := strconv.ParseInt(string(f[1]), 10, 64)
		u.Resident = pages * int64(os.Getpagesize())
	}
	st, err := procstat.Read(c.pid)
	u.CPU = st.User + st.System
	return u, err == nil
}

// The four streams and the end of a process each have a handler; all are the
// child under another name.
type (
	childInput  child
	childOutput child
	childError  child
	childStatus child
	childEnd    child
)

func (c *childInput) Input(_ *evloop.Stream, b []byte) int  { return len(b) }
func (c *childInput) Ended(*evloop.Stream, error)           {}
func (c *childInput) Flushed(_ *evloop.Stream, err error)   { c.owner.InputFlushed(err) }
func (c *childOutput) Input(_ *evloop.Stream, b []byte) int { return c.owner.GotOutput(b) }
func (c *childOutput) Ended(*evloop.Stream, error)          { c.owner.OutputEnded() }
func (c *childOutput) Flushed(*evloop.Stream, error)        {}
func (c *childError) Input(_ *evloop.Stream, b []byte) int  { return c.owner.GotStderr(b, false) }
func (c *childError) Flushed(*evloop.Stream, error)         {}
func (c *childStatus) Input(_ *evloop.Stream, b []byte) int { return c.owner.GotStatus(b) }
func (c *childStatus) Ended(*evloop.Stream, error)          {}
func (c *childStatus) Flushed(*evloop.Stream, error)        {}
func (c *childError) Ended(s *evloop.Stream, _ error)       { c.owner.GotStderr(s.Rest(), true) }

// maxDrain bounds what is read of a dead worker's pipes, in reads: a child of it
// may go on writing.
const maxDrain = 16

// Ready: the process has ended. What it wrote before comes first.
func (e *childEnd) Ready(evloop.Events) {
	c := (*child)(e)
	c.loop.Remove(c.pidfd)
	for _, s := range []*evloop.Stream{&c.status, &c.err, &c.out} {
		for range maxDrain {
			if !s.IsOpen() || !s.ReadMore() {
				break
			}
		}
	}
	if rest := c.err.Rest(); len(rest) > 0 {
		c.owner.GotStderr(rest, true)
	}
	if c.told && (c.parent || c.keeper.keeps(c.pid)) {
		// Before the wait, as long as the number of the group is ours.
		_ = syscall.Kill(-c.pid, syscall.SIGKILL)
	}
	c.owner.Exited(c.wait())
}

func (c *child) wait() pool.Exit {
	if !c.parent {
		return c.keeper.wait(c.pid)
	}
	var ws syscall.WaitStatus
	var ru syscall.Rusage
	pid, err := syscall.Wait4(c.pid, &ws, syscall.WNOHANG, &ru)
	switch {
	case err != nil || pid == 0:
		return pool.Exit{Lost: true}
	}
	return exitOf(ws, &ru)
}
