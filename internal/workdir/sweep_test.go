package workdir

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"postern/internal/testenv"
)

// tend has the spool tended to until the test ends.
func tend(t *testing.T, s *Spool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := testenv.Go(t, "Tend", func() error { s.Tend(ctx, slog.New(slog.DiscardHandler)); return nil })
	t.Cleanup(func() { cancel(); done.Wait() })
}

// TestTend has a spool that others left something in, that something is put aside in, and that nobody makes directories in.
func TestTend(t *testing.T) {
	dead := newSpool(t)
	crash(t, newDir(t, dead))
	s := &Spool{Dir: dead.Dir, Insecure: true, AsideAge: 50 * time.Millisecond}
	t.Cleanup(func() { _ = s.Close() })
	tend(t, s)
	empty := func() bool { return len(names(t, s.Dir)) == 0 }
	testenv.Eventually(t, "what was left to be gone", empty)
	d := newDir(t, s)
	d.Abandon()
	if err := d.Remove(); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "what was put aside to be gone", empty)
}

// TestEmpty empties directories that were put aside, and no others, by whatever name.
// FS-09.
func TestEmpty(t *testing.T) {
	outside, spool := t.TempDir(), t.TempDir()
	victim := filepath.Join(outside, "victim")
	write := func(p string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o700), os.WriteFile(p, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write(victim)
	for _, name := range []string{"aside-x", "kept-x", "mdefang-x", "aside-x.y/aside-z"} {
		write(filepath.Join(spool, name, "Work", "file"))
	}
	write(filepath.Join(spool, "aside-file"))
	err := errors.Join(os.Symlink(outside, filepath.Join(spool, "aside-link")), os.Symlink("kept-x", filepath.Join(spool, "aside-inner")),
		os.Symlink(outside, filepath.Join(spool, "aside-x", "link")))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", ".", "..", "kept-x", "mdefang-x", "aside-", "aside-none", "aside-link", "aside-inner", "aside-file", "aside-x/Work",
		"aside-x/../kept-x", "aside-x.y/aside-z", "/aside-x", "aside-x/", "aside-x/link", "aside-x\x00", outside, filepath.Join(spool, "aside-x")} {
		if err := Empty(spool, name); err == nil {
			t.Errorf("%q was emptied", name)
		}
	}
	for _, p := range []string{"aside-x/Work/file", "kept-x/Work/file", "mdefang-x/Work/file", "aside-x.y/aside-z/Work/file", "aside-file"} {
		if _, err := os.Stat(filepath.Join(spool, p)); err != nil {
			t.Error(err)
		}
	}
	if err := Empty(spool, "aside-x"); err != nil {
		t.Fatal(err)
	}
	if left := names(t, filepath.Join(spool, "aside-x")); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	if _, err := os.Stat(victim); err != nil {
		t.Error(err)
	}
}

// TestHelpComesLater has a directory that cannot be removed while there is nobody to help: it goes when there is somebody.
func TestHelpComesLater(t *testing.T) {
	s := newSpool(t)
	s.AsideAge = 50 * time.Millisecond
	asked := make(chan string, 100)
	s.Empty = func(_ context.Context, name string) error {
		asked <- name
		return ErrNobody
	}
	d := newDir(t, s)
	if err := os.MkdirAll(filepath.Join(d.Path(), "Work", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.leftovers() <- "aside-gone" // which another process has removed
	withoutDescriptors(t, func() {
		if err := d.Remove(); err != nil {
			t.Error(err)
		}
	})
	left := names(t, s.Dir)
	if len(left) != 1 || filepath.Base(d.Path())[len(dirPrefix):] != left[0][len(asidePrefix):] {
		t.Errorf("left in the spool: %q", left)
	}
	tend(t, s)
	testenv.Eventually(t, "what was left to be gone", func() bool { return len(names(t, s.Dir)) == 0 })
}
