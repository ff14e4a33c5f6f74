package namedfile

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"postern/internal/testenv"
)

// TestFS_23_WhatStandsAtAName: what is no small regular file is an error at once, and nothing waits for it.
func TestFS_23_WhatStandsAtAName(t *testing.T) {
	dir := testenv.ShortDir(t)
	path := func(name string) string { return filepath.Join(dir, name) }
	l, err := net.Listen("unix", path("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = errors.Join(os.WriteFile(path("file"), []byte("x"), 0o600), os.Symlink("file", path("link")), os.WriteFile(path("sparse"), nil, 0o600),
		os.Truncate(path("sparse"), 10<<30), syscall.Mkfifo(path("fifo"), 0o600), os.Symlink("fifo", path("to fifo")),
		os.Symlink("loop", path("loop")), os.Symlink("none", path("dangling")), os.WriteFile(path("full"), make([]byte, 100), 0o600),
		os.WriteFile(path("over"), make([]byte, 101), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{
		path("file"): nil, path("link"): nil, path("full"): nil, path("over"): ErrTooLarge, path("sparse"): ErrTooLarge,
		path("fifo"): ErrNotRegular, path("to fifo"): ErrNotRegular, path("socket"): ErrNotRegular, dir: ErrNotRegular, "/dev/zero": ErrNotRegular,
		"/dev/tty": ErrNotRegular, path("loop"): syscall.ELOOP, path("dangling"): fs.ErrNotExist, path("none"): fs.ErrNotExist,
	} {
		if _, _, err := Read(name, 100); !errors.Is(err, want) {
			t.Errorf("Read %s: %v, want %v", name, err, want)
		}
		if want == ErrTooLarge {
			want = nil
		}
		if _, err := Head(name, 100); !errors.Is(err, want) {
			t.Errorf("Head of %s: %v, want %v", name, err, want)
		}
	}
	if data, err := Head("/proc/loadavg", 10); err != nil || len(data) != 10 {
		t.Errorf("/proc/loadavg: %q, %v", data, err)
	}
}
