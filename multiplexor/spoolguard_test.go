package main

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"postern/internal/evloop"
	"postern/internal/testenv"
	"postern/multiplexor/pool"
)

// TestScanOnAHangingDisk: a client does not wait longer for a lookup than for a worker,
// and what comes of the lookup later is nobody's.
func TestScanOnAHangingDisk(t *testing.T) {
	t.Parallel()
	loop, err := evloop.New()
	if err != nil {
		t.Fatal(err)
	}
	defer loop.Close()
	spool := t.TempDir()
	guard, err := newSpoolGuard(spool)
	if err != nil {
		t.Fatal(err)
	}
	defer guard.Close()
	guard.turns = make(chan struct{}, 1)
	guard.turns <- struct{}{} // nobody looks before this is taken
	s := newTestServer(t, loop, func(l *pool.Limits) { l.BusyTimeout = 50 * time.Millisecond })
	s.guard = guard
	clients := &endpoint{server: s, protocol: requestLines(s.maxLine), limit: 10}
	run := testenv.Go(t, "the loop", loop.Run)
	connect := func() net.Conn {
		fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		loop.Post(func() { clients.admit(fds[0]) })
		file := os.NewFile(uintptr(fds[1]), "client")
		defer file.Close()
		conn, err := net.FileConn(file)
		if err != nil {
			t.Fatal(err)
		}
		testenv.Patient(conn)
		return conn
	}
	// A link is looked up, and what is missing is, too.
	if err := os.Symlink(".", filepath.Join(spool, "link")); err != nil {
		t.Fatal(err)
	}
	conn := connect()
	defer conn.Close()
	io.WriteString(conn, "scan q "+spool+"/link\n")
	if reply, err := io.ReadAll(conn); string(reply) != timedOut {
		t.Errorf("a lookup without end was answered %q, %v", reply, err)
	}
	next := connect() // has the place of the first
	defer next.Close()
	io.WriteString(next, "fr")
	testenv.Receive(t, "the first lookup", guard.turns) // now the disk answers the first lookup
	passed := make(chan struct{})
	go func() {
		guard.turns <- struct{}{} // when the first has ended
		loop.Post(func() { close(passed) })
	}()
	testenv.Receive(t, "the end of the first lookup", passed)
	io.WriteString(next, "ee\n")
	if reply, err := io.ReadAll(next); string(reply) != "2\n" {
		t.Errorf("after it: %q, %v", reply, err)
	}
	loop.Post(loop.Stop)
	run.Wait()
}
