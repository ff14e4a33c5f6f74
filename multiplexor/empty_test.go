package main

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"postern/internal/evloop"
	"postern/internal/mxproto"
	"postern/internal/testenv"
)

// TestEmptyHoldsUpNobody has the disk hang while a directory is emptied. The request is one of persistent connections only.
func TestEmptyHoldsUpNobody(t *testing.T) {
	t.Parallel()
	loop, err := evloop.New()
	if err != nil {
		t.Fatal(err)
	}
	defer loop.Close()
	spool := t.TempDir()
	file := filepath.Join(spool, "aside-x", "Work", "file")
	if err := os.MkdirAll(file, 0o700); err != nil {
		t.Fatal(err)
	}
	e := newEmptier(spool)
	for range maxEmptying {
		e.turns <- struct{}{}
	}
	s := newTestServer(t, loop, nil)
	s.emptier = e
	clients, restricted := &endpoint{server: s, protocol: requestLines(s.maxLine), limit: 10}, &endpoint{server: s, protocol: requestLines(s.maxLine), limit: 10, restricted: true}
	run := testenv.Go(t, "the loop", loop.Run)
	connect := func(d *endpoint, text string) net.Conn {
		fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		loop.Post(func() { d.admit(fds[0]) })
		file := os.NewFile(uintptr(fds[1]), "client")
		defer file.Close()
		conn, err := net.FileConn(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		testenv.Patient(conn)
		io.WriteString(conn, text)
		return conn
	}
	hears := func(conn net.Conn, want string) {
		t.Helper()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
			t.Errorf("heard %q, %v; want %q", got, err, want)
		}
	}
	gone := connect(clients, "hello 2\n")
	hears(gone, "hello 2 ok\n")
	io.WriteString(gone, "empty aside-gone\n")
	conn := connect(clients, "hello 2\n")
	hears(conn, "hello 2 ok\n")
	io.WriteString(conn, "empty aside-x\nempty kept-x\nfree\n")
	hears(connect(clients, "free\n"), "2\n")
	hears(connect(restricted, "empty aside-x\n"), textPrivileged)
	gone.Close()
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
	for range maxEmptying {
		testenv.Receive(t, "a turn", e.turns)
	}
	const refusal = "error: \"empty \\\"kept-x\\\": not a directory that was put aside: invalid argument\"\n"
	var want []byte
	for _, reply := range []string{"ok\n", refusal, "2\n"} {
		want = mxproto.AppendFrame(want, []byte(reply))
	}
	hears(conn, string(want))
	if left, err := os.ReadDir(filepath.Join(spool, "aside-x")); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
	loop.Post(loop.Stop)
	run.Wait()
	if s.emptied() != 1 {
		t.Errorf("%d directories counted", s.emptied())
	}
}
