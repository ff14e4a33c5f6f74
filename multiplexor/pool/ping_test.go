package pool

import (
	"os"
	"strings"
	"testing"
	"time"
)

// TestFaultIsOver: a fault ends when a worker that was started later answers, and one
// more is started to find that out where enough of them run.
func TestFaultIsOver(t *testing.T) {
	b := newBench(t, func(l *Limits) { l.Original, l.ClassicReload, l.Min, l.Max = false, false, 1, 3 })
	b.p.Begin()
	b.wantEvents("S 0 StateChange Stopped -> Idle")
	b.pass(greetAfter)
	b.reply(0, "PONG\n")
	b.wantEvents("N 1")
	a1, a2 := b.ask("x"), b.ask("y")
	b.child(1).w.note([]byte("no such module\n"))
	b.finish(1, Exit{Status: 9})
	b.wantAnswer(a2, "ERR No response from worker: no such module (exited with status 9)\n")
	if got := b.p.fault.text; got != "no such module (exited with status 9)" {
		t.Errorf("fault %q", got)
	}
	b.reply(0, "answer\n")
	b.wantAnswer(a1, "answer\n")
	if b.p.fault.text == "" {
		t.Error("an old worker's answer ends the fault")
	}
	b.events = nil
	b.pass(5 * time.Second)
	b.wantStates("IIS")
	b.reply(1, "PONG\n")
	b.wantEvents("S 1 StateChange Stopped -> Idle", "E", "N 2")
	b.pass(time.Minute)
	b.wantStates("IIS")
}

// TestGreeting: a new worker is asked for a sign of life; a request that comes before
// it waits in its pipe and gets its own answer.
func TestGreeting(t *testing.T) {
	ours := func(l *Limits) { l.Original, l.ClassicReload, l.Min, l.Max = false, false, 1, 1 }
	for _, tt := range []struct {
		name, output, answer, states string
		fault                        bool
	}{
		{"one after the other", "PONG\nanswer\n", "answer\n", "I", false},
		{"no answer yet", "PONG\n", "", "B", false},
		{"speaks first", "hello\nPONG\nanswer\n", failureTexts[FailAnswer], "K", true},
		{"something else", "ok\nanswer\n", failureTexts[FailAnswer], "K", true},
		{"an error", "ERR rules\n", failureTexts[FailAnswer], "K", true},
		{"too much", "PONG\nanswer\nmore\n", failureTexts[FailAnswer], "K", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, ours)
			b.p.Begin()
			b.pass(greetAfter)
			a := b.ask("scan q d")
			b.reply(0, tt.output)
			b.wantAnswer(a, tt.answer)
			b.wantStates(tt.states)
			if got := b.p.fault.text != ""; got != tt.fault {
				t.Errorf("fault %q", b.p.fault.text)
			}
		})
	}
	t.Run("something else while it has nothing to do", func(t *testing.T) {
		b := newBench(t, ours)
		b.p.Begin()
		b.pass(greetAfter)
		b.reply(0, "ok\n")
		if b.p.working != 1 {
			t.Errorf("%d working", b.p.working)
		}
	})
	t.Run("a request before it is asked", func(t *testing.T) {
		b := newBench(t, ours)
		b.p.Begin()
		a := b.ask("x")
		b.reply(0, "ok\n")
		b.wantAnswer(a, "ok\n")
		b.pass(time.Minute)
		if lines := b.child(0).lines; len(lines) != 1 || b.p.working != 1 {
			t.Errorf("it got %q; %d working", lines, b.p.working)
		}
	})
	t.Run("never", func(t *testing.T) {
		b := newBench(t, ours)
		b.p.Begin()
		b.pass(greetAfter + b.p.limits.ReloadTimeout)
		b.wantStates("K")
		if b.p.fault.text != noGreeting {
			t.Errorf("fault %q", b.p.fault.text)
		}
	})
}

// TestRefusalsAreNotAllLogged: a broken worker is no reason to fill the log.
func TestRefusalsAreNotAllLogged(t *testing.T) {
	b := newBench(t, func(l *Limits) { l.Original, l.ClassicReload, l.LogEvents = false, false, false })
	b.broken = os.ErrNotExist
	for range 1000 {
		b.ask("x")
	}
	b.pass(refusedInterval)
	b.ask("x")
	if n := strings.Count(b.logged(), "Unable to activate worker"); n > 3 {
		t.Errorf("%d lines for a thousand requests", n)
	}
}
