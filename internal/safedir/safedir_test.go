package safedir

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"postern/internal/testenv"
)

// TestFS_20_WhoMayWrite: a directory is safe if nobody but root, we, and whom the setting names can put something there or
// on the way there.
func TestFS_20_WhoMayWrite(t *testing.T) {
	base := t.TempDir()
	const stranger, named = 12345, 12346
	tests := []struct {
		name     string
		uid, gid int // of "a"
		mode     fs.FileMode
		dir      string // a is below base, and b in a
		want     error  // nil: fine
	}{
		{"ours", 0, 0, 0o755, "a", nil},
		{"ours, above", 0, 0, 0o755, "a/b", nil},
		{"for everybody", 0, 0, 0o777, "a", ErrInsecure},
		{"for everybody, above", 0, 0, 0o777, "a/b", ErrInsecure},
		{"sticky", 0, 0, 0o777 | fs.ModeSticky, "a", ErrInsecure},
		{"sticky, above", 0, 0, 0o777 | fs.ModeSticky, "a/b", nil},
		{"sticky of another, above", stranger, 0, 0o777 | fs.ModeSticky, "a/b", ErrInsecure},
		{"sticky of the one named, above", named, 0, 0o777 | fs.ModeSticky, "a/b", ErrInsecure},
		{"of another", stranger, 0, 0o755, "a", ErrInsecure},
		{"of another, above", stranger, 0, 0o755, "a/b", ErrInsecure},
		{"of the one named", named, named, 0o775, "a", nil},
		{"of the one named, above", named, named, 0o775, "a/b", nil},
		{"for another group", 0, stranger, 0o775, "a", ErrInsecure},
		{"for another group, above", 0, stranger, 0o775, "a/b", ErrInsecure},
		{"for another group to read", 0, stranger, 0o2755, "a", nil},
		{"for the group named", 0, named, 0o775, "a", nil},
		{"for our group", 0, 0, 0o775, "a", nil},
		{"for everybody to write alone", 0, 0, 0o702, "a", ErrInsecure},
		{"missing", 0, 0, 0o755, "a/none", fs.ErrNotExist},
		{"missing, above", 0, 0, 0o755, "a/none/none", fs.ErrNotExist},
		{"missing below an open one", 0, 0, 0o777, "a/none", ErrInsecure},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := filepath.Join(base, strconv.Itoa(i))
			a := filepath.Join(root, "a")
			if err := os.MkdirAll(filepath.Join(a, "b"), 0o755); err != nil {
				t.Fatal(err)
			}
			if tt.mode&fs.ModeSticky != 0 && tt.want == nil { // it counts only if it is root's
				testenv.NeedRoot(t)
			}
			if tt.uid != 0 || tt.gid != 0 {
				testenv.NeedRoot(t)
				if err := os.Chown(a, tt.uid, tt.gid); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chmod(a, tt.mode); err != nil {
				t.Fatal(err)
			}
			for name, check := range checks {
				if err := check(filepath.Join(root, tt.dir), Account{named, named}, Account{-1, -1}); !errors.Is(err, tt.want) {
					t.Errorf("%s: %v, want %v", name, err, tt.want)
				}
			}
		})
	}
}

// checks are the two ways to have a directory looked at.
var checks = map[string]func(string, ...Account) error{
	"Check": Check,
	"Open": func(dir string, also ...Account) error {
		root, err := Open(dir, also...)
		if err == nil {
			_, err = root.Stat(".")
			root.Close()
		}
		return err
	},
}

// TestFS_21_LinksOnTheWay: a link counts by whose it is, and by all that is on the way it leads.
func TestFS_21_LinksOnTheWay(t *testing.T) {
	base := t.TempDir()
	path := func(p string) string { return filepath.Join(base, p) }
	err := errors.Join(
		os.MkdirAll(path("good/sub"), 0o755),
		os.MkdirAll(path("open/sub"), 0o755), os.Chmod(path("open"), 0o777),
		os.Symlink("good", path("link")),
		os.Symlink("../good/./sub", path("good/up")),
		os.Symlink(path("link/sub"), path("twice")),
		os.Symlink(path("open/sub"), path("to open")),
		os.Symlink("loop", path("loop")),
		os.Symlink("/", path("root")),
		os.WriteFile(path("file"), nil, 0o600),
		os.Symlink("file", path("to file")),
	)
	if err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]error{
		"link": nil, "link/sub": nil, "good/up": nil, "twice": nil, "root" + base + "/good": nil, "root": nil,
		"to open": ErrInsecure, "loop": syscall.ELOOP, "file": syscall.ENOTDIR, "to file": syscall.ENOTDIR, "file/sub": syscall.ENOTDIR,
	} {
		for name, check := range checks {
			if err := check(path(dir)); !errors.Is(err, want) {
				t.Errorf("%s of %s: %v, want %v", name, dir, err, want)
			}
		}
	}
	testenv.NeedRoot(t)
	if err := errors.Join(os.Symlink("good", path("foreign")), os.Lchown(path("foreign"), 12345, 12345)); err != nil {
		t.Fatal(err)
	}
	if err := Check(path("foreign/sub")); !errors.Is(err, ErrInsecure) {
		t.Errorf("link of another user: %v", err)
	}
	if err := Check(path("foreign/sub"), Account{12345, -1}); err != nil {
		t.Errorf("link of the user named: %v", err)
	}
}

// Looking at a directory leaves no descriptor behind, whatever comes of it.
func TestCheckLeavesNothingOpen(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("loop", filepath.Join(dir, "loop")); err != nil {
		t.Fatal(err)
	}
	before := openFiles(t)
	for range 20 {
		for _, name := range []string{"", "none/none", "loop", "../.."} {
			for _, check := range checks {
				_ = check(filepath.Join(dir, name)) // what it says is of no matter here
			}
		}
	}
	if after := openFiles(t); after > before+2 {
		t.Errorf("%d files are open, before it were %d", after, before)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// opener is how files of a directory are opened and made: by an os.Root, or by a Dir.
type opener struct {
	name   string
	open   func(name string, flag int) (*os.File, error)
	create func(name string, perm fs.FileMode) (*os.File, error)
}

func openers(t *testing.T, path string) []opener {
	t.Helper()
	root, err := os.OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	dir, err := OpenDir(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	return []opener{
		{"Root", func(name string, flag int) (*os.File, error) { return OpenFile(root, name, flag) },
			func(name string, perm fs.FileMode) (*os.File, error) { return CreateFile(root, name, perm) }},
		{"Dir", dir.Open, dir.Create},
	}
}

func TestOpenFile(t *testing.T) {
	dir := t.TempDir()
	path := func(p string) string { return filepath.Join(dir, p) }
	err := errors.Join(os.WriteFile(path("file"), []byte("x"), 0o600), os.Symlink("file", path("link")),
		os.Mkdir(path("dir"), 0o700), syscall.Mkfifo(path("fifo"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	for _, by := range openers(t, dir) {
		t.Run(by.name, func(t *testing.T) {
			for _, name := range []string{"link", "dir", "fifo"} {
				for _, flag := range []int{os.O_RDONLY, os.O_WRONLY | os.O_APPEND} {
					if _, err := by.open(name, flag); !errors.Is(err, ErrNotRegular) {
						t.Errorf("%s: %v, want %v", name, err, ErrNotRegular)
					}
				}
			}
			for _, name := range []string{"dir/../file", ".", "..", "/etc/passwd"} {
				if _, err := by.open(name, os.O_RDONLY); err == nil {
					t.Errorf("%s was opened", name)
				}
			}
			f, err := by.open("file", os.O_RDONLY|os.O_CREATE)
			if err != nil {
				t.Fatal(err)
			}
			_ = f.Close()
			if _, err := by.open("none", os.O_WRONLY|os.O_CREATE); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("missing file: %v", err)
			}
			for _, name := range []string{"file", "link", "dir", "fifo"} {
				if _, err := by.create(name, 0o600); !errors.Is(err, fs.ErrExist) {
					t.Errorf("create over %s: %v", name, err)
				}
			}
			f, err = by.create("new", 0o666) // which a umask would take from
			if err != nil {
				t.Fatal(err)
			}
			info, err := f.Stat()
			if err := errors.Join(err, f.Close(), os.Remove(path("new"))); err != nil || info.Mode() != 0o666 {
				t.Errorf("made with %v, %v", info.Mode(), err)
			}
		})
	}
}

// TestDirIsWhereItWas: names are looked up in the directory that was opened, and nowhere else.
func TestDirIsWhereItWas(t *testing.T) {
	base := t.TempDir()
	path := func(p string) string { return filepath.Join(base, p) }
	root, err := os.OpenRoot(base)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	top, err := OpenDir(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := top.Mkdir("a", 0o700); err != nil {
		t.Fatal(err)
	}
	dir, info, err := top.Dir("a")
	if err != nil || !info.IsDir() {
		t.Fatal(info, err)
	}
	if err := errors.Join(os.Rename(path("a"), path("moved")), os.Symlink("moved", path("a")), os.WriteFile(path("moved/x"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := top.Dir("a"); err == nil {
		t.Error("a link was followed to a directory")
	}
	if !dir.Has("x") || dir.Has("y") || !top.Has("a") {
		t.Error("what is there is not seen, or what is not")
	}
	if err := top.RemoveDir("moved"); !errors.Is(err, syscall.ENOTEMPTY) {
		t.Errorf("remove a directory with a file: %v", err)
	}
	if err := errors.Join(dir.Remove("x"), top.Remove("a"), top.RemoveDir("moved"), dir.Close(), top.Close()); err != nil {
		t.Error(err)
	}
	if err := top.Mkdir("b", 0o700); err == nil {
		t.Error("a directory was made in a closed one")
	}
}

// TestReplace: the new file is there whole, with its rights, in the place of whatever was not a directory; who fails leaves
// nothing behind.
func TestReplace(t *testing.T) {
	base := t.TempDir()
	path := func(p string) string { return filepath.Join(base, p) }
	root, err := os.OpenRoot(base)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	dir, err := OpenDir(root)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	err = errors.Join(os.WriteFile(path("file"), []byte("old"), 0o600), os.WriteFile(path("other"), []byte("other"), 0o600),
		os.Symlink("other", path("link")), os.Mkdir(path("dir"), 0o700))
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.Open(path("file"))
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	for _, name := range []string{"new", "file", "link"} {
		if err := dir.Replace(name, ".temp", "text", 0o666); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		text, err := os.ReadFile(path(name))
		info, missing := os.Lstat(path(name))
		if err := errors.Join(err, missing); err != nil || string(text) != "text" || info.Mode() != 0o666 {
			t.Errorf("%s: %q, %v, %v, want text and 0666", name, text, info.Mode(), err)
		}
	}
	for where, f := range map[string]func() ([]byte, error){
		"who has the old file open": func() ([]byte, error) { return io.ReadAll(before) },
		"what a link was to":        func() ([]byte, error) { return os.ReadFile(path("other")) },
	} {
		if text, err := f(); err != nil || string(text) == "text" {
			t.Errorf("%s: %q, %v", where, text, err)
		}
	}
	for _, c := range []struct {
		name, temp string
		want       error
	}{
		{"file", "other", fs.ErrExist}, {"file", "link", fs.ErrExist}, {"file", "../x", fs.ErrInvalid},
		{"..", ".temp", fs.ErrInvalid}, {"dir", ".temp", syscall.EISDIR},
	} {
		if err := dir.Replace(c.name, c.temp, "text", 0o600); !errors.Is(err, c.want) {
			t.Errorf("%s by %s: %v, want %v", c.name, c.temp, err, c.want)
		}
	}
	if left, err := os.ReadDir(base); err != nil || len(left) != 5 {
		t.Errorf("in the end there are %v, %v, want 5 files", left, err)
	}
}
