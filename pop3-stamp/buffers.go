package main

import (
	"bufio"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"postern/internal/rawio"
)

// Sizes of the buffers that are borrowed while there is something to be in them, in bytes. A session that waits for its
// client has none.
const (
	clientBuffer  = 4 << 10
	backendBuffer = 64 << 10 // with 32 KiB a MiB costs a third more of processor
	joinedBuffer  = 32 << 10 // of what the server says, for as long as the session is joined
)

var (
	clientReaders  = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, clientBuffer) }}
	clientWriters  = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, clientBuffer) }}
	backendReaders = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, backendBuffer) }}
)

// input is how a client is waited for: without a buffer, and within TLS, but for a byte.
type input struct {
	fd    int   // that can be read now; -1 while the connection is to be waited for
	err   error // of the read that ended the waiting
	first [1]byte
	held  bool // first was read, and is the next byte
}

// fromClient reads what the client sends.
type fromClient struct{ *session }

// Read implements [io.Reader].
func (c fromClient) Read(p []byte) (int, error) {
	switch in := &c.in; {
	case in.held && len(p) > 0:
		in.held = false
		return copy(p, in.first[:]), nil
	case in.fd < 0:
		return c.conn.Read(p)
	}
	n, errno := rawio.Read(c.in.fd, p)
	switch {
	case errno == syscall.EAGAIN:
		return 0, errno
	case errno != 0:
		return 0, os.NewSyscallError("read", errno)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// await waits until the client has sent something, and borrows a buffer for it.
func (s *session) await() error {
	if s.r != nil && s.r.Buffered() > 0 {
		return nil
	}
	s.giveBack()
	c, ok := s.conn.(*rawio.Conn)
	if !ok {
		n, err := s.conn.Read(s.in.first[:])
		if s.in.held = n > 0; !s.in.held {
			return err
		}
		s.reader()
		return nil
	}
	raw, err := c.SyscallConn()
	if err == nil {
		err = raw.Read(s.tryRead)
	}
	if err == nil {
		err = s.in.err
	}
	return err
}

// readNow reads what the client has sent. The poller calls it when there may be something; false sends it back to waiting,
// without a buffer.
func (s *session) readNow(fd uintptr) bool {
	s.in.fd = int(fd)
	_, err := s.reader().Peek(1)
	s.in.fd = -1
	if err != nil {
		s.forgetRead()
	}
	s.in.err = err
	return err != syscall.EAGAIN
}

// reader returns the buffer for what the client sends.
func (s *session) reader() *bufio.Reader {
	if s.r == nil {
		s.r = clientReaders.Get().(*bufio.Reader)
		s.r.Reset(fromClient{s})
	}
	return s.r
}

// writer returns the buffer for what the client is told.
func (s *session) writer() *bufio.Writer {
	if s.w == nil {
		s.w = clientWriters.Get().(*bufio.Writer)
		s.w.Reset(toClient{s})
	}
	return s.w
}

// toClient writes to the client, each piece with a new deadline.
type toClient struct{ *session }

func (c toClient) Write(p []byte) (int, error) {
	if err := c.conn.SetWriteDeadline(time.Now().Add(c.conf.WriteTimeout)); err != nil {
		return 0, err
	}
	return c.conn.Write(p)
}

// giveBack gives back the buffers in which there is nothing.
func (s *session) giveBack() {
	if s.r != nil && s.r.Buffered() == 0 {
		s.forgetRead()
	}
	if s.w != nil && s.w.Buffered() == 0 {
		s.forgetSaid()
	}
	if s.server != nil && s.server.buffered() == 0 {
		s.server.giveBack()
	}
}

// forgetRead gives back the buffer with what was read of the client.
func (s *session) forgetRead() {
	if s.r != nil {
		s.r.Reset(nil)
		clientReaders.Put(s.r)
		s.r = nil
	}
}

// forgetSaid gives back the buffer with what was not sent to the client.
func (s *session) forgetSaid() {
	if s.w != nil {
		s.w.Reset(nil)
		clientWriters.Put(s.w)
		s.w = nil
	}
}

// reader returns the buffer for what the server sends.
func (b *backend) reader() *bufio.Reader {
	if b.r == nil {
		b.r = backendReaders.Get().(*bufio.Reader)
		b.r.Reset(reader{b})
	}
	return b.r
}

// buffered returns how many bytes of the server were read and not used.
func (b *backend) buffered() int {
	if b.r == nil {
		return 0
	}
	return b.r.Buffered()
}

// giveBack gives the buffer back.
func (b *backend) giveBack() {
	if b.r != nil {
		b.r.Reset(nil)
		backendReaders.Put(b.r)
		b.r = nil
	}
}
