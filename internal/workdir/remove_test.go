package workdir

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func names(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range list {
		out = append(out, e.Name())
	}
	return out
}

// TestRemoveStaysInside has a worker leave links to directories outside, and directories without rights.
// FS-09.
func TestRemoveStaysInside(t *testing.T) {
	outside := t.TempDir()
	victim := filepath.Join(outside, "victim")
	if err := os.WriteFile(victim, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSpool(t)
	d := newDir(t, s)
	deep := filepath.Join(d.Path(), "Work", "a", "b")
	err := errors.Join(os.MkdirAll(deep, 0o700),
		os.Symlink(outside, filepath.Join(d.Path(), "tmp")),
		os.Symlink("../../../..", filepath.Join(deep, "up")),
		os.Link(victim, filepath.Join(deep, "hard")),
		os.Chmod(deep, 0), os.Chmod(filepath.Dir(deep), 0o100))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Remove(); err != nil {
		t.Fatal(err)
	}
	if left := names(t, s.Dir); len(left) != 0 {
		t.Errorf("left in the spool: %q", left)
	}
	if _, err := os.Stat(victim); err != nil {
		t.Errorf("outside: %v", err)
	}
}

// TestRemoveReplaced has the directory itself replaced by a link.
func TestRemoveReplaced(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "victim"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSpool(t)
	d := newDir(t, s)
	if err := errors.Join(os.RemoveAll(d.Path()), os.Symlink(outside, d.Path())); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove(); err != nil {
		t.Fatal(err)
	}
	if got := names(t, outside); len(got) != 1 {
		t.Errorf("outside has %q", got)
	}
}

func TestDoNotDelete(t *testing.T) {
	s := newSpool(t)
	d := newDir(t, s)
	if err := os.WriteFile(filepath.Join(s.Dir, "DO-NOT-DELETE-WORK-DIRS"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(d.Path(), "COMMANDS")); err != nil {
		t.Error(err)
	}
}

// TestRemoveDeep removes trees that are deeper than there are descriptors, and longer than a path may be.
func TestRemoveDeep(t *testing.T) {
	s := newSpool(t)
	d := newDir(t, s)
	for _, branch := range []string{"a", "b"} {
		dir, err := os.OpenRoot(d.Path())
		if err != nil {
			t.Fatal(err)
		}
		for depth := range 1000 {
			name := strings.Repeat(branch, 1+depth%200)
			err := errors.Join(dir.Mkdir(name, 0o700), dir.WriteFile("handed-up.1", nil, 0o600), dir.Symlink("..", branch+"-link"))
			if err != nil {
				t.Fatal(err)
			}
			inner, err := dir.OpenRoot(name)
			if err != nil {
				t.Fatal(err)
			}
			if depth%7 == 1 {
				err = dir.Chmod(".", 0o100)
			}
			if err := errors.Join(err, dir.Close()); err != nil {
				t.Fatal(err)
			}
			dir = inner
		}
		_ = dir.Close()
	}
	// The process has as many descriptors as it uses now, and few more.
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	few := limit
	few.Cur = uint64(len(names(t, "/proc/self/fd"))) + 8
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	err := d.Remove()
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if left := names(t, s.Dir); len(left) != 0 {
		t.Errorf("left in the spool: %q", left)
	}
}

// TestRemoveManyFiles has more files than are listed at once, on two levels.
func TestRemoveManyFiles(t *testing.T) {
	s := newSpool(t)
	d := newDir(t, s)
	work := filepath.Join(d.Path(), "Work")
	if err := os.Mkdir(work, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 2*entriesAtOnce + 1 {
		for _, dir := range []string{d.Path(), work} {
			if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := d.Remove(); err != nil {
		t.Fatal(err)
	}
	if left := names(t, s.Dir); len(left) != 0 {
		t.Errorf("left in the spool: %q", left)
	}
}

// TestRemoveWithoutDescriptors has a directory that cannot be removed for want of descriptors: a sweep does it later.
func TestRemoveWithoutDescriptors(t *testing.T) {
	s := newSpool(t)
	s.AsideAge = time.Nanosecond
	d := newDir(t, s)
	if err := os.MkdirAll(filepath.Join(d.Path(), "Work", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	var err error
	withoutDescriptors(t, func() { err = d.Remove() })
	if err == nil {
		t.Error("removed without a descriptor")
	}
	if left := names(t, s.Dir); len(left) != 1 || !strings.HasPrefix(left[0], "aside-") {
		t.Errorf("left in the spool: %q", left)
	}
	if n, err := s.Sweep(t.Context()); n != 1 || err != nil {
		t.Errorf("swept %d, %v", n, err)
	}
	if left := names(t, s.Dir); len(left) != 0 {
		t.Errorf("left after the sweep: %q", left)
	}
}

// withoutDescriptors calls f while the process can open nothing.
func withoutDescriptors(t *testing.T, f func()) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 0
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	f()
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
}

// crash leaves a directory as a process does that is killed.
func crash(t *testing.T, d *Dir) {
	t.Helper()
	d.closeFiles()
	_ = d.dir.Close()
	d.removed = true
}

// TestSweep has directories in all stages of a message, of front ends that live and of some that were killed.
func TestSweep(t *testing.T) {
	s := newSpool(t)
	ofTheLiving := []*Dir{newDir(t, s), finish(t, s, "Subject: x\r\n\r\n", 0)}
	ofTheDead := []*Dir{newDir(t, s), finish(t, s, "Subject: x\r\n\r\n", 0)}
	for _, d := range ofTheDead {
		crash(t, d)
	}
	busy := newDir(t, s)
	busy.Abandon()
	if err := busy.Remove(); err != nil {
		t.Fatal(err)
	}
	aside := filepath.Join(s.Dir, strings.Replace(filepath.Base(busy.Path()), "mdefang-", "aside-", 1))
	old := time.Now().Add(-25 * time.Hour)
	empty, oldEmpty := filepath.Join(s.Dir, "mdefang-empty"), filepath.Join(s.Dir, "mdefang-oldempty")
	stays := []string{aside, empty, filepath.Join(s.Dir, "kept-x"), filepath.Join(s.Dir, "other")}
	err := errors.Join(os.Mkdir(stays[2], 0o700), os.Mkdir(stays[3], 0o700), os.Mkdir(empty, 0o700), os.Mkdir(oldEmpty, 0o700),
		os.WriteFile(filepath.Join(stays[2], fileCommands), nil, 0o600), os.WriteFile(filepath.Join(stays[3], fileCommands), nil, 0o600),
		os.Chtimes(oldEmpty, old, old), os.Chtimes(stays[2], old, old), os.Chtimes(stays[3], old, old),
		os.Symlink(t.TempDir(), filepath.Join(s.Dir, "mdefang-link")))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range ofTheLiving {
		stays = append(stays, d.Path())
		if err := os.Chtimes(d.Path(), old, old); err != nil { // a very slow client
			t.Fatal(err)
		}
	}
	if n, err := s.Sweep(t.Context()); n != 3 || err != nil {
		t.Errorf("swept %d, %v; want the two of the dead and the old one without files", n, err)
	}
	for _, p := range stays {
		if _, err := os.Stat(p); err != nil {
			t.Error(err)
		}
	}
	if err := os.Chtimes(aside, old, old); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Sweep(t.Context()); n != 1 || err != nil {
		t.Errorf("swept %d, %v; want the one put aside", n, err)
	}
}
