package statfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/testenv"
)

// TestLeftoversOfReusedIDs: a live process that is younger than a file has not written it, and the file goes, however
// little older it is; what it may have written stays.
func TestLeftoversOfReusedIDs(t *testing.T) {
	before := time.Now()
	p := testenv.Start(t, exec.Command("sleep", "1000"))
	started, ok := startOf(p.Pid())
	if !ok || started.Before(before.Add(-50*time.Millisecond)) || started.After(time.Now().Add(time.Millisecond)) {
		t.Fatalf("started %v, %v, want after %v", started, ok, before)
	}
	for _, tt := range []struct {
		pid  int
		age  time.Duration // against the start of the process
		stay bool
	}{
		{p.Pid(), -365 * 24 * time.Hour, false}, {p.Pid(), -time.Hour, false}, {p.Pid(), -50 * time.Millisecond, false},
		{p.Pid(), 50 * time.Millisecond, true}, {p.Pid(), time.Hour, true}, {os.Getpid(), time.Hour, false}, {os.Getppid(), -20 * 365 * 24 * time.Hour, false},
	} {
		for _, form := range []string{"prog-%05d.stat", "prog-%05d-3.stat", tempPrefix + "prog-%05d-3.stat"} {
			dir := t.TempDir()
			path := filepath.Join(dir, fmt.Sprintf(form, tt.pid))
			at := started.Add(tt.age)
			if err := errors.Join(os.WriteFile(path, []byte("x"), 0o600), os.Chtimes(path, at, at)); err != nil {
				t.Fatal(err)
			}
			open(t, dir)
			if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) == tt.stay {
				t.Errorf("%s, written %v after the start: %v, want it to stay: %v", filepath.Base(path), tt.age, err, tt.stay)
			}
		}
	}
}

// TestWarningDoesNotFlap: while some files can be written and others not, as on a full disk, there is one warning; that
// they are written again is said when all were for a while, and then the next failure is news.
func TestWarningDoesNotFlap(t *testing.T) {
	dir := t.TempDir()
	var log bytes.Buffer
	d := open(t, dir)
	d.Log = slog.New(slog.NewTextHandler(&log, nil))
	now := time.Unix(1700000000, 0)
	d.now = func() time.Time { return now }
	// A directory at the name of the first session's file keeps it from being written.
	if err := os.Mkdir(filepath.Join(dir, fmt.Sprintf("prog-%05d-1.stat", os.Getpid())), 0o700); err != nil {
		t.Fatal(err)
	}
	bad, _ := d.New(Fields{})
	good, err := d.New(Fields{})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	write := func(f *File) {
		n++
		_ = f.Update(fmt.Sprint("status ", n))
	}
	want := func(warnings, again int) {
		t.Helper()
		if w, a := strings.Count(log.String(), "level=WARN"), strings.Count(log.String(), "written again"); w != warnings || a != again {
			t.Errorf("%d warnings and %d times written again, want %d and %d\n%s", w, a, warnings, again, &log)
		}
	}
	for range 1000 {
		write(good)
		now = now.Add(held / 3)
		write(good)
		now = now.Add(held / 3)
		write(bad)
		now = now.Add(held / 4)
	}
	want(1, 0)
	now = now.Add(10 * held) // nothing was written, so nothing has held
	write(good)
	want(1, 0)
	now = now.Add(held - time.Nanosecond)
	write(good)
	want(1, 0)
	now = now.Add(time.Nanosecond)
	write(good)
	write(good)
	want(1, 1)
	write(bad)
	want(2, 1)
}
