// Package testenv is the ground that tests stand on: short directories for
// sockets, free ports, waiting without sleeping, the suite's own programs
// built once, child processes that cannot outlive a test, and the list of what
// a run had to leave out. Only tests and the programs under test/ import it.
package testenv

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// maxTempDir is the longest temporary directory that leaves room for a socket
// name: a UNIX socket path has at most 107 bytes.
const maxTempDir = 40

// shortTempDir has all temporary files in /tmp if TMPDIR is too long for sockets, or has spaces, which neither make
// nor systemd's units take.
func shortTempDir() {
	if dir := os.TempDir(); len(dir) > maxTempDir || strings.ContainsAny(dir, " \t") {
		os.Setenv("TMPDIR", "/tmp")
	}
}

// ShortDir makes a directory with a short path, for UNIX sockets, and removes
// it at the end of the test. Every user may enter it, because daemons started
// by a test as root drop to another one; what is in it has its own mode.
func ShortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pt")
	if err != nil {
		t.Fatalf("make short directory: %v", err)
	}
	t.Cleanup(func() {
		var err error
		// A server that has ended may have left somebody behind who is still putting mail there.
		Eventually(t, "nobody makes files in "+dir, func() bool {
			err = os.RemoveAll(dir)
			return !errors.Is(err, syscall.ENOTEMPTY)
		})
		if err != nil {
			t.Errorf("remove short directory: %v", err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatalf("make short directory: %v", err)
	}
	return dir
}

// Root gives the top directory of the source tree, found by its go.mod.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find module root: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("find module root: no go.mod above the working directory")
		}
		dir = up
	}
}

// Ports are taken from below the range that the kernel uses for outgoing
// connections (32768 and up), so that none of those takes a port between
// FreePort and its use.
const firstPort, portCount = 20000, 12000

var given struct {
	sync.Mutex
	marks map[int]net.Listener // by the port
}

// FreePort gives a TCP port on 127.0.0.1 that nothing listens on and that no
// test process of this moment has been given before.
func FreePort(t testing.TB) int {
	t.Helper()
	given.Lock()
	defer given.Unlock()
	if given.marks == nil {
		given.marks = make(map[int]net.Listener)
	}
	for range 1000 {
		port := firstPort + rand.IntN(portCount)
		if given.marks[port] != nil {
			continue
		}
		l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		l.Close()
		// An abstract name marks the port as given, until this process ends.
		mark, err := net.Listen("unix", fmt.Sprintf("@postern-test-port-%d", port))
		if err != nil {
			continue
		}
		given.marks[port] = mark
		return port
	}
	t.Fatal("find free port: none in 1000 tries")
	return 0
}
