// Package evloop is an event loop over epoll: one goroutine waits for many
// descriptors and timers and calls their owners in turn. Everything that runs on
// the loop owns its state without locks; nothing that runs on it may block.
//
// It exists for programs that answer many short requests on many descriptors,
// where a goroutine for each would cost more than the request. Descriptors given
// to it must be non-blocking and unknown to Go's own poller.
package evloop

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"postern/internal/rawio"
)

// Events of a descriptor.
type Events uint32

// The events an owner can ask for. Errors and hang-ups are always reported, as
// Readable and Writable both: the next read or write then says what it is.
const (
	Readable Events = syscall.EPOLLIN
	Writable Events = syscall.EPOLLOUT
)

// Handler is the owner of a descriptor.
type Handler interface {
	// Ready is called on the loop when something of what was asked for is so. It
	// is called again at once if the cause is not dealt with (level-triggered).
	Ready(Events)
}

// scratchSize bounds what one read takes; the buffer is shared by all streams.
const scratchSize = 64 << 10

// Loop waits for descriptors, timers and calls from other goroutines.
type Loop struct {
	Timers
	epoll   int
	wake    int // eventfd
	start   time.Time
	entries []entry // by descriptor
	scratch []byte
	stopped bool
	turn    uint64 // counts waits

	// Descriptors were closed since listeners ran out of them.
	starved []*Listener

	later []func()

	mu     sync.Mutex
	posted []func()
	spare  []func()
}

type entry struct {
	handler Handler
	gen     int32 // distinguishes users of one descriptor number in one batch of events
}

// New makes a loop. Close it when Run has returned.
func New() (*Loop, error) {
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an epoll descriptor: %w", err)
	}
	wake, _, errno := syscall.Syscall(syscall.SYS_EVENTFD2, 0, syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if errno != 0 {
		syscall.Close(epoll)
		return nil, fmt.Errorf("make an eventfd: %w", errno)
	}
	l := &Loop{epoll: epoll, wake: int(wake), start: time.Now(), scratch: make([]byte, scratchSize)}
	if err := l.Add(l.wake, Readable, wakeup{l}); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Close frees what the loop itself uses; the descriptors added to it stay open.
func (l *Loop) Close() error {
	return errors.Join(syscall.Close(l.epoll), syscall.Close(l.wake))
}

// Add watches fd for events on behalf of h.
func (l *Loop) Add(fd int, events Events, h Handler) error {
	for fd >= len(l.entries) {
		l.entries = append(l.entries, make([]entry, max(64, len(l.entries)))...)
	}
	e := &l.entries[fd]
	e.handler = h
	e.gen++
	return l.control(syscall.EPOLL_CTL_ADD, fd, events)
}

// Change watches fd, which was added, for other events.
func (l *Loop) Change(fd int, events Events) error {
	return l.control(syscall.EPOLL_CTL_MOD, fd, events)
}

// Remove stops watching fd. Events of it that were already fetched are dropped.
func (l *Loop) Remove(fd int) {
	l.forget(fd)
	// The only possible failure is that it was not there.
	_ = syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_DEL, fd, nil)
}

func (l *Loop) forget(fd int) {
	if fd < len(l.entries) {
		l.entries[fd].handler = nil
		l.entries[fd].gen++
	}
}

func (l *Loop) control(op, fd int, events Events) error {
	ev := syscall.EpollEvent{Events: uint32(events), Fd: int32(fd), Pad: l.entries[fd].gen}
	_, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_CTL, uintptr(l.epoll), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(&ev)), 0, 0)
	if errno != 0 {
		return fmt.Errorf("watch descriptor %d: %w", fd, errno)
	}
	return nil
}

// CloseFD closes a descriptor and forgets it. Every descriptor that the loop's
// users close goes through here, so that a listener that ran out of descriptors
// can go on.
func (l *Loop) CloseFD(fd int) {
	l.forget(fd)
	syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(fd), 0, 0)
	if len(l.starved) > 0 {
		starved := l.starved
		l.starved = nil
		for _, ls := range starved {
			ls.resume()
		}
	}
}

// Post makes the loop call f, from any goroutine. Calls run in the order they
// were posted. After the loop has ended they are dropped.
func (l *Loop) Post(f func()) {
	l.mu.Lock()
	l.posted = append(l.posted, f)
	first := len(l.posted) == 1
	l.mu.Unlock()
	if first {
		one := [8]byte{0: 1}
		// A full counter means that the loop is woken already.
		_, _ = syscall.Write(l.wake, one[:])
	}
}

type wakeup struct{ l *Loop }

func (w wakeup) Ready(Events) {
	l := w.l
	var b [8]byte
	_, _ = rawio.Read(l.wake, b[:])
	l.mu.Lock()
	calls := l.posted
	l.posted = l.spare[:0]
	l.mu.Unlock()
	for i, f := range calls {
		calls[i] = nil
		f()
	}
	l.spare = calls
}

// Later makes the loop call f when the event at hand is dealt with, before the
// next one. It is called on the loop.
func (l *Loop) Later(f func()) { l.later = append(l.later, f) }

func (l *Loop) runLater() {
	for i := 0; i < len(l.later); i++ {
		l.later[i]()
	}
	clear(l.later)
	l.later = l.later[:0]
}

// Stop makes Run return after the events at hand. It is called on the loop.
func (l *Loop) Stop() { l.stopped = true }

// Run serves events until Stop.
func (l *Loop) Run() error {
	events := make([]syscall.EpollEvent, 256)
	for !l.stopped {
		n, err := l.wait(events)
		if err != nil {
			return fmt.Errorf("wait for events: %w", err)
		}
		l.turn++
		l.now = time.Since(l.start)
		for i := range events[:n] {
			e := &events[i]
			if known := l.entries[e.Fd]; known.handler != nil && known.gen == e.Pad {
				known.handler.Ready(translate(e.Events))
				if len(l.later) > 0 {
					l.runLater()
				}
			}
		}
		l.Advance(l.now)
		l.runLater()
	}
	return nil
}

func translate(bits uint32) Events {
	ev := Events(bits) & (Readable | Writable)
	if bits&(syscall.EPOLLERR|syscall.EPOLLHUP) != 0 {
		ev = Readable | Writable
	}
	return ev
}

// wait fetches events. It asks without waiting first: under load there are
// always some, and that call need not tell Go's scheduler.
func (l *Loop) wait(events []syscall.EpollEvent) (int, error) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno == 0 && n > 0 {
		return int(n), nil
	}
	l.now = time.Since(l.start)
	timeout := -1
	if d, ok := l.Next(); ok {
		// Round up: waking a little late is better than spinning until it is time.
		timeout = int(min((d+time.Millisecond-1)/time.Millisecond, 1<<30))
	}
	k, err := syscall.EpollWait(l.epoll, events, timeout)
	if err == syscall.EINTR {
		return 0, nil
	}
	if err != nil {
		return 0, os.NewSyscallError("epoll_wait", err)
	}
	return k, nil
}
