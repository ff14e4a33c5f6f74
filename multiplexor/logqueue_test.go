package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"postern/internal/testenv"
)

// TestWorkQueueEnds: work may have something to say after the end was asked
// for, and so may the statistics file, which is closed after that.
func TestWorkQueueEnds(t *testing.T) {
	t.Parallel()
	e := newWorkQueue()
	log := &memoryLog{}
	j := &logQueue{log: slog.New(log), work: e}
	hold := make(chan struct{})
	e.add(func() { <-hold })
	e.add(func() { j.Add(levelError, errors.New("disk full").Error()) })
	go close(hold)
	e.Close()
	if !strings.Contains(log.text(), "disk full") {
		t.Errorf("log:\n%s", log.text())
	}
	file, err := os.Open(os.DevNull) // not for writing
	if err != nil {
		t.Fatal(err)
	}
	s := &statLog{path: filepath.Join(t.TempDir(), "stats"), log: j, file: file, buf: []byte("line\n")}
	s.Close()
}

// memoryLog is a log that tests read.
type memoryLog struct {
	mu    sync.Mutex
	lines []string
}

func (m *memoryLog) Enabled(context.Context, slog.Level) bool { return true }
func (m *memoryLog) Handle(_ context.Context, r slog.Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lines = append(m.lines, r.Message)
	return nil
}
func (m *memoryLog) WithAttrs([]slog.Attr) slog.Handler { return m }
func (m *memoryLog) WithGroup(string) slog.Handler      { return m }
func (m *memoryLog) Add(level slog.Level, text string) {
	slog.New(m).Log(context.Background(), level, text)
}
func (m *memoryLog) AddEach(level slog.Level, text string) { m.Add(level, text) }
func (m *memoryLog) text() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.lines, "\n") + "\n"
}

// blocked returns a work queue whose goroutine waits until release is called, and which
// have no room.
func blocked() (e *workQueue, release func()) {
	e = newWorkQueue()
	hold, holding := make(chan struct{}), make(chan struct{})
	e.add(func() { close(holding); <-hold })
	<-holding
	for e.dropped.Load() == 0 {
		e.add(func() {})
	}
	return e, sync.OnceFunc(func() { close(hold) })
}

// TestWorkThatMustBeDone: what is no line is done although there is no room, and
// in order.
func TestWorkThatMustBeDone(t *testing.T) {
	t.Parallel()
	e, release := blocked()
	did := ""
	e.must(func() { did += "a" })
	e.add(func() { did += "dropped" })
	e.must(func() { did += "b" })
	release()
	e.Close()
	if did != "ab" || e.dropped.Load() != 2 {
		t.Errorf("did %q and dropped %d", did, e.dropped.Load())
	}
}

// TestReopenIsNeverLost: SIGHUP has its effect although more lines wait than there
// is room for, and not once for each signal.
func TestReopenIsNeverLost(t *testing.T) {
	t.Parallel()
	e, release := blocked()
	log := &memoryLog{}
	path := filepath.Join(t.TempDir(), "stats")
	s := &statLog{path: path, mode: 0o600, log: &logQueue{log: slog.New(log), work: e}}
	s.openOrLog()
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		s.reopen()
	}
	if n := len(e.todo); n > workRoom+1 {
		t.Errorf("%d calls wait, want one more than %d at most", n, workRoom)
	}
	release()
	e.Close()
	s.Close()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the file was not opened again: %v", err)
	}
}

// TestStatisticsThatCannotBeWritten: the log says so once, whether or not it gets
// the lines itself, and again after a line that could be written.
func TestStatisticsThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	e, log := newWorkQueue(), &memoryLog{}
	dir := t.TempDir()
	path := filepath.Join(dir, "stats")
	if err := os.Symlink("/dev/full", path); err != nil {
		t.Fatal(err)
	}
	s := &statLog{path: path, mode: 0o600, flush: true, log: &logQueue{log: slog.New(log), work: e}}
	s.openOrLog()
	wantLines := func(n int) {
		t.Helper()
		done := make(chan struct{})
		e.must(func() { close(done) })
		testenv.Receive(t, "the end of the work", done)
		want := strings.Repeat("Could not write stats file "+path+": no space left on device\n", n)
		if got := log.text(); strings.TrimSuffix(got, "\n") != strings.TrimSuffix(want, "\n") {
			t.Errorf("log:\n%swant:\n%s", got, want)
		}
	}
	for range 3 {
		s.Add("ReapWorker", 0, 0, 0, "")
	}
	wantLines(1)
	s.reopen() // the administrator has made room, but not enough
	s.Add("ReapWorker", 0, 0, 0, "")
	wantLines(2)
	e.Close()
	s.Close()
}

// TestStatisticsToAFIFO: they go to who reads it; without a reader nothing waits for one, at the start or at SIGHUP.
func TestStatisticsToAFIFO(t *testing.T) {
	t.Parallel()
	e, log := newWorkQueue(), &memoryLog{}
	path := filepath.Join(t.TempDir(), "stats")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	s := &statLog{path: path, mode: 0o600, flush: true, log: &logQueue{log: slog.New(log), work: e}}
	s.openOrLog()
	s.reopen()
	s.Add("nobody", 0, 0, 0, "")
	done := make(chan struct{})
	e.must(func() { close(done) })
	testenv.Receive(t, "the end of the work", done)
	if n := strings.Count(log.text(), "Could not open stats file "+path+": it is a FIFO that nobody reads"); n != 2 {
		t.Errorf("%d lines, want 2:\n%s", n, log.text())
	}
	reader, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	s.reopen()
	s.Add("somebody", 0, 0, 0, "")
	e.Close()
	s.Close()
	if text, err := testenv.ReadAll(reader); err != nil || !strings.Contains(string(text), " somebody ") || strings.Count(string(text), "\n") != 1 {
		t.Errorf("read %q, %v", text, err)
	}
}

// TestStatisticsFile looks at the form of a line, and at a file that was renamed: lines go to a new one after reopening.
func TestStatisticsFile(t *testing.T) {
	t.Parallel()
	e := newWorkQueue()
	path := filepath.Join(t.TempDir(), "stats")
	s := &statLog{path: path, mode: 0o600, flush: true, log: &logQueue{work: e}}
	if err := s.open(); err != nil {
		t.Fatal(err)
	}
	wantFile := func(path, want string) {
		t.Helper()
		done := make(chan struct{})
		e.must(func() { close(done) })
		testenv.Receive(t, "the end of the work", done)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		form := `^\d\d/\d\d/\d{4}:\d\d:\d\d:\d\d \d{10}\.\d{3} ` + want + `\n$`
		if !regexp.MustCompile(form).Match(text) {
			t.Errorf("got %q, want %s", text, form)
		}
	}
	s.Add("StartWorker", 3, 2, 1, "reason=\"a\x01b\"")
	wantFile(path, `StartWorker worker=3 nworkers=2 nbusy=1 reason="a b"`)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	s.reopen()
	s.Add("StartFilter", 0, 1, 1, "")
	wantFile(path, "StartFilter worker=0 nworkers=1 nbusy=1")
	e.Close()
	s.Close()
}
