package safedir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// FS-06.
func TestCheck(t *testing.T) {
	base := t.TempDir()
	path := func(p string) string { return filepath.Join(base, p) }
	err := errors.Join(
		os.MkdirAll(path("good/sub"), 0o755),
		os.MkdirAll(path("open/sub"), 0o755), os.Chmod(path("open"), 0o777),
		os.MkdirAll(path("sticky/sub"), 0o755), os.Chmod(path("sticky"), 0o777|fs.ModeSticky),
		os.Symlink("good", path("link")),
		os.Symlink(path("open/sub"), path("linktoopen")),
		os.Symlink("loop", path("loop")),
		os.WriteFile(path("file"), nil, 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := errors.Join(os.Symlink("good", path("foreign")), os.Lchown(path("foreign"), 12345, 12345)); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		dir  string
		want error // nil: fine
	}{
		{"good/sub", nil}, {"good", nil}, {"link/sub", nil}, {"sticky/sub", nil}, {"sticky", nil},
		{"open", ErrInsecure}, {"open/sub", ErrInsecure}, {"linktoopen", ErrInsecure},
		{"missing", fs.ErrNotExist}, {"file", syscall.ENOTDIR}, {"loop", syscall.ELOOP},
	}
	if os.Geteuid() == 0 {
		tests = append(tests, struct {
			dir  string
			want error
		}{"foreign/sub", ErrInsecure})
	}
	for _, tt := range tests {
		t.Run(tt.dir, func(t *testing.T) {
			if err := Check(path(tt.dir)); !errors.Is(err, tt.want) {
				t.Errorf("Check: %v, want %v", err, tt.want)
			}
		})
	}
	if err := Private(path("sticky")); !errors.Is(err, ErrInsecure) {
		t.Errorf("Private of a sticky directory: %v", err)
	}
	if err := Private(path("good")); err != nil {
		t.Errorf("Private: %v", err)
	}
}

func TestOpenFile(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	path := func(p string) string { return filepath.Join(dir, p) }
	err = errors.Join(os.WriteFile(path("file"), []byte("x"), 0o600), os.Symlink("file", path("link")),
		os.Mkdir(path("dir"), 0o700), syscall.Mkfifo(path("fifo"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "dir", "fifo"} {
		for _, flag := range []int{os.O_RDONLY, os.O_WRONLY | os.O_APPEND} {
			if _, err := OpenFile(root, name, flag); !errors.Is(err, ErrNotRegular) {
				t.Errorf("%s: %v, want %v", name, err, ErrNotRegular)
			}
		}
	}
	for _, name := range []string{"dir/../file", ".", "..", "/etc/passwd"} {
		if _, err := OpenFile(root, name, os.O_RDONLY); err == nil {
			t.Errorf("%s was opened", name)
		}
	}
	f, err := OpenFile(root, "file", os.O_RDONLY|os.O_CREATE)
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	if _, err := OpenFile(root, "none", os.O_WRONLY|os.O_CREATE); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	for _, name := range []string{"file", "link", "dir", "fifo"} {
		if _, err := CreateFile(root, name, 0o600); !errors.Is(err, fs.ErrExist) {
			t.Errorf("create over %s: %v", name, err)
		}
	}
}
