package upstream

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"postern/internal/rawio"
	"postern/internal/smtp"
)

// Sizes of the buffers a stream borrows, in bytes.
const (
	readBuffer    = 4 << 10
	commandBuffer = 2 << 10
	contentBuffer = 16 << 10 // larger pieces of content are written from where they are
)

var (
	readPool    = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, readBuffer) }}
	commandPool = sync.Pool{New: func() any { b := make([]byte, 0, commandBuffer); return &b }}
	contentPool = sync.Pool{New: func() any { b := make([]byte, 0, contentBuffer); return &b }}
)

// stream is a connection with buffers that are borrowed while something is in them.
type stream struct {
	nc   net.Conn
	sock net.Conn // nc, or what is below its TLS

	direct *rawio.Conn     // sock, or nil if that has no descriptor
	raw    syscall.RawConn // the socket, also below TLS; nil if there is none
	tls    bool
	r      *bufio.Reader
	out    *[]byte
	big    bool // out is of contentPool
	peek   struct {
		b   [1]byte
		n   int
		err syscall.Errno
		f   func(fd uintptr)
	}
}

func newStream(nc net.Conn) *stream {
	s := &stream{nc: nc, sock: nc}
	if direct, ok := rawio.New(nc); ok {
		s.nc, s.sock, s.direct = direct, direct, direct
		s.raw, _ = direct.SyscallConn()
	}
	s.peek.f = s.tryPeek
	return s
}

// local says whether nobody between the two ends can listen or change what is said: they are on one host.
func (s *stream) local() bool {
	if tcp, ok := s.sock.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.IP.IsLoopback()
	}
	return true // a UNIX socket, a program or a Maildir
}

// upgrade goes on within TLS. Bytes that the server sent in clear behind its reply to STARTTLS are an
// error, as they would be read as if they had come through TLS (CVE-2011-0411, response injection).
func (s *stream) upgrade(nc *tls.Conn) error {
	if s.r != nil && s.r.Buffered() > 0 {
		return fmt.Errorf("%w: %w, before the TLS handshake", ErrProtocol, errTalks)
	}
	s.giveBackReader()
	s.nc, s.tls = nc, true
	return nil
}

// readReply reads one reply, by the deadline.
func (s *stream) readReply(deadline time.Time) (smtp.Reply, error) {
	if err := s.nc.SetReadDeadline(deadline); err != nil {
		return smtp.Reply{}, err
	}
	if s.r == nil {
		s.r = readPool.Get().(*bufio.Reader)
		s.r.Reset(s.nc)
	}
	r, err := smtp.ReadReply(s.r)
	if err == nil && s.r.Buffered() == 0 {
		s.giveBackReader()
	}
	switch {
	case errors.Is(err, io.EOF):
		err = errHungUp
	case errors.Is(err, smtp.ErrReplySyntax):
		err = fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return r, err
}

// quiet looks, without waiting, whether the server has said anything that was not read, or hung up: then
// it gives errTalks or errHungUp.
func (s *stream) quiet() error {
	if s.r != nil && s.r.Buffered() > 0 {
		return errTalks
	}
	pending := false
	if s.raw != nil {
		if err := s.raw.Control(s.peek.f); err != nil {
			return err
		}
		switch {
		case s.peek.err == syscall.EAGAIN:
		case s.peek.err != 0:
			return os.NewSyscallError("peek", s.peek.err)
		case s.peek.n == 0:
			return errHungUp
		case !s.tls:
			return errTalks
		default:
			pending = true
		}
	}
	if s.tls {
		return s.quietTLS(pending)
	}
	return nil
}

func (s *stream) tryPeek(fd uintptr) {
	s.peek.n, s.peek.err = rawio.Peek(int(fd), s.peek.b[:])
}

// quietTLS is quiet for TLS, where records may have come that hold no content, such as session tickets.
// A read that runs into its deadline leaves a tls.Conn in order.
func (s *stream) quietTLS(pending bool) error {
	deadline := time.Unix(1, 0) // what came already is decoded, nothing is waited for
	if pending {
		deadline = time.Now().Add(10 * time.Millisecond)
	}
	if err := s.nc.SetReadDeadline(deadline); err != nil {
		return err
	}
	_, err := io.ReadFull(s.nc, s.peek.b[:])
	switch {
	case err == nil:
		return errTalks
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	case errors.Is(err, io.EOF):
		return errHungUp
	}
	return err
}

// command adds a line to what flush sends.
func (s *stream) command(line string) {
	if s.out == nil {
		s.out = commandPool.Get().(*[]byte)
	}
	*s.out = append(append(*s.out, line...), '\r', '\n')
}

func (s *stream) unsent() int {
	if s.out == nil {
		return 0
	}
	return len(*s.out)
}

// content adds to what flush sends. Large pieces, which smtp-proxy's are if the client is quick (64 KiB), go
// out at once and are not copied; what a slow client's content takes in memory is little.
func (s *stream) content(p []byte, timeout time.Duration) error {
	if !s.big {
		s.giveBackOut()
		s.out, s.big = contentPool.Get().(*[]byte), true
	}
	if len(*s.out)+len(p) <= contentBuffer {
		*s.out = append(*s.out, p...)
		return nil
	}
	if len(p) < contentBuffer {
		n := contentBuffer - len(*s.out)
		*s.out = append(*s.out, p[:n]...)
		p = p[n:]
	}
	if err := s.writeBoth(*s.out, p, timeout); err != nil {
		return err
	}
	*s.out = (*s.out)[:0]
	return nil
}

// writeBoth writes what is buffered and what comes behind it, in one system call where the connection can do
// that.
func (s *stream) writeBoth(buffered, p []byte, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	if !s.tls && s.direct != nil {
		_, err := s.direct.WriteBy(deadline, buffered, p)
		return err
	}
	if err := s.nc.SetWriteDeadline(deadline); err != nil {
		return err
	}
	for _, b := range [...][]byte{buffered, p} {
		if len(b) == 0 {
			continue
		}
		if _, err := s.nc.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// flush sends all that waits, in one write.
func (s *stream) flush(timeout time.Duration) error {
	if s.unsent() == 0 {
		return nil
	}
	err := s.writeBoth(*s.out, nil, timeout)
	s.giveBackOut()
	return err
}

// quit takes leave of the server, without waiting for what it says to that, and closes the connection.
func (s *stream) quit() {
	const patience = time.Second
	s.giveBackOut()
	s.command(smtp.Quit)
	if s.flush(patience) == nil {
		_ = s.nc.Close() // with TLS, ends that
	}
	s.close()
}

// close closes the connection at once; unsent bytes are lost.
func (s *stream) close() {
	_ = s.sock.Close()
	s.giveBackOut()
	s.giveBackReader()
}

func (s *stream) giveBackReader() {
	if s.r != nil {
		s.r.Reset(nil)
		readPool.Put(s.r)
		s.r = nil
	}
}

func (s *stream) giveBackOut() {
	if s.out == nil {
		return
	}
	*s.out = (*s.out)[:0]
	switch {
	case s.big:
		contentPool.Put(s.out)
	case cap(*s.out) <= 16*commandBuffer:
		commandPool.Put(s.out)
	}
	s.out, s.big = nil, false
}
