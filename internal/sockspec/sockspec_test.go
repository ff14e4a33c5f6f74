package sockspec

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postern/internal/testenv"
)

func TestParse(t *testing.T) {
	tests := []struct {
		in, network, address, text string
		loopback                   bool
	}{
		{"/run/x.sock", "unix", "/run/x.sock", "/run/x.sock", true},
		{"unix:/run/x.sock", "unix", "/run/x.sock", "/run/x.sock", true},
		{"local:/run/x.sock", "unix", "/run/x.sock", "/run/x.sock", true},
		{"unix:x.sock", "unix", "x.sock", "unix:x.sock", true},
		{"x.sock", "unix", "x.sock", "unix:x.sock", true},
		{"./a:b", "unix", "./a:b", "unix:./a:b", true},
		{"unix:inet:1", "unix", "inet:1", "unix:inet:1", true},
		{"inet:25", "tcp4", "127.0.0.1:25", "inet:25", true},
		{"inet_any:25", "tcp4", "0.0.0.0:25", "inet_any:25", false},
		{"inet6:65535", "tcp6", "[::1]:65535", "inet6:65535", true},
		{"inet6_any:1", "tcp6", "[::]:1", "inet6_any:1", false},
		{"tcp:mx.example.net:25", "tcp", "mx.example.net:25", "tcp:mx.example.net:25", false},
		{"tcp:[2001:db8::1]:25", "tcp", "[2001:db8::1]:25", "tcp:[2001:db8::1]:25", false},
		{"tcp:127.0.0.2:0", "tcp", "127.0.0.2:0", "tcp:127.0.0.2:0", true},
		{"tcp:localhost:25", "tcp", "localhost:25", "tcp:localhost:25", true},
		{"tcp:[::ffff:127.0.0.1]:25", "tcp", "[::ffff:127.0.0.1]:25", "tcp:[::ffff:127.0.0.1]:25", true},
		{"tcp:*:25", "tcp", ":25", "tcp::25", false},
		{"tcp::25", "tcp", ":25", "tcp::25", false},
		{"/" + strings.Repeat("p", MaxPath-1), "unix", "/" + strings.Repeat("p", MaxPath-1), "/" + strings.Repeat("p", MaxPath-1), true},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			got, err := Parse(tt.in)
			if err != nil {
				t.Fatalf("Parse(%q): %v", tt.in, err)
			}
			if got != (Spec{tt.network, tt.address}) {
				t.Errorf("Parse(%q) = %+v, want %s %s", tt.in, got, tt.network, tt.address)
			}
			if got.String() != tt.text {
				t.Errorf("Parse(%q).String() = %q, want %q", tt.in, got.String(), tt.text)
			}
			if got.IsLoopback() != tt.loopback {
				t.Errorf("Parse(%q).IsLoopback() = %v", tt.in, got.IsLoopback())
			}
			again, err := Parse(got.String())
			if err != nil || again != got {
				t.Errorf("Parse(%q) = %+v, %v; want %+v back", got.String(), again, err, got)
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", "empty"},
		{"unix:", "no path"},
		{"inet:", "invalid port"},
		{"inet:0", "invalid port"},
		{"inet:65536", "invalid port"},
		{"inet:+25", "invalid port"},
		{"inet:025", "invalid port"},
		{"inet:smtp", "invalid port"},
		{"inet:127.0.0.1:25", "write tcp:127.0.0.1:25 for"},
		{"inet_any:[::1]:25", "write tcp:[::1]:25 for"},
		{"inet:99999999999999999999", "invalid port"},
		{"tcp:25", "want tcp:HOST:PORT"},
		{"tcp:::1:25", "want tcp:HOST:PORT"},
		{"tcp:a b:25", "bad host"},
		{"tcp:[[x]:25", "want tcp:HOST:PORT"},
		{"udp:host:25", "unknown form"},
		{"inet-any:25", "unknown form"},
		{"/a\x00b", "NUL"},
		{"/" + strings.Repeat("p", MaxPath), "108 bytes long"},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			got, err := Parse(tt.in)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Parse(%q) = %+v, %v; want an error with %q", tt.in, got, err, tt.want)
			}
		})
	}
}

func TestDial(t *testing.T) {
	path := filepath.Join(testenv.ShortDir(t), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	any4, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer any4.Close()
	_, port, _ := net.SplitHostPort(any4.Addr().String())

	for _, text := range []string{path, "inet:" + port, "inet_any:" + port, "tcp:127.0.0.1:" + port} {
		spec, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		c, err := spec.Dial(context.Background())
		if err != nil {
			t.Errorf("Dial %s: %v", text, err)
			continue
		}
		c.Close()
	}

	_, err = Spec{"unix", path + ".gone"}.Dial(context.Background())
	if want := "connect to " + path + ".gone: connect: no such file or directory"; err == nil || err.Error() != want {
		t.Errorf("Dial of a missing socket: %v, want %s", err, want)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"/run/x", "unix:x", "inet:25", "inet6_any:1", "tcp:[::1%eth0]:25", "tcp:*:0", "a:b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		spec, err := Parse(s)
		if err != nil {
			return
		}
		if spec.IsUnix() && len(spec.Address) > MaxPath {
			t.Fatalf("Parse(%q) let a path of %d bytes through", s, len(spec.Address))
		}
		again, err := Parse(spec.String())
		if err != nil || again != spec {
			t.Fatalf("Parse(%q) = %+v, its text %q reads as %+v, %v", s, spec, spec.String(), again, err)
		}
	})
}

// A full backlog is waited for, as a blocking connect would, and no longer than
// the context allows.
func TestDialFullBacklog(t *testing.T) {
	path := filepath.Join(testenv.ShortDir(t), "s")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	spec := Spec{Network: "unix", Address: path}
	first, err := spec.Dial(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()

	ctx, cancel := testenv.Soon(t.Context())
	defer cancel()
	if c, err := spec.Dial(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Dial with a full backlog gave %v, %v; want a deadline error", c, err)
	}

	connect := testenv.Go(t, "Dial after room was made", func() error {
		c, err := spec.Dial(context.Background())
		if err == nil {
			c.Close()
		}
		return err
	})
	accepted, _, err := syscall.Accept(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(accepted)
	connect.Wait()
}
