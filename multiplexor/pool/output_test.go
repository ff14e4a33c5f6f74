package pool

import (
	"bytes"
	"strings"
	"testing"

	"postern/internal/percent"
)

// FuzzWorkerOutput has a worker write anything, in two pieces: a request is
// answered exactly once, with one line, and the pool goes on.
func FuzzWorkerOutput(f *testing.F) {
	f.Add([]byte("ok\n"), 1)
	f.Add([]byte("one\ntwo\n"), 4)
	f.Add([]byte("no end"), 3)
	f.Add([]byte("\n\n"), 1)
	f.Add(bytes.Repeat([]byte("x"), 200), 100)
	f.Fuzz(func(t *testing.T, out []byte, cut int) {
		b := newBench(t, func(l *Limits) { l.MaxAnswer, l.LogEvents = 100, false })
		a := b.ask("x")
		w := b.p.workers[0]
		if cut < 0 || cut > len(out) {
			cut = len(out) / 2
		}
		rest := feed(w, out[:cut], nil)
		feed(w, out[cut:], rest)
		if a.told == 0 {
			w.OutputEnded()
			w.Exited(Exit{})
		}
		if a.told != 1 || strings.Count(a.answer, "\n") != 1 || !strings.HasSuffix(a.answer, "\n") {
			t.Fatalf("%q cut at %d: told %d times, answer %q", out, cut, a.told, a.answer)
		}
		if w.state == killed {
			w.Exited(Exit{})
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
	return all[w.GotOutput(all):]
}

// FuzzStatusPipe holds that no text of a worker becomes more than one event.
func FuzzStatusPipe(f *testing.F) {
	f.Add([]byte("1: > In%0AZ\n"))
	f.Add([]byte("\r\n\x1b[31m%ff\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		b := newBench(t, nil)
		b.ask("x")
		b.events = nil
		taken := b.p.workers[0].GotStatus(text)
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

// FuzzTag: whatever a client or worker says, a tag is printable, begins like no change of
// state, and is what was said when it is decoded.
func FuzzTag(f *testing.F) {
	for _, s := range []string{"scan%20Q", "StateChange%20Idle", "%2553tateChange", "a%250Ab", "100%25", "%", "\xff%00", " %53tateChange %"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		tag := tagText(raw)
		if Printable(tag) != tag || strings.HasPrefix(strings.TrimLeft(tag, " "), changeWord) {
			t.Errorf("%q is the tag %q", raw, tag)
		}
		if got, want := percent.Decode(tag), Printable(percent.Decode(raw)); got != want {
			t.Errorf("%q is the tag %q, which is %q decoded, want %q", raw, tag, got, want)
		}
	})
}

// TestAnswerBeforeRequestIsRead: what is left in our buffer would be read as part
// of the next request, whose client would get the answer to this one.
func TestAnswerBeforeRequestIsRead(t *testing.T) {
	b := newBench(t, nil)
	b.warm(1)
	b.child(0).slow = true
	a := b.ask("map " + strings.Repeat("x", 100000))
	b.reply(0, "ok\n")
	b.wantAnswer(a, failureTexts[FailAnswer])
	b.wantStates("KS")

	b = newBench(t, nil)
	b.warm(1)
	b.child(0).unread = true
	a = b.ask("x")
	b.reply(0, "what nobody asked for\n")
	b.wantAnswer(a, failureTexts[FailAnswer])
	b.wantStates("KS")
}

// TestWRK_10_StatusText: what a worker says it is doing is one printable line of
// bounded length, for listeners and in replies.
func TestWRK_10_StatusText(t *testing.T) {
	b := newBench(t, nil)
	b.ask("x")
	w := b.p.workers[0]
	for raw, want := range map[string]string{
		"ok%0AZ": "ok Z", "ok\r": "ok ", "%1B[2J": " [2J", "\x1b]0;x\x07": " ]0;x ", "StateChange Idle -> Busy": "%53tateChange Idle -> Busy",
		"\xff\xfe": "  ", strings.Repeat("y", 300): strings.Repeat("y", 200),
	} {
		b.events = nil
		if n := w.GotStatus([]byte(raw + "\n")); n != len(raw)+1 {
			t.Errorf("%q: %d bytes taken", raw, n)
		}
		b.wantEvents("S 0 " + want)
		if line := string(w.appendLine(nil)); strings.Count(line, "\n") != 1 || !strings.Contains(line, "("+want+")") {
			t.Errorf("%q: %q", raw, line)
		}
	}
	b.events = nil
	w.GotStatus([]byte("ok\nZ\n")) // two lines: the last one counts, and is no Z
	b.wantEvents("S 0 Z")
	if n := w.GotStatus(make([]byte, 100<<10)); n != 100<<10 {
		t.Errorf("%d bytes of a line without end taken", n)
	}
}
