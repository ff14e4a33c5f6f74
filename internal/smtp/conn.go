package smtp

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"postern/internal/rawio"
)

// Sizes of the buffers a [Conn] borrows, in bytes.
const (
	lineBuffer    = 4 << 10  // commands; nearly all fit
	longBuffer    = 16 << 10 // a command line of AUTH, RFC 4954 section 4
	contentBuffer = 64 << 10 // content, in pieces
	discardLimit  = 64 << 10 // how much of an over-long line is thrown away before the peer is given up
)

// Errors of [Conn.ReadLine]. Only the first leaves the connection in step.
var (
	// ErrLineTooLong says that a line was longer than allowed; its rest was thrown away.
	ErrLineTooLong = errors.New("line too long")
	// ErrLineEndless says that a line was longer than 64 KiB; the connection is of no more use.
	ErrLineEndless = errors.New("line without end")
	// ErrNotText says that what began was no line of text, such as a TLS ClientHello; nothing was used of it.
	ErrNotText = errors.New("not a line of text")
)

var (
	linePool    = sync.Pool{New: func() any { b := make([]byte, lineBuffer); return &b }}
	longPool    = sync.Pool{New: func() any { b := make([]byte, longBuffer); return &b }}
	contentPool = sync.Pool{New: func() any { b := make([]byte, contentBuffer); return &b }}
	outPool     = sync.Pool{New: func() any { b := make([]byte, 0, 1024); return &b }}
)

// Conn is the server's half of an SMTP connection: lines and content in, replies out.
//
// It owns no buffer while it waits. A plain TCP or UNIX connection is waited for through the poller
// without any memory at hand; bytes are read into a buffer borrowed for as long as some are unread.
// A connection that has no descriptor of its own (TLS, net.Pipe) is waited for with one byte.
//
// A Conn is for one goroutine.
type Conn struct {
	nc     net.Conn
	direct *rawio.Conn // nc, or nil if that has no descriptor
	raw    syscall.RawConn
	try    func(fd uintptr) bool // c.tryRead, kept so that a wait allocates nothing
	buf    *[]byte
	out    *[]byte
	r, w   int // unread bytes are (*buf)[r:w]
	want   int // size of the buffer tryRead borrows
	err    error
	poll   bool
	single [1]byte

	dropped int // bytes thrown away of a line that is too long and has not ended yet
}

// NewConn makes a Conn of a connection just accepted.
func NewConn(nc net.Conn) *Conn {
	c := &Conn{}
	c.use(nc)
	return c
}

func (c *Conn) use(nc net.Conn) {
	c.nc, c.direct, c.raw, c.try = nc, nil, nil, nil
	if direct, ok := rawio.New(nc); ok {
		c.direct, c.try = direct, c.tryRead
		c.raw, _ = direct.SyscallConn()
	}
}

// Net returns the connection below.
func (c *Conn) Net() net.Conn { return c.nc }

// Upgrade goes on with another connection, made on top of the present one (TLS). Input that was read
// already is thrown away: what a client sent in clear behind STARTTLS is never a command inside TLS.
func (c *Conn) Upgrade(nc net.Conn) {
	c.r = c.w
	c.giveBack()
	c.use(nc)
}

// Close closes the connection and gives the buffers back.
func (c *Conn) Close() error {
	c.r = c.w
	c.giveBack()
	c.giveBackOut()
	return c.nc.Close()
}

// SetDeadline sets the moment at which reads fail; it stays in force until it is set again.
func (c *Conn) SetDeadline(t time.Time) error { return c.nc.SetReadDeadline(t) }

// Buffered says how many bytes were read from the connection and not yet used.
func (c *Conn) Buffered() int { return c.w - c.r }

// HasLine reports whether a whole line waits in the buffer.
func (c *Conn) HasLine() bool {
	return c.buf != nil && bytes.IndexByte((*c.buf)[c.r:c.w], '\n') >= 0
}

// Pending reports whether the peer has sent bytes that were not read yet, looking also, without waiting,
// at what the kernel holds. On a connection without a descriptor only the own buffer is looked at.
func (c *Conn) Pending() bool {
	if c.r < c.w {
		return true
	}
	if c.raw == nil {
		return false
	}
	c.giveBack()
	c.poll = true
	c.want = lineBuffer
	err := c.raw.Read(c.try)
	c.poll = false
	return err == nil && c.err == nil && c.r < c.w
}

// ReadLine returns the next line without its end, which is valid until the next call. bare says that
// the line ended in LF alone. A line of more than limit bytes, its end included, is ErrLineTooLong. A deadline may pass
// within a line: the next call goes on with it.
func (c *Conn) ReadLine(limit int) (line []byte, bare bool, err error) {
	scanned := 0
	for {
		if c.buf != nil {
			window := (*c.buf)[c.r:c.w]
			if scanned == 0 && c.dropped == 0 && len(window) > 0 && isBinary(window[0]) {
				return nil, false, ErrNotText
			}
			if i := bytes.IndexByte(window[scanned:], '\n'); i >= 0 {
				end := scanned + i
				c.r += end + 1
				if dropped := c.dropped; dropped > 0 || end+1 > limit {
					c.dropped = 0
					return nil, false, ErrLineTooLong
				}
				line = window[:end]
				if end > 0 && line[end-1] == '\r' {
					return line[:end-1], false, nil
				}
				return line, true, nil
			}
			scanned = len(window)
			if scanned >= limit || c.dropped > 0 {
				c.dropped += scanned
				if c.dropped > discardLimit {
					return nil, false, ErrLineEndless
				}
				c.r, scanned = c.w, 0
			}
		}
		if err := c.fill(lineBuffer, longBuffer); err != nil {
			return nil, false, err
		}
	}
}

// isBinary reports whether a line of text cannot begin with b. Those who speak in such bytes may never send an
// end of line.
func isBinary(b byte) bool { return b < ' ' && b != '\r' && b != '\n' && b != '\t' }

// Window returns the bytes that were read and not used, at least one, waiting for them if need be. They
// stay until Discard.
func (c *Conn) Window() ([]byte, error) {
	if c.r == c.w {
		if err := c.fill(contentBuffer, contentBuffer); err != nil {
			return nil, err
		}
	}
	return (*c.buf)[c.r:c.w], nil
}

// More waits for bytes behind those that were read and not used, and gives all of them. There must be
// fewer than limit, which is at most 12 KiB.
func (c *Conn) More(limit int) ([]byte, error) {
	if c.w-c.r >= limit {
		return nil, ErrLineTooLong
	}
	if err := c.fill(lineBuffer, longBuffer); err != nil {
		return nil, err
	}
	return (*c.buf)[c.r:c.w], nil
}

// TakeBuffered returns a copy of the bytes that were read and not used, which the Conn then forgets: for
// a layer that reads from the connection below.
func (c *Conn) TakeBuffered() []byte {
	if c.r == c.w {
		return nil
	}
	taken := append([]byte(nil), (*c.buf)[c.r:c.w]...)
	c.r = c.w
	c.giveBack()
	return taken
}

// Discard marks the first n bytes of the window as used.
func (c *Conn) Discard(n int) { c.r += n }

// fill reads more bytes behind the unread ones. With none unread it borrows a buffer of size bytes
// when they have come; a full buffer is exchanged for one of most bytes.
func (c *Conn) fill(size, most int) error {
	if c.r == c.w {
		c.giveBack()
	} else {
		c.makeRoom(most)
	}
	c.want = size
	if c.raw != nil {
		if err := c.raw.Read(c.try); err != nil {
			return err
		}
		return c.err
	}
	return c.fillPlain(size)
}

// fillPlain reads from a connection that cannot be waited for without memory.
func (c *Conn) fillPlain(size int) error {
	if c.buf == nil && size == lineBuffer {
		n, err := c.nc.Read(c.single[:])
		if n == 0 {
			return noProgress(err)
		}
		c.borrow(size)
		(*c.buf)[0] = c.single[0]
		c.w = 1
		if c.single[0] == '\n' {
			return nil
		}
	}
	if c.buf == nil {
		c.borrow(size)
	}
	n, err := c.nc.Read((*c.buf)[c.w:])
	c.w += n
	if n > 0 {
		return nil
	}
	return noProgress(err)
}

func noProgress(err error) error {
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// tryRead is called by the poller: false sends it back to waiting.
func (c *Conn) tryRead(fd uintptr) bool {
	c.err = nil
	if c.buf == nil {
		c.borrow(c.want)
	}
	n, errno := rawio.Read(int(fd), (*c.buf)[c.w:])
	switch {
	case errno == syscall.EAGAIN:
		if c.r == c.w {
			c.giveBack()
		}
		return c.poll
	case errno != 0:
		c.err = errno
	case n == 0:
		c.err = io.EOF
	}
	c.w += n
	return true
}

func (c *Conn) borrow(size int) {
	switch size {
	case lineBuffer:
		c.buf = linePool.Get().(*[]byte)
	case longBuffer:
		c.buf = longPool.Get().(*[]byte)
	default:
		c.buf = contentPool.Get().(*[]byte)
	}
	c.r, c.w = 0, 0
}

// makeRoom moves the unread bytes to the front, into a buffer of most bytes if they fill theirs.
func (c *Conn) makeRoom(most int) {
	if c.r > 0 {
		c.w = copy(*c.buf, (*c.buf)[c.r:c.w])
		c.r = 0
	}
	if c.w < len(*c.buf) || len(*c.buf) >= most {
		return
	}
	old := c.buf
	unread := c.w
	c.borrow(most)
	c.w = copy(*c.buf, (*old)[:unread])
	putBuffer(old)
}

func (c *Conn) giveBack() {
	if c.buf != nil {
		putBuffer(c.buf)
		c.buf = nil
	}
	c.r, c.w = 0, 0
}

func putBuffer(b *[]byte) {
	switch len(*b) {
	case lineBuffer:
		linePool.Put(b)
	case longBuffer:
		longPool.Put(b)
	case contentBuffer:
		contentPool.Put(b)
	}
}

// Reply adds a reply to those that the next Flush sends.
func (c *Conn) Reply(r Reply) {
	if c.out == nil {
		c.out = outPool.Get().(*[]byte)
	}
	*c.out = r.AppendTo(*c.out)
}

// Unsent says how many bytes of replies wait for Flush.
func (c *Conn) Unsent() int {
	if c.out == nil {
		return 0
	}
	return len(*c.out)
}

// Flush sends all waiting replies in one write, which must be done by the deadline.
func (c *Conn) Flush(deadline time.Time) error {
	if c.out == nil {
		return nil
	}
	defer c.giveBackOut()
	if c.direct != nil {
		_, err := c.direct.WriteBy(deadline, *c.out, nil)
		return err
	}
	if err := c.nc.SetWriteDeadline(deadline); err != nil {
		return err
	}
	_, err := c.nc.Write(*c.out)
	return err
}

func (c *Conn) giveBackOut() {
	if c.out == nil {
		return
	}
	if cap(*c.out) <= contentBuffer {
		*c.out = (*c.out)[:0]
		outPool.Put(c.out)
	}
	c.out = nil
}
