package logging

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/testenv"
)

// syslogd is a real datagram socket in the place of /dev/log.
type syslogd struct {
	t    *testing.T
	conn *net.UnixConn
	path string
}

func startSyslogd(t *testing.T, path string) *syslogd {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &syslogd{t, conn, path}
}

// next gives the next record: priority, tag and text.
func (s *syslogd) next() (priority, tag, text string) {
	s.t.Helper()
	testenv.Patient(s.conn)
	buf := make([]byte, 1<<17)
	n, err := s.conn.Read(buf)
	if err != nil {
		s.t.Fatal(err)
	}
	record := string(buf[:n])
	m := regexp.MustCompile(`(?s)^<(\d+)>\w{3} [ \d]\d \d\d:\d\d:\d\d ([^\[]+)\[(\d+)\]: (.*)\n$`).FindStringSubmatch(record)
	if m == nil || m[3] != fmt.Sprint(os.Getpid()) {
		s.t.Fatalf("record %q is not one of the local syslog", record)
	}
	return m[1], m[2], m[4]
}

func newSyslog(t *testing.T, o Options) (*slog.Logger, *syslogd) {
	t.Helper()
	d := startSyslogd(t, filepath.Join(testenv.ShortDir(t), "log"))
	o.Target, o.Socket = Syslog, d.path
	log, closer, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closer.Close() })
	return log, d
}

func TestSyslog(t *testing.T) {
	log, d := newSyslog(t, Options{Facility: "LOG_LOCAL3", Tag: "mimedefang-multiplexor", Level: slog.LevelDebug})
	const local3 = 19 << 3
	tests := []struct {
		name     string
		log      func()
		severity int
		text     string
	}{
		{"plain", func() { log.Info("Starting worker 0 (pid 123)") }, 6, "Starting worker 0 (pid 123)"},
		{"plain with quotes", func() { log.Error(`worker: "x" = 'y' at 100%`) }, 3, `worker: "x" = 'y' at 100%`},
		{"trailing blank", func() { log.Info("text ") }, 6, "text "},
		{"empty", func() { log.Info("") }, 6, ""},
		{"attributes", func() { log.Warn("refused", "client", "192.0.2.1", "reply", "4.7.0 go away") }, 4, `refused client=192.0.2.1 reply="4.7.0 go away"`},
		{"with", func() { log.With("session", 7).Debug("x", "y", 1) }, 7, "x session=7 y=1"},
		{"group", func() { log.WithGroup("g").Info("x", "y", 1) }, 6, "x g.y=1"},
		{"names like the built-in ones", func() { log.Info("x", "level", "high", "msg", "y", "time", 3) }, 6, "x level=high msg=y time=3"},
		{"notice", func() { log.Log(t.Context(), LevelNotice, "x") }, 5, "x"},
		{"control characters", func() { log.Info("a\nb\x1b[2J\x00", "k", "v\nw\x1b") }, 6, `a\nb\x1b[2J\x00 k="v\nw\x1b"`},
		{"not UTF-8", func() { log.Info("a\xffb") }, 6, `a\xffb`},
		{"UTF-8", func() { log.Info("grüß �") }, 6, "grüß �"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.log()
			priority, tag, text := d.next()
			if priority != fmt.Sprint(local3+tt.severity) || tag != "mimedefang-multiplexor" || text != tt.text {
				t.Errorf("got  %s %s %q\nwant %d mimedefang-multiplexor %q", priority, tag, text, local3+tt.severity, tt.text)
			}
		})
	}
}

func TestSyslogJSON(t *testing.T) {
	log, d := newSyslog(t, Options{Format: JSON})
	log.Info("a\nb", "k", strings.Repeat("x", 5000), "l", strings.Repeat("y", 5000), "m", strings.Repeat("z", 5000), "n", strings.Repeat("z", 5000), "o", strings.Repeat("z", 5000))
	_, _, text := d.next()
	var got map[string]string
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	if got["msg"] != "a\nb" || len(got["k"]) != maxText || got["level"] != "" {
		t.Errorf("record %v", got)
	}
}

// LOG-01: whatever a text holds, a record is one line of bounded length.
func TestLongTexts(t *testing.T) {
	log, d := newSyslog(t, Options{})
	long := strings.Repeat("ä\n", 30_000)
	log.Info(long, "a", long, "b", errors.New(long), "c", []byte(long), "d", 1, "e", (*net.OpError)(nil), "f", slog.StringValue(long))
	if _, _, text := d.next(); len(text) > maxLine || strings.ContainsAny(text, "\n") {
		t.Errorf("record of %d bytes", len(text))
	}
	for _, format := range []string{Text, JSON} {
		var out bytes.Buffer
		log, queue, err := New(Options{Output: &out, Format: format})
		if err != nil {
			t.Fatal(err)
		}
		log.Info(long, "a", long)
		flush(t, queue)
		if out.Len() > 5*maxText || strings.Count(out.String(), "\n") != 1 {
			t.Errorf("%s: record of %d bytes, %d lines", format, out.Len(), strings.Count(out.String(), "\n"))
		}
	}
}

// When syslogd is started again the log goes on; what it missed is on standard
// error.
func TestSyslogdRestart(t *testing.T) {
	path := filepath.Join(testenv.ShortDir(t), "log")
	d := startSyslogd(t, path)
	var stderr testenv.Buffer
	log, closer, err := New(Options{Target: Syslog, Socket: path, Output: &stderr})
	if err != nil {
		t.Fatal(err)
	}
	defer closer.Close()
	log.Info("one")
	d.next()
	d.conn.Close()
	os.Remove(path)
	log.Info("two")
	testenv.Eventually(t, "the line on standard error", func() bool { return stderr.String() != "" })
	if !strings.Contains(stderr.String(), "two\n") {
		t.Errorf("standard error has %q", stderr.String())
	}
	d = startSyslogd(t, path)
	log.Info("three")
	if _, _, text := d.next(); text != "three" {
		t.Errorf("record %q", text)
	}
}

func TestStderr(t *testing.T) {
	var out bytes.Buffer
	log, closer, err := New(Options{Output: &out, Level: slog.LevelWarn})
	if err != nil {
		t.Fatal(err)
	}
	log.Info("not this")
	log.Warn("this one", "k", "v w")
	flush(t, closer)
	if got := out.String(); !strings.HasSuffix(got, ` level=WARN msg="this one" k="v w"`+"\n") || strings.Contains(got, "not this") {
		t.Errorf("output %q", got)
	}
	out.Reset()
	log, closer, err = New(Options{Output: &out, Format: JSON})
	if err != nil {
		t.Fatal(err)
	}
	log.Log(t.Context(), LevelNotice, "x", "k", 1, "took", 1500*time.Millisecond)
	flush(t, closer)
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || got["msg"] != "x" || got["level"] != "NOTICE" || got["k"] != 1.0 || got["took"] != 1.5 {
		t.Errorf("record %q, %v", out.String(), err)
	}
}

func TestNewErrors(t *testing.T) {
	tests := []struct {
		o    Options
		want string
	}{
		{Options{Target: "printer"}, `unknown log target "printer"`},
		{Options{Format: "xml"}, `unknown log format "xml"`},
		{Options{Facility: "none"}, `unknown syslog facility "none"`},
		{Options{Target: Syslog, Socket: "/nonexistent/log"}, "log to syslog: "},
	}
	for _, tt := range tests {
		if _, _, err := New(tt.o); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: error %v, want %q", tt.o, err, tt.want)
		}
	}
}

func TestLevel(t *testing.T) {
	for name, want := range map[string]slog.Level{"debug": slog.LevelDebug, "INFO": slog.LevelInfo, "notice": LevelNotice, "warn": slog.LevelWarn, "error": slog.LevelError} {
		if got, err := Level(name); err != nil || got != want {
			t.Errorf("Level(%q) = %v, %v", name, got, err)
		}
	}
	if _, err := Level("loud"); err == nil {
		t.Error("no error for an unknown level")
	}
}

func TestFacility(t *testing.T) {
	for name, want := range map[string]int{"": 2, "mail": 2, "MAIL": 2, "LOG_Mail": 2, "security": 4, "local7": 23, "log_daemon": 3} {
		if got, err := Facility(name); err != nil || int(got)>>3 != want {
			t.Errorf("Facility(%q) = %v, %v; want %d", name, got>>3, err, want)
		}
	}
}

// Loggers made from one another are used by many goroutines.
func TestConcurrent(t *testing.T) {
	log, d := newSyslog(t, Options{})
	var all sync.WaitGroup
	for i := range 10 {
		all.Go(func() {
			l := log.With("i", i)
			for range 20 {
				l.Info("x", "j", i)
			}
		})
	}
	go all.Wait()
	for range 200 {
		_, _, text := d.next()
		var i, j int
		if _, err := fmt.Sscanf(text, "x i=%d j=%d", &i, &j); err != nil || i != j {
			t.Fatalf("record %q, %v", text, err)
		}
	}
	all.Wait()
}

func BenchmarkLine(b *testing.B) {
	log := slog.New(newLineHandler(Options{Level: slog.LevelInfo}, func(record) error { return nil }))
	b.ReportAllocs()
	for b.Loop() {
		log.Info("accepted", "session", "3f1c", "client", "192.0.2.1", "bytes", 12345)
	}
}
