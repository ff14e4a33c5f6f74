// Package rawio reads and writes non-blocking descriptors by system calls that Go's
// scheduler is not told of.
//
// A system call that is announced costs two exchanges with the scheduler, and when
// the kernel runs another process before it returns, as it likes to do when a write
// wakes the reader, the runtime takes the call for a blocking one: it starts another
// thread, and its monitor goes on looking for more such calls every 20 microseconds.
// In a proxy of many short writes that was a tenth of the work. On a descriptor that
// never blocks nothing is gained for that price.
package rawio

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Read reads into p from a non-blocking descriptor. It gives 0 and no error at the
// end of the stream, and [syscall.EAGAIN] if there is nothing to read now.
func Read(fd int, p []byte) (int, syscall.Errno) {
	return call(syscall.SYS_READ, fd, p)
}

// Write writes p, or a part of it, to a non-blocking descriptor; EAGAIN if there is
// no room now.
func Write(fd int, p []byte) (int, syscall.Errno) {
	return call(syscall.SYS_WRITE, fd, p)
}

// Peek returns what Read would of a socket, which keeps it. It may be one that blocks.
func Peek(fd int, p []byte) (int, syscall.Errno) {
	if len(p) == 0 {
		return 0, 0
	}
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)),
			syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(n), 0
	}
}

func call(number uintptr, fd int, p []byte) (int, syscall.Errno) {
	if len(p) == 0 {
		return 0, 0
	}
	for {
		n, _, errno := syscall.RawSyscall(number, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(n), 0
	}
}

// writev writes a and then b, or a part of that, in one system call. Neither is empty.
func writev(fd int, a, b []byte) (int, syscall.Errno) {
	v := [2]syscall.Iovec{{Base: &a[0]}, {Base: &b[0]}}
	v[0].SetLen(len(a))
	v[1].SetLen(len(b))
	for {
		n, _, errno := syscall.RawSyscall(syscall.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&v[0])), uintptr(len(v)))
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(n), 0
	}
}

// Conn is a network connection with a descriptor, read and written in this way;
// deadlines, and everything else, are those of the connection below. Unlike other
// connections it may be read by one goroutine at a time, and written by one.
type Conn struct {
	net.Conn
	raw      syscall.RawConn
	in       []byte
	out      [2][]byte
	n        int           // read
	inErr    syscall.Errno // 0 for none, as outErr
	outErr   syscall.Errno
	tryRead  func(fd uintptr) bool
	tryWrite func(fd uintptr) bool
	tryOnce  func(fd uintptr) // nil before the first WriteBy
	done     bool             // tryOnce is
}

// New wraps nc. ok is false if it has no descriptor of its own.
func New(nc net.Conn) (c *Conn, ok bool) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil, false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, false
	}
	c = &Conn{Conn: nc, raw: raw}
	c.tryRead, c.tryWrite = c.readNow, c.writeNow // kept, so that a call allocates nothing
	return c, true
}

// SyscallConn implements [syscall.Conn].
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return c.raw, nil }

// Read implements [net.Conn].
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.in = p
	err := c.raw.Read(c.tryRead)
	c.in = nil
	if err == nil {
		err = failure("read", c.inErr)
	}
	if err != nil {
		return 0, err
	}
	if c.n == 0 {
		return 0, io.EOF
	}
	return c.n, nil
}

// readNow is called by the poller; false sends it back to waiting.
func (c *Conn) readNow(fd uintptr) bool {
	n, errno := Read(int(fd), c.in)
	if errno == syscall.EAGAIN {
		return false
	}
	c.n, c.inErr = n, errno
	return true
}

// Write implements [net.Conn].
func (c *Conn) Write(p []byte) (int, error) {
	c.out, c.outErr = [2][]byte{p, nil}, 0
	return c.finish(len(p), c.raw.Write(c.tryWrite))
}

// WriteBy writes a and then b, and says how many bytes of both that were. What the
// kernel takes at once, it gets in one system call, and only if it does not take all
// is the deadline set for the rest.
func (c *Conn) WriteBy(deadline time.Time, a, b []byte) (int, error) {
	if len(a) == 0 {
		a, b = b, nil
	}
	if c.tryOnce == nil {
		c.tryOnce = func(fd uintptr) { c.done = c.writeNow(fd) }
	}
	c.out, c.outErr = [2][]byte{a, b}, 0
	err := c.raw.Control(c.tryOnce)
	if err == nil && !c.done {
		if err = c.SetWriteDeadline(deadline); err == nil {
			err = c.raw.Write(c.tryWrite)
		}
	}
	return c.finish(len(a)+len(b), err)
}

// finish ends a write of total bytes.
func (c *Conn) finish(total int, err error) (int, error) {
	left := len(c.out[0]) + len(c.out[1])
	c.out = [2][]byte{}
	if err == nil {
		err = failure("write", c.outErr)
	}
	return total - left, err
}

// writeNow is called by the poller; false sends it back to waiting.
func (c *Conn) writeNow(fd uintptr) bool {
	for len(c.out[0]) > 0 {
		var n int
		var errno syscall.Errno
		if len(c.out[1]) > 0 {
			n, errno = writev(int(fd), c.out[0], c.out[1])
		} else {
			n, errno = Write(int(fd), c.out[0])
		}
		switch {
		case errno == syscall.EAGAIN:
			return false
		case errno != 0:
			c.outErr = errno
			return true
		}
		c.written(n)
	}
	return true
}

func (c *Conn) written(n int) {
	first := min(n, len(c.out[0]))
	c.out[0] = c.out[0][first:]
	c.out[1] = c.out[1][n-first:]
	if len(c.out[0]) == 0 {
		c.out = [2][]byte{c.out[1], nil}
	}
}

func failure(act string, errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return os.NewSyscallError(act, errno)
}
