package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"postern/internal/mxproto"
	"postern/internal/rawio"
)

// load sends request lines to a multiplexor from one thread that waits for all
// its connections at once, the cheapest client there is, because it shares the
// CPUs with what it measures. For that reason, too, it makes its system calls
// without Go's scheduler.
type load struct {
	socket     string
	request    string // without LF
	clients    int    // connections at a time
	requests   int
	persistent bool // many requests on a connection, else one each as MIMEDefang's programs do
}

// outcome is what a run of a load saw.
type outcome struct {
	elapsed time.Duration
	latency []time.Duration // of the requests that were answered with ok, sorted
	refused int             // answered with something else
}

func (o *outcome) rate() float64 { return float64(len(o.latency)) / o.elapsed.Seconds() }

// caller is one of the connections.
type caller struct {
	fd    int
	since time.Time
	reply []byte
}

// runner is a load under way.
type runner struct {
	load
	outcome
	epoll   int
	callers []*caller // by descriptor; nil for those that are closed
	waiting []*caller // whose connect met a full backlog
	started int
	done    int
	line    []byte
	address syscall.RawSockaddrUnix
	events  [256]syscall.EpollEvent
	buf     [4096]byte
}

// run makes all requests and waits for their answers.
func (l load) run() (*outcome, error) {
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(epoll)
	r := &runner{load: l, epoll: epoll, line: []byte(l.request + "\n"), address: syscall.RawSockaddrUnix{Family: syscall.AF_UNIX}}
	if len(l.socket) >= len(r.address.Path) {
		return nil, fmt.Errorf("path %q is too long for a socket", l.socket)
	}
	for i := range l.socket {
		r.address.Path[i] = int8(l.socket[i])
	}
	r.latency = make([]time.Duration, 0, l.requests)
	defer r.closeAll()
	if l.persistent {
		if err := r.openKept(); err != nil {
			return nil, err
		}
	}
	begin := time.Now()
	for _, c := range r.callers {
		if c == nil {
			continue
		}
		if err := r.ask(c); err != nil {
			return nil, err
		}
	}
	if !l.persistent {
		for range l.clients {
			if err := r.open(&caller{}); err != nil {
				return nil, err
			}
		}
	}
	for r.done < l.requests {
		if err := r.wait(); err != nil {
			return nil, err
		}
	}
	r.elapsed = time.Since(begin)
	slices.Sort(r.latency)
	return &r.outcome, nil
}

// openKept makes the persistent connections, before any request.
func (r *runner) openKept() error {
	for range r.clients {
		fd, err := connectKept(r.socket)
		if err != nil {
			return err
		}
		if err := syscall.SetNonblock(fd, true); err != nil {
			return err
		}
		if err := r.watch(&caller{fd: fd}); err != nil {
			return err
		}
	}
	return nil
}

// connect makes a connection.
func connect(socket string) (fd int, err error) {
	fd, err = syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := syscall.Connect(fd, &syscall.SockaddrUnix{Name: socket}); err != nil {
		syscall.Close(fd)
		return -1, fmt.Errorf("connect: %w", err)
	}
	return fd, nil
}

// connectKept makes a persistent connection, which blocks.
func connectKept(socket string) (fd int, err error) {
	if fd, err = connect(socket); err != nil {
		return -1, err
	}
	if _, err := syscall.Write(fd, []byte(mxproto.Hello+"\n")); err != nil {
		syscall.Close(fd)
		return -1, err
	}
	answer := make([]byte, len(mxproto.HelloOK))
	if n, err := syscall.Read(fd, answer); err != nil || string(answer[:n]) != mxproto.HelloOK {
		syscall.Close(fd)
		return -1, fmt.Errorf("ask for a persistent connection: %q, %v", answer[:max(n, 0)], err)
	}
	return fd, nil
}

// hold makes connections that say nothing; they are closed by release.
func hold(socket string, n int, persistent bool) (release func(), err error) {
	var fds []int
	release = func() {
		for _, fd := range fds {
			syscall.Close(fd)
		}
	}
	for range n {
		fd, err := pick(persistent, connectKept, connect)(socket)
		if err != nil {
			release()
			return nil, err
		}
		fds = append(fds, fd)
	}
	return release, nil
}

// raw makes a system call that does not block.
func raw(number, a, b, c, d uintptr) (int, error) {
	n, _, errno := syscall.RawSyscall6(number, a, b, c, d, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

// open connects a caller, which asks at once.
func (r *runner) open(c *caller) (err error) {
	if r.started == r.requests {
		return nil
	}
	r.started++
	c.since = time.Now()
	c.fd, err = raw(unix.SYS_SOCKET, syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0, 0)
	if err != nil {
		return err
	}
	return r.dial(c)
}

func (r *runner) dial(c *caller) error {
	_, err := raw(unix.SYS_CONNECT, uintptr(c.fd), uintptr(unsafe.Pointer(&r.address)), unsafe.Sizeof(r.address), 0)
	switch err {
	case nil:
	case syscall.EAGAIN: // the backlog is full: tried again after the next answers
		r.waiting = append(r.waiting, c)
		return nil
	default:
		return fmt.Errorf("connect: %w", err)
	}
	c.reply = c.reply[:0]
	if err := r.write(c); err != nil {
		return err
	}
	return r.watch(c)
}

// write sends the request, which is short enough for any socket.
func (r *runner) write(c *caller) error {
	if _, errno := rawio.Write(c.fd, r.line); errno != 0 {
		return os.NewSyscallError("write", errno)
	}
	return nil
}

func (r *runner) watch(c *caller) error {
	for c.fd >= len(r.callers) {
		r.callers = append(r.callers, nil)
	}
	r.callers[c.fd] = c
	event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(c.fd)}
	_, err := raw(syscall.SYS_EPOLL_CTL, uintptr(r.epoll), syscall.EPOLL_CTL_ADD, uintptr(c.fd), uintptr(unsafe.Pointer(&event)))
	return err
}

// ask sends the next request on a persistent connection.
func (r *runner) ask(c *caller) error {
	if r.started == r.requests {
		return nil
	}
	r.started++
	c.since = time.Now()
	c.reply = c.reply[:0]
	return r.write(c)
}

// wait takes the answers that have come.
func (r *runner) wait() error {
	timeout := 30000 // ms
	if len(r.waiting) > 0 {
		timeout = 1
	}
	n, err := syscall.EpollWait(r.epoll, r.events[:], timeout)
	if err != nil && err != syscall.EINTR {
		return err
	}
	if n == 0 && len(r.waiting) == 0 {
		return fmt.Errorf("%d requests get no answer", r.started-r.done)
	}
	for _, e := range r.events[:max(n, 0)] {
		if err := r.read(r.callers[int(e.Fd)]); err != nil {
			return err
		}
	}
	waiting := r.waiting
	r.waiting = nil
	for _, c := range waiting {
		if err := r.dial(c); err != nil {
			return err
		}
	}
	return nil
}

func (r *runner) read(c *caller) error {
	for {
		n, errno := rawio.Read(c.fd, r.buf[:])
		switch {
		case errno == syscall.EAGAIN:
			return nil
		case errno != 0:
			return fmt.Errorf("read reply: %w", errno)
		case n > 0:
			c.reply = append(c.reply, r.buf[:n]...)
			if !r.persistent {
				continue // the end of the reply is the end of the connection
			}
			if reply, whole := frame(c.reply); whole {
				r.finish(c, reply)
				return r.ask(c)
			}
		case r.persistent:
			return fmt.Errorf("persistent connection was closed")
		default:
			r.finish(c, c.reply)
			r.callers[c.fd] = nil
			_, _ = raw(syscall.SYS_CLOSE, uintptr(c.fd), 0, 0, 0)
			return r.open(c)
		}
	}
}

func (r *runner) finish(c *caller, reply []byte) {
	r.done++
	if bytes.HasPrefix(reply, []byte("ok")) {
		r.latency = append(r.latency, time.Since(c.since))
	} else {
		r.refused++
	}
}

// frame gives the reply within a netstring, if all of it is there.
func frame(b []byte) (reply []byte, whole bool) {
	length, rest, found := bytes.Cut(b, []byte(":"))
	n, err := strconv.Atoi(string(length))
	if !found || err != nil || len(rest) <= n {
		return nil, false
	}
	return rest[:n], true
}

func (r *runner) closeAll() {
	for _, c := range r.callers {
		if c != nil {
			syscall.Close(c.fd)
		}
	}
	for _, c := range r.waiting {
		syscall.Close(c.fd)
	}
}
