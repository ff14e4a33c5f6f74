package evloop

import (
	"io"
	"syscall"
	"unsafe"

	"postern/internal/rawio"
)

// StreamHandler is the owner of a Stream. All calls come on the loop.
type StreamHandler interface {
	// Input gets the bytes that arrived and were not taken before, and says how
	// many of them it takes; the rest is offered again with what arrives next, or
	// at Rescan. The handler bounds how much it leaves. The slice is valid during
	// the call only.
	Input(s *Stream, b []byte) (taken int)
	// Ended is called once when nothing more can be read: err is io.EOF or what
	// went wrong. Bytes that Input did not take are still in Rest. The stream
	// stays open for writing until the handler closes it.
	Ended(s *Stream, err error)
	// Flushed is called when a Write that had to wait is through, or has failed.
	Flushed(s *Stream, err error)
}

// Stream is a non-blocking descriptor with the bytes that wait on either side of
// it. An idle stream holds no buffer.
type Stream struct {
	loop    *Loop
	fd      int
	handler StreamHandler
	in, out []byte
	want    Events
	watched bool
	ended   bool
}

// Stream makes a stream of fd, which is its own from now on. Nothing is read
// before Watch or ReadNow.
func (l *Loop) Stream(fd int, h StreamHandler) *Stream {
	s := new(Stream)
	s.Open(l, fd, h)
	return s
}

// Open makes s, which is zero or closed, the stream of fd.
func (s *Stream) Open(l *Loop, fd int, h StreamHandler) {
	*s = Stream{loop: l, fd: fd, handler: h, in: s.in[:0], out: s.out[:0]}
}

// IsOpen reports whether the stream has a descriptor.
func (s *Stream) IsOpen() bool { return s.loop != nil }

// FD returns the descriptor, for inspection only.
func (s *Stream) FD() int { return s.fd }

// Watch makes the loop read the stream as bytes arrive, or stop doing so.
func (s *Stream) Watch(on bool) error {
	want := s.want &^ Readable
	if on && !s.ended {
		want |= Readable
	}
	return s.update(want)
}

func (s *Stream) update(want Events) error {
	if s.loop == nil || want == s.want {
		return nil
	}
	s.want = want
	switch {
	case want == 0:
		// Hang-ups are reported without being asked for: only removal is silence.
		s.watched = false
		s.loop.Remove(s.fd)
		return nil
	case s.watched:
		return s.loop.Change(s.fd, want)
	}
	s.watched = true
	return s.loop.Add(s.fd, want, s)
}

// Ready serves the descriptor; the loop calls it.
func (s *Stream) Ready(ev Events) {
	if ev&Writable != 0 && s.want&Writable != 0 {
		s.flush()
	}
	if s.loop != nil && ev&Readable != 0 && s.want&Readable != 0 {
		s.ReadNow()
	}
}

// ReadNow reads once and hands on what there is. Called right after accept it
// often saves watching the descriptor at all.
func (s *Stream) ReadNow() { s.ReadMore() }

// ReadMore is ReadNow and says whether there were bytes, so that there may be
// more.
func (s *Stream) ReadMore() bool {
	if s.ended {
		return false
	}
	l := s.loop
	buf := l.scratch
	if buf == nil { // an Input that looks at it reads from another stream
		buf = make([]byte, scratchSize)
	}
	l.scratch = nil
	defer func() { l.scratch = buf }()
	n, errno := rawio.Read(s.fd, buf)
	switch {
	case errno == syscall.EAGAIN:
	case errno != 0:
		s.end(errno)
	case n == 0:
		s.end(io.EOF)
	case len(s.in) > 0:
		s.in = append(s.in, buf[:n]...)
		s.Rescan()
	default:
		if taken := s.handler.Input(s, buf[:n]); s.loop != nil && taken < n {
			s.in = append(s.in, buf[taken:n]...)
		}
	}
	return n > 0
}

// Rescan offers the bytes that were not taken to Input again.
func (s *Stream) Rescan() {
	if len(s.in) == 0 {
		return
	}
	taken := s.handler.Input(s, s.in)
	if s.loop != nil {
		s.in = s.in[:copy(s.in, s.in[taken:])]
		if len(s.in) == 0 {
			s.in = nil // an idle stream holds no buffer
		}
	}
}

// Rest returns the bytes that Input has not taken.
func (s *Stream) Rest() []byte { return s.in }

func (s *Stream) end(err error) {
	s.ended = true
	// What can fail here is watching for writability, and that was watched before.
	_ = s.update(s.want &^ Readable)
	s.handler.Ended(s, err)
}

// HungUp reports whether the other side has closed both directions, so that nobody
// reads what is written here. Over TCP that cannot be known, and is never so.
func (s *Stream) HungUp() bool {
	p := struct {
		fd              int32
		events, revents int16
	}{fd: int32(s.fd)}
	var atOnce syscall.Timespec
	n, _, errno := syscall.RawSyscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&atOnce)), 0, 0, 0)
	return errno == 0 && n == 1 && p.revents&(syscall.EPOLLHUP|syscall.EPOLLERR) != 0
}

// Sight is what Look sees.
type Sight int8

const (
	LookQuiet Sight = iota // nothing to read
	LookData               // bytes
	LookEnd                // end of file or an error
)

// Look says what a read would find now. It reads to find out: a byte that was
// there is lost.
func (s *Stream) Look() Sight {
	var b [1]byte
	n, errno := rawio.Read(s.fd, b[:])
	switch {
	case errno == syscall.EAGAIN:
		return LookQuiet
	case n > 0:
		return LookData
	}
	return LookEnd
}

// Write sends b, as much as fits at once and the rest when there is room: then
// Flushed is called, and Pending tells how much is waiting until then. An error
// is final.
func (s *Stream) Write(b []byte) error {
	if s.loop == nil {
		return syscall.EBADF
	}
	if len(s.out) == 0 {
		n, errno := rawio.Write(s.fd, b)
		if errno != 0 && errno != syscall.EAGAIN {
			return errno
		}
		if b = b[n:]; len(b) == 0 {
			return nil
		}
	}
	s.out = append(s.out, b...)
	return s.update(s.want | Writable)
}

// Pending returns the number of bytes that wait to be written.
func (s *Stream) Pending() int { return len(s.out) }

func (s *Stream) flush() {
	n, errno := rawio.Write(s.fd, s.out)
	if errno == syscall.EAGAIN {
		return
	}
	if errno == 0 && n < len(s.out) {
		s.out = s.out[:copy(s.out, s.out[n:])]
		return
	}
	s.out = nil
	err := s.update(s.want &^ Writable)
	if errno != 0 {
		err = errno
	}
	s.handler.Flushed(s, err)
}

// Close closes the descriptor and drops what waits. Closing again does nothing.
func (s *Stream) Close() {
	if s.loop == nil {
		return
	}
	l := s.loop
	s.loop, s.want, s.watched = nil, 0, false
	s.in, s.out = nil, nil
	l.CloseFD(s.fd)
	s.fd = -1
}
