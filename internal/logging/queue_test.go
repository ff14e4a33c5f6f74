package logging

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"postern/internal/testenv"
)

// flush waits for all lines, however slow the machine is.
func flush(t *testing.T, q *Queue) {
	t.Helper()
	testenv.Eventually(t, "the last lines", func() bool { return q.Close() == nil })
}

// floodLines are more than any target and the queue take together.
const floodLines = 6000

func flood(log *slog.Logger) {
	text := strings.Repeat("x", 500)
	for range floodLines {
		log.Info("flood", "text", text)
	}
}

// LOG-10: whatever becomes of the reader, who logs does not wait, what found no room is
// counted, and the end does not wait for long.
func TestLOG_10_NobodyReads(t *testing.T) {
	targets := map[string]func(t *testing.T) Options{
		"pipe": func(t *testing.T) Options {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { r.Close(); w.Close() })
			return Options{Output: w}
		},
		"blocking pipe": func(t *testing.T) Options {
			var fds [2]int
			if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			w := os.NewFile(uintptr(fds[1]), "pipe")
			t.Cleanup(func() { syscall.Close(fds[0]) }) // which also wakes the writer
			return Options{Output: w}
		},
		"syslog of datagrams": func(t *testing.T) Options {
			return Options{Output: &testenv.Buffer{}, Target: Syslog, Socket: startSyslogd(t, filepath.Join(testenv.ShortDir(t), "log")).path}
		},
		"syslog of a stream": func(t *testing.T) Options {
			path := filepath.Join(testenv.ShortDir(t), "log")
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			return Options{Output: &testenv.Buffer{}, Target: Syslog, Socket: path}
		},
	}
	for name, target := range targets {
		t.Run(name, func(t *testing.T) {
			log, queue, err := New(target(t))
			if err != nil {
				t.Fatal(err)
			}
			over := make(chan error, 1)
			go func() {
				flood(log)
				over <- queue.Close()
			}()
			if err := testenv.Receive(t, "the end of a flood that nobody reads", over); err == nil || queue.Dropped() == 0 {
				t.Errorf("closed with error %v, %d lines dropped", err, queue.Dropped())
			}
		})
	}
}

// LOG-11: when there is room again the log goes on and says how much is missing.
func TestLOG_11_DroppedLinesAreSaid(t *testing.T) {
	for _, format := range []string{Text, JSON} {
		t.Run(format, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			log, queue, err := New(Options{Output: w, Format: format})
			if err != nil {
				t.Fatal(err)
			}
			flood(log)
			dropped := queue.Dropped()
			var got testenv.Buffer
			var reading sync.WaitGroup
			reading.Go(func() {
				buf := make([]byte, 1<<16)
				for {
					n, err := r.Read(buf)
					got.Write(buf[:n])
					if err != nil {
						return
					}
				}
			})
			defer reading.Wait()
			defer r.Close()
			want := fmt.Sprintf("count=%d\n", dropped)
			if format == JSON {
				want = fmt.Sprintf("\"count\":%d}\n", dropped)
			}
			testenv.Eventually(t, "the count of what was dropped", func() bool { return strings.Contains(got.String(), want) })
			log.Info("later")
			testenv.Eventually(t, "a later line", func() bool { return strings.Contains(got.String(), "later") })
			written := strings.Count(got.String(), "flood")
			if dropped == 0 || uint64(written)+dropped != floodLines {
				t.Errorf("%d lines written and %d dropped of %d", written, dropped, floodLines)
			}
		})
	}
}

// LOG-12: lines that cannot be written, on a full disk or because the reader has gone, are counted as lost.
func TestLOG_12_LinesThatCannotBeWritten(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	for name, output := range map[string]*os.File{"full": full, "reader gone": w} {
		log, queue, err := New(Options{Output: output})
		if err != nil {
			t.Fatal(err)
		}
		log.Info("one")
		log.Info("two")
		flush(t, queue)
		if n := queue.Dropped(); n != 2 {
			t.Errorf("%s: %d lines dropped, want 2", name, n)
		}
	}
}

// moody fails until it is told not to.
type moody struct {
	testenv.Buffer
	well bool
}

func (m *moody) Write(p []byte) (int, error) {
	if !m.well {
		return 0, errors.New("no space left on device")
	}
	return m.Buffer.Write(p)
}

// The line about dropped ones is itself tried again.
func TestDroppedAreSaidLater(t *testing.T) {
	m := &moody{}
	q := newQueue(func(r record) error { return writeAll(m, r.line) })
	q.tell = func(n uint64) error { return writeAll(m, fmt.Appendf(nil, "dropped %d\n", n)) }
	for range 3 {
		q.put(record{line: []byte("x\n")})
	}
	go q.run()
	testenv.Eventually(t, "three lines dropped", func() bool { return q.Dropped() == 3 })
	m2 := q.Dropped()
	flush(t, q)
	m.well = true
	q2 := newQueue(q.send)
	q2.tell, q2.untold = q.tell, m2
	q2.put(record{line: []byte("y\n")})
	go q2.run()
	flush(t, q2)
	if got := m.String(); got != "y\ndropped 3\n" {
		t.Errorf("written %q", got)
	}
}

func TestSyslogOfAStream(t *testing.T) {
	path := filepath.Join(testenv.ShortDir(t), "log")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	log, queue, err := New(Options{Target: Syslog, Socket: path, Tag: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer queue.Close()
	log.Info("x", "k", "v")
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	testenv.Patient(conn)
	buf := make([]byte, 1000)
	n, err := conn.Read(buf)
	if err != nil || !strings.HasSuffix(string(buf[:n]), fmt.Sprintf(" test[%d]: x k=v\n", os.Getpid())) {
		t.Errorf("%q, %v", buf[:n], err)
	}
}

// LOG-13: neither form of the log holds what a terminal takes for a command or for a change of direction.
func TestLOG_13_OddCharacters(t *testing.T) {
	text := "a\u009b2Jb\u202ec\u2066d\u200be\u2028f\U000e0001g\x7fh"
	d := startSyslogd(t, filepath.Join(testenv.ShortDir(t), "log"))
	for _, o := range []Options{{Target: Stderr}, {Target: Syslog, Socket: d.path}} {
		for _, format := range []string{Text, JSON} {
			var out testenv.Buffer
			o.Format, o.Output = format, &out
			log, queue, err := New(o)
			if err != nil {
				t.Fatal(err)
			}
			log.Info("say "+text, "key", text, "group", slog.GroupValue(slog.String("x", text)))
			flush(t, queue)
			got := out.String()
			if o.Target == Syslog {
				_, _, got = d.next()
			}
			if strings.ContainsFunc(strings.TrimSuffix(got, "\n"), func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("%s %s: %q", o.Target, format, got)
			}
			if format == JSON && strings.Count(got, `a\u009b2Jb\u202ec\u2066d\u200be\u2028f\udb40\udc01g\u007fh`) != 3 {
				t.Errorf("%s: %s", o.Target, got)
			}
		}
	}
}

func BenchmarkQueue(b *testing.B) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	log, queue, err := New(Options{Output: null})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		log.Info("accepted", "session", "3f1c", "client", "192.0.2.1", "bytes", 12345)
	}
	queue.Close()
}
