package testenv

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Activation holds a listening socket as systemd does for a service: programs come and go, and clients that connect
// meanwhile wait in the backlog.
type Activation struct {
	Addr string // host:port

	name string
	file *os.File
}

// Activate listens on a port of 127.0.0.1, for a listener of that name.
func Activate(t testing.TB, name string) *Activation {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // the file goes on
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return &Activation{Addr: l.Addr().String(), name: name, file: file}
}

// Command prepares a program that gets the socket, with the variables of sd_listen_fds(3). LISTEN_PID must be its own
// process id, so a shell sets it and becomes the program.
func (a *Activation) Command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command("/bin/sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, program}, args...)...)
	cmd.ExtraFiles = []*os.File{a.file} // descriptor 3
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "LISTEN_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "LISTEN_FDS=1", fmt.Sprintf("LISTEN_FDNAMES=%s", a.name))
	return cmd
}
