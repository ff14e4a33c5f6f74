package rawio

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"postern/internal/testenv"
)

// pair gives both ends of a TCP connection, one of them wrapped.
func pair(t *testing.T) (c *Conn, peer net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	peer = testenv.Dial(t, "tcp4", l.Addr().String())
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c, ok := New(nc)
	if !ok {
		t.Fatal("a TCP connection has no descriptor")
	}
	t.Cleanup(func() { c.Close(); peer.Close() })
	return c, peer
}

func TestReadWaits(t *testing.T) {
	c, peer := pair(t)
	go func() {
		peer.Write([]byte("hello"))
		peer.Close()
	}()
	got, err := io.ReadAll(c)
	if string(got) != "hello" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("behind the end: %d, %v", n, err)
	}
	if n, err := c.Read(nil); n != 0 || err != nil {
		t.Errorf("read of nothing: %d, %v", n, err)
	}
}

// TestWriteByWhole writes far more than the kernel takes at once.
func TestWriteByWhole(t *testing.T) {
	pattern := bytes.Repeat([]byte("0123456789abcdefg"), 1<<18)
	for _, split := range []int{0, 1, 1000, len(pattern) - 1, len(pattern)} {
		c, peer := pair(t)
		var got []byte
		reader := testenv.Go(t, "the reader", func() (err error) { got, err = io.ReadAll(peer); return err })
		n, err := c.WriteBy(time.Now().Add(time.Minute), pattern[:split], pattern[split:])
		if n != len(pattern) || err != nil {
			t.Errorf("split at %d: wrote %d, %v", split, n, err)
		}
		c.Close()
		reader.Wait()
		if !bytes.Equal(got, pattern) {
			t.Errorf("split at %d: other bytes arrived", split)
		}
	}
	c, _ := pair(t)
	if n, err := c.Write(nil); n != 0 || err != nil {
		t.Errorf("write of nothing: %d, %v", n, err)
	}
	if n, err := c.WriteBy(time.Time{}, nil, nil); n != 0 || err != nil {
		t.Errorf("write of twice nothing: %d, %v", n, err)
	}
}

func TestDeadlines(t *testing.T) {
	c, _ := pair(t)
	testenv.Impatient(c)
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
	// Nobody reads: some is written, and the count says how much.
	big := make([]byte, 64<<20)
	n, err := c.Write(big)
	if !errors.Is(err, os.ErrDeadlineExceeded) || n >= len(big) {
		t.Errorf("write: %d, %v", n, err)
	}
	c, _ = pair(t)
	c.SetWriteDeadline(time.Unix(1, 0)) // of an earlier write
	if n, err := c.WriteBy(time.Now().Add(time.Minute), []byte("a"), []byte("b")); n != 2 || err != nil {
		t.Errorf("write that need not wait: %d, %v", n, err)
	}
	n, err = c.WriteBy(time.Now().Add(10*time.Millisecond), big, big)
	if !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 || n >= len(big) {
		t.Errorf("write that must: %d, %v", n, err)
	}
}

func TestPeek(t *testing.T) {
	c, peer := pair(t)
	peek := func(p []byte) (n int, errno syscall.Errno) {
		if err := c.raw.Control(func(fd uintptr) { n, errno = Peek(int(fd), p) }); err != nil {
			t.Fatal(err)
		}
		return n, errno
	}
	b := make([]byte, 2)
	if n, errno := peek(b); n != 0 || errno != syscall.EAGAIN {
		t.Errorf("nothing is here: %d, %v", n, errno)
	}
	peer.Write([]byte("abc"))
	for range 2 {
		if n, errno := peek(b); n != 2 || errno != 0 || string(b) != "ab" {
			t.Errorf("abc is here: %d, %v, %q", n, errno, b)
		}
	}
	if n, errno := peek(nil); n != 0 || errno != 0 {
		t.Errorf("into nothing: %d, %v", n, errno)
	}
	peer.Close()
	if got, err := io.ReadAll(c); string(got) != "abc" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	if n, errno := peek(b); n != 0 || errno != 0 {
		t.Errorf("at the end: %d, %v", n, errno)
	}
}

func TestErrors(t *testing.T) {
	c, peer := pair(t)
	peer.(*net.TCPConn).SetLinger(0)
	peer.Close() // reset
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v, want ECONNRESET", err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write: %v, want EPIPE", err)
	}
	c.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after close: %v", err)
	}
	if _, err := c.WriteBy(time.Now(), []byte("x"), nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write after close: %v", err)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if _, ok := New(a); ok {
		t.Error("a pipe in memory has a descriptor")
	}
}
