package workdir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
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

func TestKeep(t *testing.T) {
	s := newSpool(t)
	d := newDir(t, s)
	d.Keep("not wanted")
	_ = d.Remove()
	if left := names(t, s.Dir); len(left) != 0 {
		t.Fatalf("kept %q though the spool does not keep", left)
	}
	s.KeepFailed, s.MaxKept = true, 2
	for i, qid := range []string{"one", "two", "three"} {
		d, err := s.Create(qid)
		if err != nil {
			t.Fatal(err)
		}
		d.Keep("scan failed:\n" + qid)
		if err := d.Remove(); err != nil {
			t.Fatal(err)
		}
		when := time.Now().Add(time.Duration(i-10) * time.Minute)
		_ = os.Chtimes(filepath.Join(s.Dir, "kept-"+qid), when, when)
	}
	if got := strings.Join(names(t, s.Dir), " "); got != "kept-three kept-two" {
		t.Errorf("kept %q", got)
	}
	if got := read(t, filepath.Join(s.Dir, "kept-two", "KEPT")); got != "scan failed: two\n" {
		t.Errorf("note %q", got)
	}
	if d, err := s.Create("two"); err != nil || filepath.Base(d.Path()) != "mdefang-two" {
		t.Errorf("a kept directory is in the way of %v: %v", d, err)
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

func TestSweep(t *testing.T) {
	s := newSpool(t)
	crashed, fresh, busy := newDir(t, s), newDir(t, s), newDir(t, s)
	old := time.Now().Add(-2 * time.Hour)
	busy.Abandon()
	if err := busy.Remove(); err != nil {
		t.Fatal(err)
	}
	aside := filepath.Join(s.Dir, strings.Replace(filepath.Base(busy.Path()), "mdefang-", "aside-", 1))
	err := errors.Join(os.Chtimes(crashed.Path(), old, old), os.Mkdir(filepath.Join(s.Dir, "other"), 0o700),
		os.Chtimes(filepath.Join(s.Dir, "other"), old, old),
		os.Symlink(t.TempDir(), filepath.Join(s.Dir, "mdefang-link")))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := s.Sweep(time.Hour); n != 1 || err != nil {
		t.Errorf("swept %d, %v; want the crashed one", n, err)
	}
	if _, err := os.Stat(crashed.Path()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("crashed one: %v", err)
	}
	for _, p := range []string{fresh.Path(), aside, filepath.Join(s.Dir, "other")} {
		if _, err := os.Stat(p); err != nil {
			t.Error(err)
		}
	}
	if err := os.Chtimes(aside, old, old); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Sweep(0); n != 1 || err != nil {
		t.Errorf("swept %d, %v; want the one put aside", n, err)
	}
}

// TestSweepByItself opens a spool that a crash left something in, and one that something was put aside in.
func TestSweepByItself(t *testing.T) {
	s := newSpool(t)
	s.AsideAge = time.Nanosecond
	old := time.Now().Add(-25 * time.Hour)
	for _, name := range []string{"mdefang-old", "mdefang-new", "aside-old", "kept-old"} {
		path := filepath.Join(s.Dir, name)
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if name != "mdefang-new" {
			if err := os.Chtimes(path, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(names(t, s.Dir), " "); got != "kept-old mdefang-new" {
		t.Errorf("after Open: %q", got)
	}
	d := newDir(t, s)
	d.Abandon()
	if err := d.Remove(); err != nil {
		t.Fatal(err)
	}
	s.aside = time.Now().Add(-time.Minute) // as if time had passed
	if err := newDir(t, s).Remove(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(names(t, s.Dir), " "); got != "kept-old mdefang-new" {
		t.Errorf("after Create: %q", got)
	}
}
