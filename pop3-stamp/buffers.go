package main

import (
	"bufio"
	"net"
	"sync"
	"time"
)

// Sizes of the buffers that are borrowed while there is something to be in them, in bytes. A session that waits for its
// client has none.
const (
	clientBuffer  = 4 << 10
	backendBuffer = 32 << 10
)

var (
	clientReaders  = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, clientBuffer) }}
	clientWriters  = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, clientBuffer) }}
	backendReaders = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, backendBuffer) }}
)

// input is what a client sends. It can be waited for without a buffer, but for a byte.
type input struct {
	conn  net.Conn
	first [1]byte
	held  bool // first was read, and is the next byte
}

// wait waits until there is something to read.
func (in *input) wait() error {
	if in.held {
		return nil
	}
	n, err := in.conn.Read(in.first[:])
	in.held = n > 0
	if in.held {
		return nil
	}
	return err
}

// Read implements [io.Reader].
func (in *input) Read(p []byte) (int, error) {
	if in.held && len(p) > 0 {
		in.held = false
		return copy(p, in.first[:]), nil
	}
	return in.conn.Read(p)
}

// await waits until the client has sent something, and borrows a buffer for it.
func (s *session) await() error {
	if s.r == nil || s.r.Buffered() == 0 {
		s.giveBack()
		if err := s.in.wait(); err != nil {
			return err
		}
	}
	s.reader()
	return nil
}

// reader returns the buffer for what the client sends.
func (s *session) reader() *bufio.Reader {
	if s.r == nil {
		s.r = clientReaders.Get().(*bufio.Reader)
		s.r.Reset(&s.in)
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
