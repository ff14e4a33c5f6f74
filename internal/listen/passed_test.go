package listen

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// The real systemd-socket-activate passes three listeners under two names, one
// of them UNIX; the child answers on each.
func TestSocketActivate(t *testing.T) {
	tool := testenv.Path(t, "socket activation", "systemd-socket-activate")
	dir := testenv.ShortDir(t)
	paths := []string{filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "n")}
	p := testenv.Start(t, exec.Command(tool, "-l", paths[0], "-l", paths[1], "-l", paths[2],
		"--fdname=smtp:smtp:notify", "-E", childVariable+"=smtp metrics notify", self(t)))
	for i, want := range []string{"smtp", "smtp", "notify"} {
		if got := readAll(t, paths[i]); got != want {
			t.Errorf("listener %d answered %q, want %q", i, got, want)
		}
	}
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	if out := p.Output(); !strings.Contains(out, "open: notify=1 smtp=2\n") || strings.Contains(out, "left in") {
		t.Errorf("output:\n%s", out)
	}
	for _, path := range paths {
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("a passed socket was removed: %v", err)
		}
	}
}

// FS-16.
func TestSocketActivateRefused(t *testing.T) {
	tool := testenv.Path(t, "socket activation", "systemd-socket-activate")
	tests := []struct {
		name, want string
		args       []string
	}{
		{"unknown name", `no listener is named "imap" here, only smtp, notify`, []string{"--fdname=imap"}},
		{"no names", `LISTEN_FDNAMES gives no names`, nil},
		{"connected", "a socket that does not listen", []string{"--fdname=smtp", "-a"}},
		{"datagram", "not a stream socket", []string{"--fdname=smtp", "-d"}},
		{"seqpacket", "not a stream socket", []string{"--fdname=smtp", "--seqpacket"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(testenv.ShortDir(t), "s")
			args := append([]string{"-l", path, "-E", childVariable + "=smtp notify"}, tt.args...)
			p := testenv.Start(t, exec.Command(tool, append(args, self(t))...))
			poke(t, path, tt.name)
			p.WaitOutput(tt.want)
		})
	}
}

// poke makes systemd-socket-activate start its child.
func poke(t *testing.T, path, kind string) {
	t.Helper()
	network := map[string]string{"datagram": "unixgram", "seqpacket": "unixpacket"}[kind]
	if network == "" {
		network = "unix"
	}
	var conn net.Conn
	testenv.Eventually(t, "the socket", func() (ok bool) {
		c, err := testenv.Connect(network, path)
		conn = c
		return err == nil
	})
	t.Cleanup(func() { conn.Close() })
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
}

// What is passed without systemd: a file, nothing, numbers that are none.
func TestPassedByHand(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(testenv.ShortDir(t), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	socket, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()

	const me = "$$" // the child's own pid
	tests := []struct {
		name            string
		pid, fds, names string
		files           []*os.File
		status          int
		want            string
	}{
		{"another process", "1", "1", "smtp", []*os.File{socket}, 0, "open: \n"},
		{"no pid", "", "1", "smtp", []*os.File{socket}, 0, "open: \n"},
		{"none", me, "0", "", nil, 0, "open: \n"},
		{"a file", me, "1", "smtp", []*os.File{file}, 1, "passed descriptor 3 (smtp): not a socket"},
		{"far too many", me, "99999", "smtp", nil, 1, "LISTEN_FDNAMES=\"smtp\" has 1 names"},
		{"more than there are", me, "3", "smtp:smtp:smtp", nil, 1, "passed descriptor 3 (smtp): not "},
		{"negative", me, "-1", "smtp", []*os.File{socket}, 1, `LISTEN_FDS="-1" is no number`},
		{"no number", me, "abc", "smtp", []*os.File{socket}, 1, `LISTEN_FDS="abc" is no number`},
		{"names do not fit", me, "1", "smtp:", []*os.File{socket}, 1, "has 2 names"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// The shell keeps its pid when it becomes the child.
			cmd := exec.Command("sh", "-c", `LISTEN_PID=`+tt.pid+` exec "$0"`, self(t))
			cmd.Env = append(os.Environ(), childVariable+"=smtp", "LISTEN_FDS="+tt.fds, "LISTEN_FDNAMES="+tt.names)
			cmd.ExtraFiles = tt.files
			out, _, status := testenv.RunCmd(t, cmd)
			if status != tt.status || !strings.Contains(out, tt.want) || strings.Contains(out, "left in") {
				t.Errorf("status %d, output %q; want %d and %q", status, out, tt.status, tt.want)
			}
		})
	}
}

func TestPassedNames(t *testing.T) {
	env := map[string]string{"LISTEN_PID": "7", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}
	got, err := passedNames(func(k string) string { return env[k] }, 7)
	if err != nil || !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("names %q, error %v; want a, b", got, err)
	}
	if _, err := passedNames(func(k string) string { return env[k] }, 8); !errors.Is(err, errNotForUs) {
		t.Errorf("error %v, want errNotForUs", err)
	}
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// readAll connects, when the socket is there, and reads to the end.
func readAll(t *testing.T, path string) string {
	t.Helper()
	var conn net.Conn
	testenv.Eventually(t, "an answer at "+path, func() bool {
		c, err := testenv.Connect("unix", path)
		conn = c
		return err == nil
	})
	defer conn.Close()
	data, err := io.ReadAll(conn)
	if err != nil {
		t.Error(err)
	}
	return string(data)
}
