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

// TestServiceManagerDoesNotHoldUpTheLoop: what it is told at a reread goes out when the loop
// has gone on, the end last, and is not lost when there is much to log.
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
	var told []string
	raw, err := socket.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		for n, _, err := syscall.Recvfrom(int(fd), b, syscall.MSG_DONTWAIT); err == nil; n, _, err = syscall.Recvfrom(int(fd), b, syscall.MSG_DONTWAIT) {
			told = append(told, string(b[:n]))
		}
	}); err != nil {
		t.Fatal(err)
	}
	// A status text waits for nobody, and has a goroutine of its own.
	if len(told) > 1 || len(told) == 1 && !strings.HasPrefix(told[0], "STATUS=") {
		t.Errorf("%q was sent by the loop itself", told)
	}
	release()
	testenv.Patient(socket)
	for len(told) < 3 {
		n, err := socket.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		told = append(told, string(b[:n]))
	}
	text := strings.Join(told, "\n")
	if told[2] != "READY=1" || !strings.Contains(text, "RELOADING=1") || !strings.Contains(text, "STATUS=") {
		t.Errorf("told %q, want the beginning, the outcome, and that it is over", told)
	}
}
