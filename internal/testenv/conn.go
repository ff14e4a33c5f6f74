package testenv

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// Dial connects to a server that listens, and ends the test if that is not possible. What is read and written on the
// connection must come within Patience, and before the test's time limit; it is closed at the end of the test.
func Dial(t testing.TB, network, address string) net.Conn {
	t.Helper()
	w := beginWait(t, "a connection to "+network+" "+address)
	defer w.end()
	conn, err := connect(network, address, w.until)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	onHang(t, func() { conn.Close() })
	return conn
}

// Connect is Dial for a server that may not be there, and for any goroutine.
func Connect(network, address string) (net.Conn, error) {
	return connect(network, address, time.Now().Add(Patience))
}

// connect waits out a full backlog, which is an error at once on a UNIX socket (EAGAIN), as TCP does.
func connect(network, address string, deadline time.Time) (net.Conn, error) {
	dialer := net.Dialer{Deadline: deadline}
	for {
		conn, err := dialer.Dial(network, address)
		if errors.Is(err, syscall.EAGAIN) && time.Now().Before(deadline) {
			time.Sleep(5 * time.Millisecond)
			continue
		}
		if err != nil {
			return nil, err
		}
		return conn, conn.SetDeadline(deadline)
	}
}

// Patient sets a deadline on a connection or file after which what must come has not come.
func Patient(c interface{ SetDeadline(time.Time) error }) error {
	return c.SetDeadline(time.Now().Add(Patience))
}

// Impatient sets a deadline on a connection after which nothing has come, or gone, at once: for what must not.
func Impatient(c interface{ SetDeadline(time.Time) error }) error {
	return c.SetDeadline(time.Now().Add(aMoment))
}

// IsClosed reports whether err says that the other side has ended the connection: which of the several errors it is
// depends on what was on its way at that moment. A time limit is none of them.
func IsClosed(err error) bool {
	for _, closed := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED} {
		if errors.Is(err, closed) {
			return true
		}
	}
	return false
}

// ReadAll is io.ReadAll for a connection that the other side ends, in whatever way.
func ReadAll(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(r)
	if IsClosed(err) {
		err = nil
	}
	return text, err
}

// Silent reports whether nothing can be read within a moment. Like NotYet it sees what comes too early, if not on every
// machine. Afterwards the connection is as Dial makes it.
func Silent(conn net.Conn) bool {
	_ = Impatient(conn)
	n, err := conn.Read(make([]byte, 1))
	_ = Patient(conn)
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded)
}
