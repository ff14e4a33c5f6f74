package upstream

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"postern/internal/smtp"
)

// deafConn is a connection to a server that says what it has to say in pieces, whatever it hears.
type deafConn struct {
	net.Conn
	pieces [][]byte
}

func (c *deafConn) Read(p []byte) (int, error) {
	if len(c.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.pieces[0])
	if c.pieces[0] = c.pieces[0][n:]; len(c.pieces[0]) == 0 {
		c.pieces = c.pieces[1:]
	}
	return n, nil
}

func (c *deafConn) Write(p []byte) (int, error)      { return len(p), nil }
func (c *deafConn) Close() error                     { return nil }
func (c *deafConn) SetDeadline(time.Time) error      { return nil }
func (c *deafConn) SetReadDeadline(time.Time) error  { return nil }
func (c *deafConn) SetWriteDeadline(time.Time) error { return nil }

// accepts says whether a server that said all that has accepted a message: 220, 2xx to EHLO (or 5xx and 2xx to
// HELO), 2xx to MAIL and RCPT, 354, 2xx.
func accepts(said []byte) bool {
	b := bufio.NewReader(bytes.NewReader(said))
	code := func() int {
		r, err := smtp.ReadReply(b)
		if err != nil {
			return 0
		}
		return r.Code
	}
	if code() != 220 {
		return false
	}
	hello := code()
	if hello/100 == 5 {
		hello = code()
	}
	return hello/100 == 2 && code()/100 == 2 && code()/100 == 2 && code() == 354 && code()/100 == 2
}

// Whatever a server says, in whatever pieces: a message counts as accepted only if each command had its reply.
func FuzzServer(f *testing.F) {
	f.Add([]byte("220 a\r\n250 a\r\n250 b\r\n250 c\r\n354 d\r\n250 Ok: queued as 1\r\n"), uint8(0), false)
	f.Add([]byte("220 a\r\n250-a\r\n250 PIPELINING\r\n250 b\r\n250 c\r\n354 d\r\n550 no\r\n"), uint8(5), true)
	f.Add([]byte("220 a\r\n502 a\r\n250 b\r\n250 c\r\n250 c\r\n354 d\r\n250-x\r\n250 y\r\n"), uint8(20), false)
	f.Add([]byte("220 a\r\n250 a\r\n421 b\r\n"), uint8(1), true)
	f.Fuzz(func(t *testing.T, said []byte, size uint8, pipelined bool) {
		c := &deafConn{}
		for rest := said; len(rest) > 0; {
			n := min(len(rest), int(size)+1)
			if i := bytes.IndexByte(rest[:n], '\n'); size == 0 || size%2 == 0 && i >= 0 {
				n = max(bytes.IndexByte(rest, '\n'), 0) + 1 // a line a piece, as a server in step
			}
			c.pieces = append(c.pieces, rest[:n])
			rest = rest[n:]
		}
		set, err := New(Config{URLs: []string{"smtp://a.test"}})
		if err != nil {
			t.Fatal(err)
		}
		defer set.Close()
		set.servers[0].dialer = func(context.Context) (*stream, error) { return newStream(c), nil }
		if ok, _ := attempt(set, "content\r\n", pipelined); ok && !accepts(said) {
			t.Errorf("%q, cut %d, counts as accepted", said, size)
		}
		if open := set.Stats()[0].Open; open > 1 {
			t.Errorf("%d connections", open)
		}
	})
}
