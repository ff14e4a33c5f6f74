package atomicfile

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// only fails if dir holds anything but the names.
func only(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(names, " ") {
		t.Errorf("directory holds %q, want %q", got, names)
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	defer syscall.Umask(syscall.Umask(0o077))
	for name, write := range map[string]func(string, []byte, os.FileMode) error{"Write": Write, "WriteSync": WriteSync} {
		for _, text := range []string{"first", "", "second, longer"} {
			must(t, write(path, []byte(text), 0o644))
			data, err := os.ReadFile(path)
			if err != nil || string(data) != text {
				t.Errorf("%s: read %q, %v; want %q", name, data, err, text)
			}
			if info, err := os.Stat(path); err != nil || info.Mode() != 0o644 {
				t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
			}
		}
	}
	only(t, dir, "f")
}

// Links at the place are replaced and never followed.
func TestWriteReplacesLinks(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	must(t, os.WriteFile(target, []byte("untouched"), 0o600))
	must(t, os.Symlink(target, filepath.Join(dir, "soft")))
	must(t, os.Link(target, filepath.Join(dir, "hard")))
	must(t, os.Symlink(filepath.Join(dir, "nowhere"), filepath.Join(dir, "dangling")))
	for _, name := range []string{"soft", "hard", "dangling"} {
		must(t, Write(filepath.Join(dir, name), []byte("new"), 0o600))
		if info, err := os.Lstat(filepath.Join(dir, name)); err != nil || !info.Mode().IsRegular() {
			t.Errorf("%s is %v, %v", name, info.Mode(), err)
		}
	}
	if data, err := os.ReadFile(target); err != nil || string(data) != "untouched" {
		t.Errorf("target holds %q, %v", data, err)
	}
	only(t, dir, "dangling", "hard", "soft", "target")
}

func TestWriteErrors(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "d"), 0o700))
	if err := Write(filepath.Join(dir, "d"), nil, 0o600); err == nil || !strings.Contains(err.Error(), "write d: ") {
		t.Errorf("a directory in the place: %v", err)
	}
	if err := Write(filepath.Join(dir, "none", "f"), nil, 0o600); err == nil {
		t.Error("no error without the directory")
	}
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	for _, name := range []string{"", ".", "..", "/", "a/b", "../x", "/x"} {
		if err := WriteAt(root, name, nil, 0o600); err == nil {
			t.Errorf("no error for the name %q", name)
		}
	}
	only(t, dir, "d")
}

// A directory that was renamed, with another in its place, still gets the file.
func TestWriteAt(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "a"), 0o700))
	root, err := os.OpenRoot(filepath.Join(dir, "a"))
	must(t, err)
	defer root.Close()
	must(t, os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "b")))
	must(t, os.Mkdir(filepath.Join(dir, "a"), 0o700))
	must(t, WriteAt(root, "f", []byte("x"), 0o600))
	only(t, filepath.Join(dir, "a"))
	only(t, filepath.Join(dir, "b"), "f")
}

// Readers see one of the contents, whole, while several writers are at work.
func TestReadersSeeWholeFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	must(t, Write(path, bytes.Repeat([]byte{'0'}, 1000), 0o600))
	var done atomic.Bool
	var readers, writers sync.WaitGroup
	readers.Go(func() {
		for !done.Load() {
			data, err := os.ReadFile(path)
			if err != nil || len(data)%1000 != 0 || len(data) == 0 || len(bytes.Trim(data, string(data[:1]))) != 0 {
				t.Errorf("read %d bytes, %v", len(data), err)
				return
			}
		}
	})
	for i := range 3 {
		writers.Go(func() {
			for n := range 200 {
				if err := Write(path, bytes.Repeat([]byte{byte('a' + i)}, 1000*(1+n%50)), 0o600); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	writers.Wait()
	done.Store(true)
	readers.Wait()
	only(t, dir, "f")
}
