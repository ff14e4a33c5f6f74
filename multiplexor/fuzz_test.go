package main

import (
	"bytes"
	"io"
	"math"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/evloop"
	"postern/internal/percent"
	"postern/internal/testenv"
)

// FuzzNetstring holds that what is taken for a netstring is one, that nothing is
// read beyond it, and that pieces give what the whole gives.
func FuzzNetstring(f *testing.F) {
	for _, s := range []string{"3:a b,", " 003:a b,x", "0:,", "65537:", "3:a b;", ":,", "-1:,", "99999999999999999999:", "5:ab", "1 2:x,"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		text, size, comma, err := readNetstring(b)
		switch {
		case err != nil, size == 0:
			if text != nil {
				t.Fatalf("%q: text %q without a netstring", b, text)
			}
			return
		case size > len(b) || len(text) > maxNetstring:
			t.Fatalf("%q: size %d, text of %d bytes", b, size, len(text))
		case comma != (b[size-1] == ','):
			t.Fatalf("%q: comma %v", b, comma)
		}
		for i := range size {
			if _, n, _, err := readNetstring(b[:i]); n != 0 || err != nil {
				t.Fatalf("%q: the first %d bytes are taken for %d, %v", b, i, n, err)
			}
		}
	})
}

// FuzzWorkerOutput has a worker write anything, in two pieces: a request is
// answered exactly once, with one line, and the pool goes on.
func FuzzWorkerOutput(f *testing.F) {
	f.Add([]byte("ok\n"), 1)
	f.Add([]byte("one\ntwo\n"), 4)
	f.Add([]byte("no end"), 3)
	f.Add([]byte("\n\n"), 1)
	f.Add(bytes.Repeat([]byte("x"), 200), 100)
	f.Fuzz(func(t *testing.T, out []byte, cut int) {
		b := newBench(t, func(l *limits) { l.MaxAnswer, l.LogEvents = 100, false })
		a := b.ask("x")
		w := b.p.workers[0]
		if cut < 0 || cut > len(out) {
			cut = len(out) / 2
		}
		rest := feed(w, out[:cut], nil)
		feed(w, out[cut:], rest)
		if a.told == 0 {
			w.outputEnded()
			w.exited(exit{})
		}
		if a.told != 1 || strings.Count(a.answer, "\n") != 1 || !strings.HasSuffix(a.answer, "\n") {
			t.Fatalf("%q cut at %d: told %d times, answer %q", out, cut, a.told, a.answer)
		}
		if w.state == killed {
			w.exited(exit{})
		}
		again := b.ask("y")
		for i, v := range b.p.workers {
			if v.state == busy {
				b.reply(i, "fine\n")
			}
		}
		b.wantAnswer(again, "fine\n")
	})
}

// feed gives bytes to a worker as its stream does: what it does not take is offered
// again.
func feed(w *worker, more, rest []byte) []byte {
	all := append(rest, more...)
	if len(all) == 0 || w.child == nil {
		return nil
	}
	return all[w.gotOutput(all):]
}

// FuzzStatusPipe holds that no text of a worker becomes more than one event.
func FuzzStatusPipe(f *testing.F) {
	f.Add([]byte("1: > In%0AZ\n"))
	f.Add([]byte("\r\n\x1b[31m%ff\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		b := newBench(t, nil)
		b.ask("x")
		b.events = nil
		taken := b.p.workers[0].gotStatus(text)
		if taken > len(text) {
			t.Fatalf("%d of %d bytes taken", taken, len(text))
		}
		if len(b.events) > 1 {
			t.Fatalf("%q became %q", text, b.events)
		}
		for _, e := range b.events {
			if !strings.HasPrefix(e, "S 0 ") || len(e) > len("S 0 ")+tagLimit || strings.ContainsFunc(e, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Fatalf("%q became %q", text, e)
			}
		}
	})
}

// FuzzRequestLine sends anything to a real server over a socket pair, in two
// pieces, and sees that there is one reply, or none for nothing, and an end.
func FuzzRequestLine(f *testing.F) {
	for _, s := range []string{"free\n", "free\nmsgs\n", "hello 2\nfree\nstatus\n", "\x00\n", "workerinfo 99999999999999999999\n", "load1 \n", "", "no end", "scan  \n", "\r\n"} {
		f.Add([]byte(s), 2)
	}
	f.Fuzz(func(t *testing.T, text []byte, cut int) {
		loop, err := evloop.New()
		if err != nil {
			t.Fatal(err)
		}
		b := newBench(t, nil)
		b.p.timers = &loop.Timers
		b.broken = os.ErrNotExist // workers are another test's matter
		s := &server{loop: loop, pool: b.p, log: b.p.log, name: "v", began: time.Now(), timeout: time.Minute, maxLine: 100, commands: makeBuiltins(), reread: b.p.reread}
		door := &doorway{server: s, open: new(int), limit: 10}
		fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		run := testenv.Go(t, "the loop", loop.Run)
		loop.Post(func() { door.admit(fds[0]) })
		file := os.NewFile(uintptr(fds[1]), "client")
		conn, err := net.FileConn(file)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
		if cut < 0 || cut > len(text) {
			cut = 0
		}
		testenv.Patient(conn)
		conn.Write(text[:cut]) // the server may have answered and closed
		conn.Write(text[cut:])
		conn.(*net.UnixConn).CloseWrite()
		reply, err := io.ReadAll(conn)
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			t.Errorf("%q: no end after %q", text, reply)
		}
		conn.Close()
		closed := make(chan int, 1)
		loop.Post(func() { closed <- *door.open; loop.Stop() })
		if n := testenv.Receive(t, "the count of connections", closed); n != 0 {
			t.Errorf("%q: %d connections left open", text, n)
		}
		run.Wait()
		loop.Close()
		line, _, whole := bytes.Cut(text, []byte("\n"))
		if whole && string(line) == "free" && !bytes.HasPrefix(reply, []byte("2\n")) {
			t.Errorf("%q answered %q", text, reply)
		}
	})
}

// FuzzTag: whatever a client or worker says, a tag is printable, begins like no change of
// state, and is what was said when it is decoded.
func FuzzTag(f *testing.F) {
	for _, s := range []string{"scan%20Q", "StateChange%20Idle", "%2553tateChange", "a%250Ab", "100%25", "%", "\xff%00", " %53tateChange %"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		tag := tagText(raw)
		if printable(tag) != tag || strings.HasPrefix(strings.TrimLeft(tag, " "), changeWord) {
			t.Errorf("%q is the tag %q", raw, tag)
		}
		if got, want := percent.Decode(tag), printable(percent.Decode(raw)); got != want {
			t.Errorf("%q is the tag %q, which is %q decoded, want %q", raw, tag, got, want)
		}
	})
}

// FuzzScanned: a line that any worker could take for a scan is seen as one, with the
// directory that it would take.
func FuzzScanned(f *testing.F) {
	for _, s := range []string{"scan q /d", "SCAN q /d", "%73can\tq\v/d x", " scan", "senderok <a>", "scan%20q /d", "s", "%", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		dir, ok := scanned([]byte(line))
		var words []string
		for _, w := range regexp.MustCompile("[ \t\n\v\f\r]+").Split(line, -1) {
			if w != "" {
				words = append(words, percent.Decode(w))
			}
		}
		want, wantDir := len(words) > 0 && strings.EqualFold(words[0], "scan"), ""
		if want && len(words) > 2 {
			wantDir = words[2]
		}
		if ok != want || dir != wantDir {
			t.Errorf("%q: scan %v of %q, want %v of %q", line, ok, dir, want, wantDir)
		}
	})
}

// FuzzForkServerLine: whatever a fork server says, each start that waits for it comes to
// one end.
func FuzzForkServerLine(f *testing.F) {
	f.Add("hello 1\nfailed 1 x\nfailed 2\n")
	f.Add("hello 1\nchild 1 1 0 1 2\n")
	f.Add("child 1 99999999999999999999 0 1 2\nhello 1\nhello 1\n")
	f.Fuzz(func(t *testing.T, said string) {
		loop, err := evloop.New()
		if err != nil {
			t.Fatal(err)
		}
		defer loop.Close()
		errands := newErrands()
		defer errands.Close()
		told := 0
		exec := func(_ *worker, done func(child, error)) { done(nil, errStopping) }
		fs := newForks(loop, &program{}, exec, &journal{errands: errands}, false)
		// No process has this number, so that nothing is found, or ended, by mistake.
		s := &forkServer{forks: fs, pid: math.MaxInt32, born: make(chan birth, 1), sent: map[int]pendingStart{}}
		fs.next = s
		fs.servers[s] = true
		for range 2 {
			fs.Start(&worker{}, func(child, error) { told++ })
		}
		for line := range strings.Lines(said) {
			if !s.buried {
				s.line(strings.TrimSuffix(line, "\n"))
			}
		}
		if fs.servers[s] {
			fs.lost(s, "has ended")
		}
		fs.stop()
		fs.burials.Wait()
		if told != 2 {
			t.Errorf("%q: %d of 2 starts came to an end", said, told)
		}
	})
}
