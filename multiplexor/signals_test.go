package main

import (
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postern/internal/daemon"
	"postern/internal/evloop"
	"postern/internal/testenv"
)

// TestServiceManagerDoesNotHoldUpTheLoop: what it is told at a reread goes out when
// the loop has gone on, in order, and is not lost when there is much to log.
func TestServiceManagerDoesNotHoldUpTheLoop(t *testing.T) {
	path := filepath.Join(testenv.ShortDir(t), "n")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	e, release := blocked()
	defer e.Close()
	defer release()
	loop, err := evloop.New()
	if err != nil {
		t.Fatal(err)
	}
	defer loop.Close()
	d := &multiplexor{manager: daemon.NewNotifier(), pool: newTestServer(t, loop, nil).pool, work: e, settings: &settings{}}
	defer d.manager.Close()
	d.pool.OnReread = d.rereadEnded
	d.signalled(syscall.SIGINT)
	if !strings.Contains(string(d.pool.AppendHealth(nil)), "Rereads 1\n") {
		t.Error("no reread")
	}
	b := make([]byte, 100)
	raw, err := socket.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		if n, _, err := syscall.Recvfrom(int(fd), b, syscall.MSG_DONTWAIT|syscall.MSG_PEEK); err == nil {
			t.Errorf("%q was sent by the loop itself", b[:n])
		}
	}); err != nil {
		t.Fatal(err)
	}
	release()
	testenv.Patient(socket)
	for _, want := range []string{"RELOADING=1", "STATUS=", "READY=1"} {
		if n, err := socket.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), want) {
			t.Errorf("%q, %v, want %s", b[:n], err, want)
		}
	}
}
