package workdir

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/safedir"
	"postern/internal/testenv"
)

// scannedDir makes a working directory with RESULTS in it.
func scannedDir(t *testing.T, s *Spool, results string) *Dir {
	t.Helper()
	d := finish(t, s, "Subject: test\r\n\r\nText\r\n", 0)
	if err := os.WriteFile(filepath.Join(d.Path(), "RESULTS"), []byte(results), 0o600); err != nil {
		t.Fatal(err)
	}
	return d
}

func snapshotOf(t *testing.T, d *Dir) *Snapshot {
	t.Helper()
	files, err := d.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(files.Close)
	return files
}

// TestSnapshot: the files outlast the directory, and a copy of them can be scanned as the message was.
func TestSnapshot(t *testing.T) {
	s := newSpool(t)
	d, err := s.Create("QID1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Snapshot(); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("of a message that is not complete: %v", err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(d.Envelope(Envelope{ID: "ID", Sender: "<a@b.example>", QueueID: "QID1"}))
	must(d.command([]byte("=deadline 1\n")))
	c, err := d.Content()
	must(err)
	_, err = c.Write([]byte("Subject: test\r\n\r\nText\r\n"))
	must(err)
	must(d.Finish())
	must(os.WriteFile(filepath.Join(d.Path(), "RESULTS"), []byte("HX-A one\nF\n"), 0o600))
	files := snapshotOf(t, d)
	commands, input := read(t, filepath.Join(d.Path(), "COMMANDS")), read(t, filepath.Join(d.Path(), "INPUTMSG"))
	must(d.Remove())
	if r, err := files.Results(); err != nil || len(r.Changes) != 1 || files.QueueID() != "QID1" || files.NewBody() != nil {
		t.Errorf("results %v, %v, queue id %q", r, err, files.QueueID())
	}
	again, err := s.Copy("QID1", files, time.Unix(4242, 0))
	must(err)
	defer again.Remove()
	for name, want := range map[string]string{"COMMANDS": strings.Replace(commands, "deadline 1\n", "deadline 4242\n", 1), "INPUTMSG": input, "HEADERS": "Subject: test\n"} {
		if got := read(t, filepath.Join(again.Path(), name)); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if _, err := again.Results(); !errors.Is(err, ErrResults) {
		t.Errorf("results of a copy: %v", err)
	}
	must(again.Remove())
	if left := names(t, s.Dir); len(left) != 0 {
		t.Errorf("left are %q", left)
	}
}

// TestSnapshotOfHostileFiles: no link is followed and nothing but files is opened.
func TestSnapshotOfHostileFiles(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSpool(t)
	d := finish(t, s, "Subject: test\r\n\r\nText\r\n", 0)
	if err := errors.Join(os.Symlink(secret, filepath.Join(d.Path(), "RESULTS")), os.Mkdir(filepath.Join(d.Path(), "NEWBODY"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if files := snapshotOf(t, d); files.files[snapResults] != nil || files.NewBody() != nil {
		t.Error("what is no file is there")
	}
	if err := errors.Join(os.Remove(filepath.Join(d.Path(), "INPUTMSG")), os.Symlink(secret, filepath.Join(d.Path(), "INPUTMSG"))); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Snapshot(); !errors.Is(err, safedir.ErrNotRegular) {
		t.Errorf("of a link: %v", err)
	}
	if _, err := OpenSnapshot(d.Path()); err == nil {
		t.Error("of a directory with a link")
	}
}

func newKept(t *testing.T) *Kept {
	t.Helper()
	return NewKept(filepath.Join(t.TempDir(), "kept"), slog.New(slog.DiscardHandler))
}

// keepAll keeps messages, one after another.
func keepAll(t *testing.T, k *Kept, s *Spool, results string, qids ...string) {
	t.Helper()
	for _, qid := range qids {
		files, err := scannedDir(t, s, results).Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Put(files, qid, "failed:\nno answer"); errors.Is(err, ErrKeptBusy) {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		k.Run(ctx)
		when := time.Now().Add(-100*time.Hour + time.Duration(k.Counts().Kept.Load())*time.Minute) // their order does not depend on the clock
		_ = os.Chtimes(filepath.Join(k.Dir, qid), when, when)
	}
}

// TestKept: what is kept is a whole message, which nobody else can read; the oldest go when there are too many or too
// large ones, and only what was kept.
func TestKept(t *testing.T) {
	s, k := newSpool(t), newKept(t)
	k.Max = 2
	keepAll(t, k, s, "F\n")
	if err := k.Check(); err != nil {
		t.Errorf("before the first one: %v", err)
	}
	lost := NewKept(filepath.Join(k.Dir, "none", "kept"), nil)
	if err := lost.Check(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("where it cannot be made: %v", err)
	}
	if err := errors.Join(os.Mkdir(k.Dir, 0o700), os.Mkdir(filepath.Join(k.Dir, "mdefang-x"), 0o700), os.WriteFile(filepath.Join(k.Dir, "file"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	keepAll(t, k, s, "F\n", "one", "two", "three")
	if got := names(t, k.Dir); !slices.Equal(got, []string{"file", "mdefang-x", "three", "two"}) {
		t.Errorf("kept are %q", got)
	}
	if got := names(t, filepath.Join(k.Dir, "two")); !slices.Equal(got, []string{"COMMANDS", "HEADERS", "INPUTMSG", "KEPT", "RESULTS"}) {
		t.Errorf("kept of a message is %q", got)
	}
	if got := read(t, filepath.Join(k.Dir, "two", "KEPT")); got != "failed: no answer\n" {
		t.Errorf("note is %q", got)
	}
	_ = filepath.WalkDir(k.Dir, func(path string, e fs.DirEntry, err error) error {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
		return nil
	})
	files, err := OpenSnapshot(filepath.Join(k.Dir, "two"))
	if err != nil {
		t.Fatal(err)
	}
	size := files.Size()
	files.Close()
	k.Max, k.MaxBytes = 100, 3*size
	keepAll(t, k, s, "F\n", "four", "five", "six")
	if got := names(t, k.Dir); !slices.Equal(got, []string{"file", "five", "four", "mdefang-x", "six"}) {
		t.Errorf("kept are %q", got)
	}
	keepAll(t, k, s, "HX "+strings.Repeat("x", int(3*size))+"\nF\n", "seven")
	if got := names(t, k.Dir); len(got) != 5 || k.Counts().Failed.Load() != 1 || k.Counts().Kept.Load() != 6 {
		t.Errorf("kept are %q, counted %d kept and %d failed", got, k.Counts().Kept.Load(), k.Counts().Failed.Load())
	}
	keepAll(t, k, s, "F\n", "six")
	if got := names(t, k.Dir); len(got) != 5 || slices.Contains(got, "four") {
		t.Errorf("kept twice: %q", got)
	}
}

// TestKeptHoldsNothingUp: while nobody copies, as many as have room wait, and others are not kept.
func TestKeptHoldsNothingUp(t *testing.T) {
	s, k := newSpool(t), newKept(t)
	d := scannedDir(t, s, "F\n")
	kept := 0
	for range 3 * maxKeeping {
		files, err := d.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		if k.Put(files, NewQueueID(), "sample") == nil {
			kept++
		}
	}
	if kept != maxKeeping || k.Counts().Dropped.Load() != 2*maxKeeping {
		t.Errorf("%d of %d wait, %d were dropped", kept, 3*maxKeeping, k.Counts().Dropped.Load())
	}
	k.MaxBytes = k.waiting.Bytes.Load()
	testenv.Receive(t, "a message that waits", k.waiting.C).Files.Close() // there is room for one more, but not for its bytes
	if files := snapshotOf(t, d); !errors.Is(k.Put(files, "QID", "sample"), ErrKeptBusy) {
		t.Error("more bytes wait than may be kept")
	}
	ctx, cancel := context.WithCancel(t.Context())
	running := testenv.Go(t, "Run", func() error { k.Run(ctx); return nil })
	cancel()
	_ = running.Err()
	if got := names(t, k.Dir); len(got) != maxKeeping-1 {
		t.Errorf("kept are %d, want %d", len(got), maxKeeping-1)
	}
}

// TestKeptFails: a directory that is not safe, or is none, costs nothing but a line in the log.
func TestKeptFails(t *testing.T) {
	s, k := newSpool(t), newKept(t)
	if err := os.WriteFile(k.Dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	keepAll(t, k, s, "F\n", "one")
	if err := errors.Join(os.Remove(k.Dir), os.Mkdir(k.Dir, 0o700), os.Chmod(k.Dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	keepAll(t, k, s, "F\n", "two")
	if n := k.Counts().Failed.Load(); n != 2 {
		t.Errorf("%d failed, want 2", n)
	}
	if err := k.Check(); !errors.Is(err, safedir.ErrInsecure) {
		t.Errorf("check: %v", err)
	}
}

// TestKeptCannotCopy: of a message that cannot be copied to its end nothing is left.
func TestKeptCannotCopy(t *testing.T) {
	s, k := newSpool(t), newKept(t)
	files := snapshotOf(t, scannedDir(t, s, "F\n"))
	broken, err := os.OpenFile(filepath.Join(t.TempDir(), "x"), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(broken, "text")
	files.files[snapNewBody] = broken // cannot be read
	if err := k.Put(files, "one", "sample"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	k.Run(ctx)
	if got := names(t, k.Dir); len(got) != 0 || k.Counts().Failed.Load() != 1 {
		t.Errorf("kept are %q", got)
	}
}
