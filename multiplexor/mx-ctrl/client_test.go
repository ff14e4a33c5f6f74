package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postern/internal/testenv"
)

func TestNoMultiplexor(t *testing.T) {
	dir := testenv.ShortDir(t)
	stale := filepath.Join(dir, "stale")
	l, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const question = ": Is multiplexor running?\n"
	for _, tt := range []struct{ name, socket, want string }{
		{"no socket", filepath.Join(dir, "none"), "connect: No such file or directory" + question},
		{"connection refused", stale, "connect: Connection refused" + question},
		{"no socket but a file", file, "connect: Connection refused" + question},
		{"no directory", filepath.Join(file, "x"), "connect: Not a directory" + question},
		{"TCP refused", fmt.Sprintf("inet:%d", testenv.FreePort(t)), "connect: Connection refused" + question},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := result{"", "ERROR MXCommand: " + tt.want, 1}
			for _, command := range []string{"status", "load1", "foo", "top"} {
				if got := runAs(own, "", "-s", tt.socket, command); got != want {
					t.Errorf("%s: got %v, want %v", command, got, want)
				}
			}
			if strings.HasPrefix(tt.socket, "inet:") {
				return
			}
			if got := runAs(original, "", "-s", tt.socket, "status"); got != want {
				t.Errorf("md-mx-ctrl: got %v, want %v", got, want)
			}
			if got, want := runAs(original, "a\nb\n", "-s", tt.socket, "-i"), (result{want.stderr + want.stderr, "", 0}); got != want {
				t.Errorf("md-mx-ctrl -i: got %v, want %v", got, want)
			}
		})
	}
}

func TestErrorLine(t *testing.T) {
	dial := func(errno syscall.Errno) error {
		return fmt.Errorf("ask: %w", &connectError{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", errno)}})
	}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{dial(syscall.ENOENT), "connect: No such file or directory: Is multiplexor running?"},
		{dial(syscall.EACCES), "connect: Permission denied"},
		{dial(syscall.EPERM), "connect: Operation not permitted"},
		{dial(syscall.EPROTOTYPE), "connect: Protocol wrong type for socket: Is multiplexor running?"},
		{&connectError{errors.New("no such host")}, "no such host: Is multiplexor running?"},
		{&net.OpError{Op: "read", Err: syscall.ECONNRESET}, "read: Connection reset by peer: Is multiplexor running?"},
		{&net.OpError{Op: "write", Err: syscall.EPIPE}, "write: Broken pipe: Is multiplexor running?"},
		{errors.New("else"), "else"},
	} {
		if got := errorLine(tt.err); got != "ERROR MXCommand: "+tt.want+"\n" {
			t.Errorf("errorLine(%v) = %q, want %q", tt.err, got, tt.want)
		}
	}
}

// TestPathAsItIs: the original takes whatever -s says for a path.
func TestPathAsItIs(t *testing.T) {
	t.Chdir(testenv.ShortDir(t))
	for _, name := range []string{"unix:x", "inet:25", "@x"} {
		path := "./" + name
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if conn, err := l.Accept(); err == nil {
				io.WriteString(conn, "2\n")
				io.Copy(io.Discard, conn.(*net.UnixConn))
			}
		}()
		conn, err := dialPath(name)(context.Background())
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else {
			conn.Close()
		}
		l.Close()
	}
	got := runAs(original, "", "-s", strings.Repeat("x", 108), "status")
	if want := (result{"", "ERROR MXCommand: connect: File name too long: Is multiplexor running?\n", 1}); got != want {
		t.Errorf("long path: got %v, want %v", got, want)
	}
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			new(fake).read(conn)
			io.WriteString(conn, "2\n")
			conn.Close()
		}
	}()
	port := l.Addr().(*net.TCPAddr).Port
	for _, spec := range []string{fmt.Sprintf("inet:%d", port), fmt.Sprintf("tcp:127.0.0.1:%d", port)} {
		if got := runAs(own, "", "-s", spec, "free"); got != (result{"2\n", "", 0}) {
			t.Errorf("%s: got %v", spec, got)
		}
	}
}

func TestEndlessReply(t *testing.T) {
	written := make(chan int, 1)
	f := serve(t, func(f *fake, conn net.Conn) {
		f.read(conn)
		piece := make([]byte, 1<<16)
		total := 0
		for {
			n, err := conn.Write(piece)
			if total += n; err != nil {
				written <- total
				return
			}
		}
	})
	for _, name := range []string{own, original} {
		got := runAs(name, "", "-s", f.socket, "foo")
		want := result{"", fmt.Sprintf("ERROR MXCommand: ask the multiplexor \"foo\": reply of more than %d bytes\n", maxReply), 1}
		if got != want {
			t.Errorf("got %v, want %v", got, want)
		}
		if total := testenv.Receive(t, "the end of the reply", written); total > maxReply+1<<22 {
			t.Errorf("%d bytes were taken of a reply that may have %d", total, maxReply)
		}
	}
}

func TestTimeout(t *testing.T) {
	over := make(chan struct{})
	f := serve(t, func(f *fake, conn net.Conn) {
		f.read(conn)
		io.WriteString(conn, "some of it")
		<-over
	})
	defer close(over)
	got := runAs(own, "", "-s", f.socket, "--timeout", "50ms", "foo")
	if want := (result{"", "ERROR MXCommand: ask the multiplexor \"foo\": no answer within 50ms\n", 1}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	got = runAs(own, "", "-s", f.socket, "--timeout", "50ms", "top")
	if want := (result{"", "ERROR MXCommand: ask the multiplexor \"status\": no answer within 50ms\n", 1}); got != want {
		t.Errorf("top: got %v, want %v", got, want)
	}
}

// TestFullBacklog: the original's multiplexor has a short backlog, and a
// connection that does not fit in is waited for.
func TestFullBacklog(t *testing.T) {
	path := filepath.Join(testenv.ShortDir(t), "s")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close()
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	var full []net.Conn
	for {
		conn, err := new(net.Dialer).Dial("unix", path)
		if errors.Is(err, syscall.EAGAIN) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		full = append(full, conn)
		defer conn.Close()
	}
	got := runAs(own, "", "-s", path, "--timeout", "50ms", "free")
	if want := (result{"", "ERROR MXCommand: ask the multiplexor \"free\": no answer within 50ms\n", 1}); got != want {
		t.Errorf("nobody accepts: got %v, want %v", got, want)
	}
	done := make(chan result, 1)
	go func() { done <- runAs(original, "", "-s", path, "free") }()
	l, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range len(full) + 1 {
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if len(full) == 0 { // the last one is not of those that fill the backlog
			new(fake).read(conn)
			io.WriteString(conn, "2\n")
			conn.Close()
			break
		}
		full[0].Close()
		full = full[1:]
	}
	got = testenv.Receive(t, "the end after the backlog has room", done)
	if want := (result{"2\n", "", 0}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}
