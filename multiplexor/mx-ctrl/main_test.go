package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"postern/internal/testenv"
)

// TestMain plays the program itself for tests that need a process of it.
func TestMain(m *testing.M) {
	if os.Getenv("MX_CTRL_TEST_CHILD") != "" {
		if len(os.Args) == 4 && os.Args[1] == "shell" { // the program in a shell that has the terminal
			fmt.Fprintln(os.Stderr, syscall.Exec(os.Args[2], []string{os.Args[2], "-c", os.Args[3]}, os.Environ()))
			os.Exit(1)
		}
		main()
	}
	testenv.Main(m)
}

// fake is a multiplexor that answers every request in the same way.
type fake struct {
	socket string
	mu     sync.Mutex
	got    []string
}

func (f *fake) requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.got...)
}

// answer starts a fake whose reply to a request is what reply makes of it.
func answer(t *testing.T, reply func(request string) string) *fake {
	return serve(t, func(f *fake, conn net.Conn) {
		request := f.read(conn)
		io.WriteString(conn, reply(request))
	})
}

// read reads one request and notes it.
func (f *fake) read(conn net.Conn) string {
	var b []byte
	one := make([]byte, 1)
	for !bytes.HasSuffix(b, []byte("\n")) {
		if n, err := conn.Read(one); n == 0 || err != nil {
			break
		}
		b = append(b, one[0])
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.got = append(f.got, string(b))
	return string(b)
}

func serve(t *testing.T, session func(*fake, net.Conn)) *fake {
	f := &fake{socket: filepath.Join(testenv.ShortDir(t), "s")}
	l, err := net.Listen("unix", f.socket)
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wait.Go(func() {
				defer conn.Close()
				testenv.Patient(conn)
				session(f, conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		wait.Wait()
	})
	return f
}

// result is what a run of the program left behind.
type result struct {
	stdout, stderr string
	status         int
}

func (r result) String() string {
	return fmt.Sprintf("status %d, stdout %q, stderr %q", r.status, r.stdout, r.stderr)
}

// runAs runs the program in this process, under a name.
func runAs(name, stdin string, args ...string) result {
	var out, errOut bytes.Buffer
	status := run(append([]string{name}, args...), stdio{strings.NewReader(stdin), &out, &errOut})
	return result{out.String(), errOut.String(), status}
}

const (
	own      = "/usr/sbin/mx-ctrl"
	original = "/usr/bin/md-mx-ctrl"
)
