package pidfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"postern/internal/safedir"
	"postern/internal/testenv"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// check reads the pid file and looks for anything left beside it.
func check(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if want := fmt.Sprintf("%d\n", os.Getpid()); err != nil || string(data) != want {
		t.Errorf("pid file holds %q, %v; want %q", data, err, want)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != Mode || info.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid()) {
		t.Errorf("mode %v, owner %d, %v", info.Mode(), info.Sys().(*syscall.Stat_t).Uid, err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("directory holds %v, %v", entries, err)
	}
}

// FS-03: the file is whole, of the one who wrote it, with rights that do not depend on the umask.
func TestWriteAndRemove(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.pid")
	defer syscall.Umask(syscall.Umask(0o077))
	for _, old := range []string{"", "12345\n", "a long text, no pid at all"} {
		if old != "" {
			must(t, os.WriteFile(path, []byte(old), 0o600))
		}
		f, err := Write(path)
		must(t, err)
		check(t, path)
		must(t, f.Remove())
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("still there after Remove: %v", err)
		}
	}
}

// FS-01 and FS-02: what may lie in wait at the path, in directories of various
// owners. Nothing may be touched.
func TestRefused(t *testing.T) {
	tests := []struct {
		name string
		make func(t *testing.T, path, target string)
		want string
	}{
		{"symlink", func(t *testing.T, path, target string) { must(t, os.Symlink(target, path)) }, "there is a symbolic link"},
		{"dangling symlink", func(t *testing.T, path, target string) { must(t, os.Symlink(target+".none", path)) }, "there is a symbolic link"},
		{"relative symlink", func(t *testing.T, path, target string) { must(t, os.Symlink(filepath.Base(path)+".2", path)) }, "there is a symbolic link"},
		{"hard link", func(t *testing.T, path, target string) { must(t, os.Link(target, path)) }, "2 names"},
		{"FIFO", func(t *testing.T, path, target string) { must(t, syscall.Mkfifo(path, 0o600)) }, "there is a FIFO"},
		{"directory", func(t *testing.T, path, target string) { must(t, os.Mkdir(path, 0o700)) }, "there is a directory"},
	}
	modes := map[string]func(t *testing.T, dir string){
		"own": func(t *testing.T, dir string) {},
		"foreign": func(t *testing.T, dir string) {
			if os.Geteuid() == 0 {
				must(t, os.Chown(dir, 65534, 65534))
			}
		},
	}
	for dirName, dirMode := range modes {
		for _, tt := range tests {
			t.Run(tt.name+" in "+dirName+" directory", func(t *testing.T) {
				base := t.TempDir()
				dir, target := filepath.Join(base, "d"), filepath.Join(base, "target")
				must(t, os.Mkdir(dir, 0o755))
				dirMode(t, dir)
				must(t, os.WriteFile(target, []byte("untouched"), 0o600))
				path := filepath.Join(dir, "x.pid")
				tt.make(t, path, target)
				before, err := os.Lstat(path)
				must(t, err)
				refused(t, path, tt.want)
				if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) || after.Mode() != before.Mode() {
					t.Errorf("what was there was touched: %v", err)
				}
				if data, err := os.ReadFile(target); err != nil || string(data) != "untouched" {
					t.Errorf("target holds %q, %v", data, err)
				}
				for _, made := range []string{target + ".none", path + ".2"} {
					if _, err := os.Lstat(made); !os.IsNotExist(err) {
						t.Errorf("%s was made", made)
					}
				}
			})
		}
	}
}

func refused(t *testing.T, path, want string) {
	t.Helper()
	write := testenv.Go(t, "Write", func() error {
		f, err := Write(path, safedir.Account{UID: 65534, GID: 65534})
		if err == nil {
			f.Remove()
		}
		return err
	})
	if err := write.Err(); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "pid file "+path+": ") {
		t.Errorf("error %v, want %q", err, want)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) > 1 {
		t.Errorf("directory holds %v, %v", entries, err)
	}
}

func TestRefusedDirectory(t *testing.T) {
	dir := t.TempDir()
	if _, err := Write(filepath.Join(dir, "none", "x.pid")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v without a directory", err)
	}
	must(t, os.Chmod(dir, 0o777))
	refused(t, filepath.Join(dir, "x.pid"), "writable for everybody")
	must(t, os.Chmod(dir, 0o777|os.ModeSticky))
	refused(t, filepath.Join(dir, "x.pid"), "writable for everybody")
	must(t, os.Chmod(dir, 0o755))
	testenv.NeedRoot(t)
	must(t, os.Chown(dir, 12345, 12345))
	refused(t, filepath.Join(dir, "x.pid"), "belongs to user 12345")
}

func TestSecondCopy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.pid")
	f, err := Write(path)
	must(t, err)
	_, err = Write(path)
	if want := fmt.Sprintf("another copy is running (pid %d)", os.Getpid()); !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %s", err, want)
	}
	check(t, path)
	must(t, f.Remove())
	f, err = Write(path)
	must(t, err)
	must(t, f.Remove())
}

// The lock goes with the process, however it ends; its children do not keep it.
func TestLockEndsWithProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.pid")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+path)
	p := testenv.Start(t, cmd)
	p.WaitOutput("written")
	if _, err := Write(path); !errors.Is(err, ErrRunning) {
		t.Errorf("error %v while the other process runs", err)
	}
	p.Stop(syscall.SIGKILL)
	p.Wait()
	f, err := Write(path)
	must(t, err)
	check(t, path)
	must(t, f.Remove())
}

const childVariable = "PIDFILE_TEST_CHILD"

func TestMain(m *testing.M) {
	if path, ok := os.LookupEnv(childVariable); ok {
		if _, err := Write(path); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		// The grandchild outlives a SIGKILL to us by a moment, with what it inherits.
		grandchild := exec.Command("sleep", "3")
		if err := grandchild.Start(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("written")
		select {}
	}
	testenv.Main(m)
}

// Readers of a pid file can lock it in their ways; that does not look like a
// running process.
func TestLockOfReader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.pid")
	must(t, os.WriteFile(path, []byte("1\n"), Mode))
	reader, err := os.Open(path)
	must(t, err)
	defer reader.Close()
	must(t, syscall.Flock(int(reader.Fd()), syscall.LOCK_EX))
	must(t, unix.FcntlFlock(reader.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_RDLCK}))
	if lock(reader) {
		t.Error("a reader got the write lock")
	}
	f, err := Write(path)
	must(t, err)
	check(t, path)
	must(t, f.Remove())
}

// Of copies that start together one wins, whatever was there.
func TestStartTogether(t *testing.T) {
	for i := range 30 {
		path := filepath.Join(t.TempDir(), "x.pid")
		if i%2 == 0 {
			must(t, os.WriteFile(path, []byte("1\n"), 0o600))
		}
		var wins atomic.Int32
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				f, err := Write(path)
				if err == nil {
					wins.Add(1)
					t.Cleanup(func() { f.Remove() })
				} else if !errors.Is(err, ErrRunning) && !strings.Contains(err.Error(), "keep changing") && !strings.Contains(err.Error(), "2 names") {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if wins.Load() != 1 {
			t.Fatalf("%d of 8 copies got the pid file", wins.Load())
		}
		check(t, path)
	}
}

// A pid file that another program took over meanwhile stays.
func TestRemoveLeavesForeignFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.pid")
	f, err := Write(path)
	must(t, err)
	must(t, os.Remove(path))
	must(t, os.WriteFile(path, []byte("7\n"), 0o644))
	must(t, f.Remove())
	if data, err := os.ReadFile(path); err != nil || string(data) != "7\n" {
		t.Errorf("the other file: %q, %v", data, err)
	}
}

// A second Remove leaves the file of the process that has come meanwhile.
func TestRemoveTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.pid")
	first, err := Write(path)
	must(t, err)
	must(t, first.Remove())
	second, err := Write(path)
	must(t, err)
	must(t, first.Remove())
	check(t, path)
	if _, err := Write(path); !errors.Is(err, ErrRunning) {
		t.Errorf("a third copy: %v", err)
	}
	must(t, second.Remove())
}

// Without rights in the directory Remove says so and leaves no number of a process
// that has ended.
func TestRemoveWithoutRights(t *testing.T) {
	testenv.NeedRoot(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "x.pid")
	f, err := Write(path)
	must(t, err)
	remove := testenv.Go(t, "Remove", func() error {
		// The rights over files are those of the thread; it is not used again,
		// since the goroutine ends without unlocking it.
		lockedUser(65534)
		return f.Remove()
	})
	if err := remove.Err(); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("error %v, want a lack of permission", err)
	}
	if data, err := os.ReadFile(path); err != nil || len(data) > 0 {
		t.Errorf("the file holds %q, %v", data, err)
	}
	next, err := Write(path)
	must(t, err)
	must(t, f.Remove())
	check(t, path)
	must(t, next.Remove())
}

// TestAdopt: the file of a process that makes way is that of the next one, unless somebody has put another one there.
func TestAdopt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	first, err := Write(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.f.Truncate(100); err != nil {
		t.Fatal(err)
	}
	passed, err := unix.Dup(first.Descriptor())
	if err != nil {
		t.Fatal(err)
	}
	next, err := Adopt(path, os.NewFile(uintptr(passed), "passed"))
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 100 || next.Path() != path {
		t.Errorf("written too early: %v, %v at %s", info, err, next.Path())
	}
	first.Leave()
	if err := next.Take(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != fmt.Sprintf("%d\n", os.Getpid()) {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := Write(path); !errors.Is(err, ErrRunning) {
		t.Errorf("while it is held: %v", err)
	}
	if err := next.Remove(); err != nil {
		t.Error(err)
	}
	other, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	gone, err := os.Create(path + "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Adopt(path, gone); err == nil {
		t.Error("another file was adopted")
	}
	if text, err := os.ReadFile(path); err != nil || len(text) != 0 {
		t.Errorf("it holds %q, %v", text, err)
	}
}
