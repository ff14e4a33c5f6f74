package evloop

import (
	"fmt"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	acceptBatch = 256 // connections taken before other descriptors have their turn
	starvedWait = 100 * time.Millisecond
)

// Listener accepts connections for the loop.
type Listener struct {
	loop    *Loop
	fd      int
	accept  func(fd int)
	failed  func(error)
	watched bool
	short   bool   // there were no descriptors for the last connection
	crowd   bool   // several connections are to be expected
	turn    uint64 // of the loop, when the listener was ready last
	retry   Timer
}

// Listen watches a listening, non-blocking descriptor, which is the listener's
// own from now on. accept gets each new descriptor (non-blocking, close-on-exec)
// in the order of arrival. failed is told, once for each shortage, that there were
// no descriptors or no memory for another connection; accepting goes on when a
// descriptor was closed, and is tried every 100 ms.
func (l *Loop) Listen(fd int, accept func(fd int), failed func(error)) (*Listener, error) {
	if err := syscall.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("make a listener non-blocking: %w", err)
	}
	ls := &Listener{loop: l, fd: fd, accept: accept, failed: failed, watched: true}
	ls.retry.Do = ls.resume
	if err := l.Add(fd, Readable, ls); err != nil {
		return nil, err
	}
	return ls, nil
}

// Ready accepts what waits; the loop calls it. In quiet times that is one
// connection, and the system call that would find no other is saved; a listener
// that is ready in two turns running has a crowd before it.
func (ls *Listener) Ready(Events) {
	ls.crowd = ls.crowd || ls.turn+1 == ls.loop.turn
	ls.turn = ls.loop.turn
	n := 0
	for n < acceptBatch && ls.fd >= 0 && ls.acceptOne() {
		if n++; !ls.crowd {
			return
		}
	}
	ls.crowd = n > 1
}

// acceptOne takes one connection and says whether there may be more.
func (ls *Listener) acceptOne() bool {
	for {
		fd, _, errno := syscall.RawSyscall6(unix.SYS_ACCEPT4, uintptr(ls.fd), 0, 0, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0, 0)
		switch errno {
		case 0:
			ls.short = false
			ls.accept(int(fd))
			return true
		case syscall.EINTR, syscall.ECONNABORTED:
		case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM:
			ls.starve(errno)
			return false
		default: // EAGAIN; network errors of one connection count as none waiting
			return false
		}
	}
}

// starve stops watching: the connection goes on waiting, and without this the
// loop would spin on it.
func (ls *Listener) starve(err error) {
	ls.watched = false
	ls.loop.Remove(ls.fd)
	if !slices.Contains(ls.loop.starved, ls) {
		ls.loop.starved = append(ls.loop.starved, ls)
	}
	ls.loop.Start(&ls.retry, starvedWait)
	if !ls.short {
		ls.short = true
		ls.failed(fmt.Errorf("accept a connection: %w", err))
	}
}

func (ls *Listener) resume() {
	if ls.watched || ls.fd < 0 {
		return
	}
	ls.loop.Timers.Stop(&ls.retry)
	if err := ls.loop.Add(ls.fd, Readable, ls); err != nil {
		ls.loop.Start(&ls.retry, starvedWait)
		return
	}
	ls.watched = true
}

// Close stops accepting. Connections still in the backlog are reset.
func (ls *Listener) Close() {
	if ls.fd < 0 {
		return
	}
	fd := ls.fd
	ls.fd = -1
	ls.loop.Timers.Stop(&ls.retry)
	ls.loop.CloseFD(fd)
}
