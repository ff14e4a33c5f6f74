package pool

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPoolFillsUpOneByOne(t *testing.T) {
	b := newBench(t, func(l *Limits) { l.Min, l.Max = 3, 4 })
	b.p.Begin()
	b.wantStates("ISSS")
	b.pass(2999 * time.Millisecond)
	b.wantStates("ISSS")
	b.pass(time.Millisecond)
	b.wantStates("IISS")
	b.pass(3 * time.Second)
	b.wantStates("IIIS")
	b.pass(time.Minute)
	b.wantStates("IIIS")

	// A loss is made good after the interval.
	b.warm(3)
	b.finish(1, Exit{})
	b.wantStates("ISIS")
	b.pass(3 * time.Second)
	b.wantStates("IIIS")
}

func TestRequestsStartProcessesUpToTheMaximum(t *testing.T) {
	b := newBench(t, func(l *Limits) { l.Max = 3 })
	b.p.Begin()
	a := []*fakeAsker{b.ask("one"), b.ask("two"), b.ask("three"), b.ask("four")}
	b.wantStates("BBB")
	b.wantAnswer(a[3], "error: No free workers\n")
	for i, want := range []string{"one\n", "two\n", "three\n"} {
		if got := b.child(i).lines; len(got) != 1 || got[0] != want {
			t.Errorf("worker %d got %q, want %q", i, got, want)
		}
	}
	b.reply(1, "answer two\n")
	b.wantAnswer(a[1], "answer two\n")
	b.wantStates("BIB")
}

// TestChoice has four idle workers whose last kinds are given (. for none) in the
// order of their starts and of their last use, and looks who gets a request.
func TestChoice(t *testing.T) {
	tests := []struct {
		name  string
		kinds string // S scan, R relayok, . none; worker 0 started first
		order []int  // of becoming idle, first the least recently used
		line  string
		want  int
	}{
		{"same kind before none", "S.R.", []int{0, 1, 2, 3}, "scan q d", 0},
		{"the older of the same kind", ".SS.", []int{0, 2, 1, 3}, "scan q d", 1},
		{"none: least recently used", "S..R", []int{2, 1, 0, 3}, "recipok <a> <b> x", 2},
		{"no candidate: the oldest", "SRSR", []int{3, 2, 1, 0}, "recipok <a> <b> x", 0},
		{"other: a fresh one", "SR.S", []int{0, 1, 2, 3}, "ping", 2},
		{"other: the oldest", "SRRS", []int{3, 1, 2, 0}, "ping", 0},
		{"helook has no kind", "S.SS", []int{0, 1, 2, 3}, "helook a b c", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, func(l *Limits) { l.Max = 4 })
			verbs := map[byte]string{'S': "scan q d", 'R': "relayok x", '.': "ping"}
			for i := range 4 {
				b.ask(verbs[tt.kinds[i]])
			}
			for _, n := range tt.order {
				b.reply(n, "ok\n")
			}
			b.ask(tt.line)
			for i := range 4 {
				if isBusy := b.p.workers[i].state == busy; isBusy != (i == tt.want) {
					t.Errorf("states %s: want worker %d busy", b.states(), tt.want)
				}
			}
		})
	}
}

// TestStoppedSlots: fresh slots in order, then the one that stopped last.
// TestLogOfChoices has the original's lines of -A.
func TestLogOfChoices(t *testing.T) {
	b := newBench(t, func(l *Limits) { l.LogScheduling = true })
	b.ask("scan q d")
	b.ask("x")
	b.reply(0, "ok\n")
	b.ask("recipok <a>")
	b.reply(0, "ok\n")
	b.finish(0, Exit{})
	b.ask("y")
	var got []string
	for line := range strings.Lines(b.logged()) {
		if strings.HasPrefix(line, "Scheduling") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	want := []string{"Scheduling Stopped worker 0 for cmdno 0 (activated=0, last=-2)", "Scheduling Stopped worker 1 for cmdno -1 (activated=0, last=-2)",
		"Scheduling Idle worker 0 for cmdno 3 (activated=0, last=0)", "Scheduling Stopped worker 0 for cmdno -1 (activated=0, last=3)"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestStoppedSlots(t *testing.T) {
	b := newBench(t, func(l *Limits) { l.Max = 4 })
	b.warm(3)
	b.finish(2, Exit{})
	b.finish(0, Exit{})
	b.ask("x") // the idle one
	b.wantStates("SBSS")
	b.ask("y")
	b.wantStates("BBSS")
	b.ask("z")
	b.wantStates("BBBS")
}

func TestEvents(t *testing.T) {
	b := newBench(t, func(l *Limits) { l.Max = 3 })
	b.ask("w0")
	b.wantEvents("S 0 StateChange Stopped -> Idle", "S 0 StateChange Idle -> Busy", "F 2", "S 0 w0")
	b.reply(0, "ok\n")
	b.wantEvents("S 0 StateChange Busy -> Idle", "F 3")
	b.ask("relayok 1.2.3.4 name")
	b.wantEvents("S 0 StateChange Idle -> Busy", "F 2", "S 0 relayok 1.2.3.4")
	b.ask("b")
	b.events = nil
	b.ask("last %41%0A end")
	b.wantEvents("S 2 StateChange Stopped -> Idle", "S 2 StateChange Idle -> Busy", "F 0", "Z", "S 2 last A ")
	b.reply(1, "ok\n")
	b.wantEvents("S 1 StateChange Busy -> Idle", "F 1", "Y")

	t.Run("busy timeout", func(t *testing.T) {
		b.t = t
		b.pass(120 * time.Second)
		b.wantEvents("B", "S 0 StateChange Busy -> Killed", "B", "S 2 StateChange Busy -> Killed")
		b.p.workers[0].Exited(Exit{Signal: syscall.SIGTERM})
		b.wantEvents("S 0 StateChange Killed -> Stopped", "F 2")
	})
	t.Run("death while busy", func(t *testing.T) {
		b.t = t
		a := b.ask("x")
		b.events = nil
		b.finish(1, Exit{Status: 1})
		b.wantEvents("S 1 StateChange Busy -> Idle", "F 2", "U", "S 1 StateChange Idle -> Stopped")
		b.wantAnswer(a, "ERR No response from worker\n")
	})
	t.Run("idle worker dies", func(t *testing.T) {
		b.t = t
		a := b.ask("x")
		b.reply(1, "ok\n")
		b.wantAnswer(a, "ok\n")
		b.events = nil
		b.finish(1, Exit{})
		b.wantEvents("U", "S 1 StateChange Idle -> Stopped")
	})
}

func TestRereadEvents(t *testing.T) {
	b := newBench(t, func(l *Limits) { l.Max = 1 })
	b.warm(1)
	b.p.Reread()
	b.wantEvents("S 0 StateChange Idle -> Killed", "F 0", "Z", "R")
	b.p.workers[0].Exited(Exit{})
	b.wantEvents("S 0 StateChange Killed -> Stopped", "F 1", "Y")
}

func TestRetirement(t *testing.T) {
	t.Run("requests", func(t *testing.T) {
		b := newBench(t, func(l *Limits) { l.Max, l.MaxRequests = 1, 2 })
		b.warm(1)
		b.ask("x")
		b.events = nil
		b.reply(0, "ok\n")
		b.wantEvents("S 0 StateChange Busy -> Idle", "F 1", "Y", "S 0 StateChange Idle -> Killed", "F 0", "Z")
		if want := "Worker has processed 2 requests"; !strings.Contains(b.logged(), want) {
			t.Errorf("log lacks %q:\n%s", want, b.logged())
		}
	})
	t.Run("the next one is started before", func(t *testing.T) {
		b := newBench(t, func(l *Limits) { l.Max, l.MaxRequests, l.ClassicReload = 2, 2, false })
		b.warm(1)
		a := b.ask("x")
		b.events = nil
		b.reply(0, "ok\n")
		b.wantAnswer(a, "ok\n")
		// It is not idle before it has loaded its rules, and so long the old one goes on.
		b.wantStates("IB")
		if got := b.child(1).lines; len(got) != 1 || got[0] != "ping\n" {
			t.Errorf("the new worker was asked %q", got)
		}
		a = b.ask("y")
		b.wantStates("BB")
		b.reply(0, "ok\n")
		b.wantAnswer(a, "ok\n")
		b.wantStates("IB")
		b.ask("y")
		b.reply(1, "PONG\n")
		b.pass(0)
		b.wantStates("BI") // it may finish
		b.reply(0, "ok\n")
		b.wantStates("KI")
		if b.p.workers[1].requests != 0 || b.p.messages != 0 {
			t.Errorf("the ping was counted: %d requests", b.p.workers[1].requests)
		}
		for range 2 { // no place for a third: it leaves, and a request starts the next
			b.ask("y")
			b.wantStates("KB")
			b.reply(1, "ok\n")
		}
		b.wantStates("KK")
	})
	t.Run("there is always a free one", func(t *testing.T) {
		b := newBench(t, func(l *Limits) { l.Max, l.MaxRequests, l.ClassicReload = 2, 2, false })
		b.warm(1)
		b.ask("x")
		b.events = nil
		b.reply(0, "ok\n")
		b.reply(1, "PONG\n")
		b.pass(0)
		b.wantStates("KI")
		for _, event := range b.events {
			if event == "Z" {
				t.Errorf("events %q: for a while no worker was free", b.events)
			}
		}
	})
	t.Run("the next one ends while it loads", func(t *testing.T) {
		b := newBench(t, func(l *Limits) { l.Max, l.MaxRequests, l.ClassicReload = 2, 2, false })
		b.warm(1)
		b.ask("x")
		b.reply(0, "ok\n")
		b.finish(1, Exit{Status: 1})
		b.pass(0)
		b.wantStates("KS")
	})
	t.Run("the old one ends before", func(t *testing.T) {
		b := newBench(t, func(l *Limits) { l.Max, l.MaxRequests, l.ClassicReload = 2, 2, false })
		b.warm(1)
		b.ask("x")
		b.reply(0, "ok\n")
		b.finish(0, Exit{Status: 1})
		b.ask("y")
		b.wantStates("BB")
		b.reply(0, "ok\n")
		b.reply(1, "PONG\n")
		b.pass(0)
		b.wantStates("II") // the process now in its place has nothing to do with that
	})
	t.Run("put off while requests wait", func(t *testing.T) {
		b := newBench(t, func(l *Limits) { l.Max, l.MaxRequests, l.QueueSize = 1, 2, 20 })
		var all []*fakeAsker
		for range 8 {
			all = append(all, b.ask("x"))
		}
		for i := range 6 {
			b.wantStates("B")
			b.reply(0, "ok\n")
			b.wantAnswer(all[i], "ok\n")
		}
		// Three times the limit: now it goes, and the rest is served by the next one.
		b.wantStates("K")
		b.p.workers[0].Exited(Exit{})
		b.wantStates("B")
		b.reply(0, "ok\n")
		b.reply(0, "ok\n")
		b.wantAnswer(all[7], "ok\n")
	})
	t.Run("lifetime counts from the first request", func(t *testing.T) {
		b := newBench(t, func(l *Limits) { l.MaxLifetime = time.Minute })
		b.p.Begin()
		b.pass(2 * time.Minute)
		b.ask("x")
		b.reply(0, "ok\n")
		b.wantStates("IS")
		b.pass(61 * time.Second)
		b.ask("x")
		b.reply(0, "ok\n")
		b.wantStates("KS")
	})
	t.Run("old rules", func(t *testing.T) {
		b := newBench(t, nil)
		b.warm(2)
		b.ask("x")
		b.p.Reread()
		b.wantStates("BK")
		b.reply(0, "ok\n")
		b.wantStates("KK")
	})
	t.Run("idle", func(t *testing.T) {
		b := newBench(t, func(l *Limits) { l.Max, l.Min = 4, 2 })
		b.p.Begin()
		b.warm(4)
		b.pass(299 * time.Second)
		b.wantStates("IIII")
		b.pass(2 * time.Second)
		if k := b.p.count[killed]; k != 2 {
			t.Errorf("%s after the idle time: %d killed, want 2", b.states(), k)
		}
	})
	t.Run("jitter", func(t *testing.T) {
		b := newBench(t, func(l *Limits) { l.MaxRequests, l.Jitter = 100, 20 })
		seen := map[int]bool{}
		for range 500 {
			n := b.p.requestLimit()
			if n < 80 || n > 100 {
				t.Fatalf("limit %d, want 80 to 100", n)
			}
			seen[n] = true
		}
		if len(seen) < 10 {
			t.Errorf("only %d different limits", len(seen))
		}
	})
}

func TestKillSteps(t *testing.T) {
	t.Run("idle", func(t *testing.T) {
		b := newBench(t, nil)
		b.warm(1)
		c := b.child(0)
		b.p.Reread()
		b.wantSignals(c, "CONT", "EOF")
		b.pass(10*time.Second - 1)
		b.wantSignals(c)
		b.pass(1)
		b.wantSignals(c, "CONT", "TERM")
		b.pass(10 * time.Second)
		b.wantSignals(c, "CONT", "KILL")
		b.wantStates("KS")
		b.p.workers[0].Exited(Exit{Signal: syscall.SIGKILL})
		b.wantStates("SS")
		if !c.released {
			t.Error("descriptors not released")
		}
	})
	t.Run("busy", func(t *testing.T) {
		b := newBench(t, nil)
		a := b.ask("x")
		c := b.child(0)
		b.pass(120 * time.Second)
		b.wantAnswer(a, "ERR Filter timed out - check filter rules or system load\n")
		b.wantSignals(c, "CONT", "TERM", "EOF")
		b.pass(10 * time.Second)
		b.wantSignals(c, "CONT", "KILL")
	})
}

func TestBusyTimeoutTexts(t *testing.T) {
	b := newBench(t, func(l *Limits) { l.Max = 5 })
	var all []*fakeAsker
	for range 5 {
		all = append(all, b.ask("x"))
	}
	b.pass(2 * time.Minute)
	long, short := 0, 0
	for _, a := range all {
		switch a.answer {
		case failureTexts[FailOverloaded]:
			long++
		case failureTexts[FailTimeout]:
			short++
		}
	}
	if long != 2 || short != 3 { // each kill lowers the number of busy ones
		t.Errorf("%d long and %d short texts, want 2 and 3", long, short)
	}
}

func TestSlowWrite(t *testing.T) {
	b := newBench(t, nil)
	b.warm(1)
	c := b.child(0)
	c.slow = true
	a := b.ask("x")
	b.pass(5 * time.Second)
	c.slow = false
	b.p.workers[0].InputFlushed(nil)
	b.pass(119 * time.Second) // the time for the answer begins now
	b.wantAnswer(a, "")
	b.reply(0, "ok\n")
	b.wantAnswer(a, "ok\n")

	c.slow = true
	a = b.ask("y")
	b.pass(10 * time.Second)
	b.wantAnswer(a, "error: Error talking to worker process\n")
	b.wantStates("KS")
}

// TestBrokenPipe: the line goes to another worker, because the dead one has not
// read it; if that one is dead, too, it is an error.
func TestBrokenPipe(t *testing.T) {
	b := newBench(t, nil)
	b.warm(2)
	b.child(0).deaf = true
	a := b.ask("x")
	b.wantAnswer(a, "")
	if got := b.child(1).lines; len(got) != 2 || got[1] != "x\n" {
		t.Errorf("the other worker got %q", got)
	}
	b.reply(1, "ok\n")
	b.wantAnswer(a, "ok\n")

	b = newBench(t, nil)
	b.warm(2)
	b.child(0).deaf, b.child(1).deaf = true, true
	a = b.ask("x")
	b.wantAnswer(a, "error: Error talking to worker process\n")
	b.wantStates("KK")
}

func TestQueue(t *testing.T) {
	t.Run("oldest first", func(t *testing.T) {
		b := newBench(t, func(l *Limits) { l.Max, l.QueueSize = 1, 2 })
		a := []*fakeAsker{b.ask("a"), b.ask("b"), b.ask("c"), b.ask("d")}
		b.wantAnswer(a[3], "")
		b.pass(overflowWait)
		b.wantAnswer(a[3], "error: No free workers\n")
		b.wantAnswer(b.ask("e"), "error: No free workers\n")
		for i := range 3 {
			b.reply(0, "ok\n")
			b.wantAnswer(a[i], "ok\n")
		}
		if got := strings.Join(b.child(0).lines, ""); got != "a\nb\nc\n" {
			t.Errorf("the worker got %q", got)
		}
	})
	t.Run("time limit", func(t *testing.T) {
		b := newBench(t, func(l *Limits) { l.Max, l.QueueSize = 1, 2 })
		b.ask("a")
		a := b.ask("b")
		b.pass(30*time.Second - 1)
		b.wantAnswer(a, "")
		b.pass(1)
		b.wantAnswer(a, "error: Queued request timed out\n")
	})
	// Each of these frees a slot without a request having ended well.
	ends := map[string]func(b *bench){
		"death":        func(b *bench) { b.finish(0, Exit{Status: 1}) },
		"busy timeout": func(b *bench) { b.pass(10 * time.Second); b.p.workers[0].Exited(Exit{Signal: syscall.SIGTERM}) },
		"protocol": func(b *bench) {
			b.reply(0, "one\ntwo\n")
			b.p.workers[0].Exited(Exit{Signal: syscall.SIGTERM})
		},
	}
	for name, end := range ends {
		t.Run("served after "+name, func(t *testing.T) {
			b := newBench(t, func(l *Limits) { l.Max, l.QueueSize, l.BusyTimeout = 1, 2, 10*time.Second })
			b.warm(1)
			b.ask("a")
			a := b.ask("b")
			end(b)
			b.wantStates("B")
			b.reply(0, "ok\n")
			b.wantAnswer(a, "ok\n")
		})
	}
	t.Run("full for a moment", func(t *testing.T) {
		b := newBench(t, func(l *Limits) { l.Max, l.QueueSize = 1, 2 })
		var all []*fakeAsker
		for range 20 {
			all = append(all, b.ask("x"))
		}
		for i := range all {
			b.pass(overflowWait / 2) // something is finished in time, again and again
			b.reply(0, "ok\n")
			b.wantAnswer(all[i], "ok\n")
		}
		b.ask("a")
		b.ask("b")
		b.ask("c")
		gone, last := b.ask("d"), b.ask("e")
		if !b.p.Withdraw(&gone.req) || b.p.Withdraw(&gone.req) {
			t.Error("withdrawn not at all or twice")
		}
		for range 4 {
			b.reply(0, "ok\n")
		}
		b.wantAnswer(last, "ok\n")
		b.wantAnswer(gone, "")
	})
	t.Run("maps and ticks never wait", func(t *testing.T) {
		b := newBench(t, func(l *Limits) { l.Max, l.QueueSize = 1, 2 })
		b.ask("a")
		b.wantAnswer(b.askFrom(FromMap, "map a b"), "error: No free workers\n")
		b.wantAnswer(b.askFrom(fromTick, "tick 0"), "error: No free workers\n")
	})
	t.Run("who has left is not served", func(t *testing.T) {
		b := newBench(t, func(l *Limits) { l.Max, l.QueueSize = 1, 2 })
		b.ask("a")
		gone, a := b.ask("b"), b.ask("c")
		if !b.p.Withdraw(&gone.req) {
			t.Error("could not be withdrawn")
		}
		b.reply(0, "ok\n")
		b.reply(0, "ok\n")
		b.wantAnswer(a, "ok\n")
		b.wantAnswer(gone, "")
	})
}

func TestMinStartGap(t *testing.T) {
	b := newBench(t, func(l *Limits) { l.MinStartGap, l.QueueSize, l.Max = 5*time.Second, 5, 3 })
	b.ask("a")
	a := b.ask("b")
	b.wantAnswer(a, "") // the queue can hold it
	b.pass(5 * time.Second)
	b.wantStates("BBS")

	b = newBench(t, func(l *Limits) { l.MinStartGap = 5 * time.Second })
	b.ask("a")
	b.wantAnswer(b.ask("b"), "error: Unable to activate worker\n")
}

// TestDyingWorkerGetsNothing: its output is closed, it is not yet reaped.
func TestDyingWorkerGetsNothing(t *testing.T) {
	b := newBench(t, func(l *Limits) { l.QueueSize = 1 })
	b.warm(2)
	dying := b.child(0)
	dying.look = OutputClosed // nobody has told the pool yet
	a := b.ask("x")
	if len(dying.lines) != 1 || b.p.workers[1].state != busy {
		t.Errorf("states %s, the dying worker got %q", b.states(), dying.lines)
	}
	waiting := b.ask("y")
	b.wantAnswer(waiting, "")
	b.p.workers[0].Exited(Exit{})
	b.reply(1, "ok\n")
	b.wantAnswer(a, "ok\n")
	b.reply(0, "ok\n")
	b.wantAnswer(waiting, "ok\n")
}

func TestClosedOutputButAlive(t *testing.T) {
	b := newBench(t, nil)
	a := b.ask("x")
	c := b.child(0)
	b.p.workers[0].OutputEnded()
	b.wantAnswer(a, "")
	b.pass(time.Second)
	b.wantAnswer(a, "ERR No response from worker\n")
	b.wantSignals(c, "CONT", "TERM", "EOF")
	b.wantStates("KS")
}

func TestUnexpectedOutput(t *testing.T) {
	t.Run("idle", func(t *testing.T) {
		b := newBench(t, nil)
		b.warm(1)
		c := b.child(0)
		b.reply(0, "surprise\n")
		b.wantStates("KS")
		b.wantSignals(c, "CONT", "TERM", "EOF")
	})
	t.Run("seen before the next request", func(t *testing.T) {
		b := newBench(t, nil)
		b.warm(2)
		b.child(0).look = OutputNoisy
		a := b.ask("x")
		b.wantStates("KB")
		b.reply(1, "right\n")
		b.wantAnswer(a, "right\n")
	})
	t.Run("after the answer", func(t *testing.T) {
		b := newBench(t, nil)
		a := b.ask("x")
		b.reply(0, "first\nsecond\n")
		b.wantAnswer(a, "ERR Worker broke the protocol\n")
		b.wantStates("KS")
		b.reply(0, "third\n") // nobody hears it
	})
	t.Run("without end", func(t *testing.T) {
		b := newBench(t, func(l *Limits) { l.MaxAnswer = 10 })
		a := b.ask("x")
		if taken := b.p.workers[0].GotOutput([]byte("0123456789")); taken != 0 {
			t.Errorf("%d bytes taken of a partial line", taken)
		}
		b.wantAnswer(a, "")
		b.reply(0, "0123456789x")
		b.wantAnswer(a, "ERR Worker broke the protocol\n")
	})
	t.Run("half a line, then the end", func(t *testing.T) {
		b := newBench(t, nil)
		a := b.ask("x")
		b.p.workers[0].GotOutput([]byte("ok 1"))
		b.finish(0, Exit{})
		b.wantAnswer(a, "ERR No response from worker\n")
	})
}

func TestBackoff(t *testing.T) {
	b := newBench(t, func(l *Limits) { l.QueueSize = 10 })
	b.broken = errors.New("no such file or directory")
	b.wantAnswer(b.ask("a"), "error: Unable to activate worker\n")
	b.wantAnswer(b.ask("b"), "error: Unable to activate worker\n")
	for range 20 {
		b.wantAnswer(b.ask("c"), "error: Unable to activate worker\n")
	}
	if n := strings.Count(b.logged(), "Could not start"); n != 2 {
		t.Errorf("%d attempts, want 2 and then none:\n%s", n, b.logged())
	}
	if want := "in a row ended before they had answered anything"; !strings.Contains(b.logged(), want) {
		t.Errorf("log lacks %q", want)
	}
	b.p.Begin()
	b.pass(10 * time.Minute)
	if n := strings.Count(b.logged(), "Could not start"); n < 10 || n > 40 {
		t.Errorf("%d attempts in ten minutes, want one in half a minute in the end", n)
	}
	// It is repaired: the next attempt serves.
	b.broken = nil
	b.pass(31 * time.Second)
	a := b.ask("x")
	b.reply(0, "ok\n")
	b.wantAnswer(a, "ok\n")
	if b.p.deaths != 0 {
		t.Errorf("%d deaths remembered after an answer", b.p.deaths)
	}
}

// TestBackoffWhileWorkersEnd: workers that are being ended are no reason to wait.
func TestBackoffWhileWorkersEnd(t *testing.T) {
	b := newBench(t, func(l *Limits) { l.Max, l.QueueSize = 3, 10 })
	for n := range 2 {
		a := b.ask("x")
		b.child(n).unread = true
		b.reply(n, "garbage\n")
		b.wantAnswer(a, failureTexts[FailAnswer])
	}
	b.wantStates("KKS")
	b.wantAnswer(b.ask("x"), failureTexts[FailStart])
	b.pass(backoffFirst)
	b.wantAnswer(b.ask("x"), "")
}

func TestBackoffOfProcessesThatExit(t *testing.T) {
	b := newBench(t, nil)
	for range 3 {
		a := b.ask("x")
		if a.told > 0 {
			break
		}
		b.finish(0, Exit{Status: 1})
		b.wantAnswer(a, "ERR No response from worker\n")
	}
	b.wantAnswer(b.ask("x"), "error: Unable to activate worker\n")
	b.pass(30 * time.Second)
	a := b.ask("x")
	b.wantAnswer(a, "")
}

// TestSlowStart: the request is assigned when the process is there; until then the
// slot is Stopped but not free for others.
func TestSlowStart(t *testing.T) {
	b := newBench(t, func(l *Limits) { l.Max = 1 })
	b.manual = true
	a := b.ask("x")
	b.wantStates("S")
	if n := b.p.Free(); n != 0 {
		t.Errorf("%d free, want 0", n)
	}
	b.wantAnswer(b.ask("y"), "error: No free workers\n")
	b.starts[0](nil)
	b.wantStates("B")
	b.reply(0, "ok\n")
	b.wantAnswer(a, "ok\n")

	t.Run("too slow", func(t *testing.T) {
		b := newBench(t, func(l *Limits) { l.Max = 1 })
		b.manual = true
		a := b.ask("x")
		b.pass(120 * time.Second)
		b.wantAnswer(a, "error: Unable to activate worker\n")
		b.starts[0](nil)
		b.wantStates("I")
	})
}

// RES-09: questions about the recipients of one domain do not take all workers.
func TestDomainLimit(t *testing.T) {
	b := newBench(t, func(l *Limits) { l.Max, l.PerDomain = 8, 2 })
	const refused = "ok -1 Per-domain%20recipok%20limit%20hit;%20please%20try%20again%20later\n"
	b.ask("recipok <a@Example.com> <s@x> ip")
	b.ask("recipok <b@example.COM> <s@x> ip")
	b.wantAnswer(b.ask("recipok <c@example.com> <s@x> ip"), refused)
	b.wantAnswer(b.ask("recipok <c@example.org> <s@example.com> ip"), "")
	b.wantAnswer(b.ask("recipok <postmaster> <s@example.com> ip"), "") // the sender's domain does not count
	b.wantAnswer(b.ask("senderok <c@example.com> ip"), "")
	b.reply(0, "ok 1\n")
	b.wantAnswer(b.ask("recipok <c@example.com> <s@x> ip"), "")
	b.finish(1, Exit{})
	b.wantAnswer(b.ask("recipok <d@example.com> <s@x> ip"), "")
	b.wantAnswer(b.ask("recipok <e@example.com> <s@x> ip"), refused)
}

func TestStop(t *testing.T) {
	t.Run("all in order", func(t *testing.T) {
		b := newBench(t, func(l *Limits) { l.Max, l.QueueSize = 2, 5 })
		b.warm(2)
		a := b.ask("x")
		b.ask("y")
		waiting := b.ask("z")
		b.reply(1, "ok\n")
		b.reply(1, "ok\n")
		b.wantAnswer(waiting, "ok\n")
		b.ask("y")
		waiting = b.ask("z")
		gone := false
		b.p.Stop(func() { gone = true })
		b.wantAnswer(waiting, "error: Multiplexor is terminating\n")
		b.wantAnswer(b.ask("late"), "error: Multiplexor is terminating\n")
		b.reply(0, "ok\n") // busy ones may finish
		b.wantAnswer(a, "ok\n")
		b.p.workers[0].Exited(Exit{})
		if gone {
			t.Error("gone before the last one")
		}
		b.reply(1, "ok\n")
		b.p.workers[1].Exited(Exit{})
		if !gone {
			t.Error("not gone after the last one")
		}
	})
	t.Run("stubborn workers", func(t *testing.T) {
		b := newBench(t, nil)
		b.warm(1)
		a := b.ask("x")
		c := b.child(0)
		gone := false
		b.p.Stop(func() { gone = true })
		b.pass(9 * time.Second)
		b.wantAnswer(a, "error: Multiplexor is terminating\n")
		if len(c.signals) == 0 || c.signals[1] != "CONT" && c.signals[1] != "TERM" {
			t.Errorf("signals %v, want SIGTERM after 9s", c.signals)
		}
		c.signals = nil
		b.pass(9 * time.Second)
		b.wantSignals(c, "CONT", "KILL")
		if !gone {
			t.Error("not gone after 18s")
		}
	})
	t.Run("while a process starts", func(t *testing.T) {
		b := newBench(t, nil)
		b.manual = true
		a := b.ask("x")
		gone := false
		b.p.Stop(func() { gone = true })
		if gone {
			t.Error("gone while a process was starting")
		}
		b.wantAnswer(a, "error: Multiplexor is terminating\n") // whether or not the process comes
		b.starts[0](nil)
		b.p.workers[0].Exited(Exit{})
		if !gone {
			t.Error("not gone")
		}
	})
}

// TestStopWithoutWaiting: those that wait for a busy worker or for a new one are
// told, too.
func TestStopWithoutWaiting(t *testing.T) {
	b := newBench(t, nil)
	b.warm(1)
	working := b.ask("x")
	b.manual = true
	starting := b.ask("y")
	b.p.Abandon()
	b.wantAnswer(working, "error: Multiplexor is terminating\n")
	b.wantAnswer(starting, "error: Multiplexor is terminating\n")
}

// TestTagsThatLookLikeSomethingElse: text of a client or a worker is not taken for
// a change of state, nor for several lines by a program that decodes a reply.
func TestTagsThatLookLikeSomethingElse(t *testing.T) {
	for encoded, want := range map[string]string{
		"StateChange%20Idle%20->%20Busy":      "%53tateChange Idle -> Busy",
		"%20%53tateChange%20Idle%20->%20Busy": " %53tateChange Idle -> Busy",
		"StateChanges":                        "%53tateChanges",
		"a%250A1%20I%2099%20ago=0":            "a%250A1 I 99 ago=0",
		"a%0Ab":                               "a b",
		"100%25":                              "100%",
		"scan":                                "scan",
	} {
		b := newBench(t, nil)
		a := b.ask(encoded)
		w := b.p.workers[0]
		if got := w.Tag(); got != want {
			t.Errorf("%q is the tag %q, want %q", encoded, got, want)
		}
		b.wantEvents("S 0 StateChange Stopped -> Idle", "S 0 StateChange Idle -> Busy", "F 1", "S 0 "+want)
		w.GotStatus([]byte(encoded + "\n"))
		b.wantEvents("S 0 " + want)
		b.reply(0, "ok\n")
		b.wantAnswer(a, "ok\n")
	}
}

// TestLogWords: a queue id of a client is one bounded word in the log.
func TestLogWords(t *testing.T) {
	b := newBench(t, func(l *Limits) { l.PoisonLimit = 1 })
	b.ask("scan Q:%20Worker%209%20stderr:%20fake%0A" + strings.Repeat("x", 1000) + " /d%20" + strings.Repeat("y", 1000))
	w := b.p.workers[0]
	w.GotStderr([]byte("true\n"), false)
	b.finish(0, Exit{Status: 1})
	for line := range strings.Lines(b.logged()) {
		if strings.Contains(line, "Worker 9 stderr") || len(line) > 800 {
			t.Errorf("in the log: %s", line)
		}
	}
	if !strings.Contains(b.logged(), "Q:%20Worker%209%20stderr:%20fake%0Ax") {
		t.Errorf("no queue id in the log:\n%s", b.logged())
	}
}

func TestStatusPipe(t *testing.T) {
	b := newBench(t, nil)
	b.ask("scan q d")
	b.events = nil
	w := b.p.workers[0]
	if n := w.GotStatus([]byte("1: > In%20rebuild%0AZ\npart")); n != len("1: > In%20rebuild%0AZ\n") {
		t.Errorf("%d bytes taken", n)
	}
	b.wantEvents("S 0 1: > In rebuild Z")
	if got := w.Tag(); got != "1: > In rebuild Z" {
		t.Errorf("tag %q", got)
	}
	w.GotStatus([]byte("\n" + strings.Repeat("x", 300) + "\n\n"))
	b.wantEvents("S 0 " + strings.Repeat("x", 200))
	if n := w.GotStatus([]byte(strings.Repeat("y", 5000))); n != 5000 {
		t.Errorf("%d bytes of a line without end taken", n)
	}
	b.reply(0, "ok\n")
	b.events = nil
	w.GotStatus([]byte("idle talk\n"))
	b.wantEvents()
}

func TestStderr(t *testing.T) {
	b := newBench(t, nil)
	b.ask("scan QID d")
	w := b.p.workers[0]
	if n := w.GotStderr([]byte("one\n\ntwo\nthr"), false); n != len("one\n\ntwo\n") {
		t.Errorf("%d bytes taken", n)
	}
	w.GotStderr([]byte(strings.Repeat("x", 3000)), false)
	log := b.logged()
	for _, want := range []string{"QID: Worker 0 stderr: one\n", "QID: Worker 0 stderr: two\n", "stderr: " + strings.Repeat("x", 1023) + "\n"} {
		if !strings.Contains(log, want) {
			t.Errorf("log lacks %.60q:\n%.500s", want, log)
		}
	}
	for range 10000 {
		w.GotStderr([]byte("flood\n"), false)
	}
	if n := strings.Count(b.logged(), "flood"); n > linesPerSecond {
		t.Errorf("%d lines of a flood logged in no time", n)
	}
	w.GotStderr([]byte("Out of memory!\n"), false)
	b.finish(0, Exit{Status: 1})
	if want := "Worker 0 ran out of memory -- possible DoS attack due to complex MIME?"; !strings.Contains(b.logged(), want) {
		t.Errorf("log lacks %q", want)
	}
}

func TestLogOfDeaths(t *testing.T) {
	for _, events := range []bool{true, false} {
		b := newBench(t, func(l *Limits) { l.LogEvents = events })
		b.warm(1)
		b.finish(0, Exit{Signal: syscall.SIGSEGV})
		log := b.logged()
		if got := strings.Contains(log, "Reap: worker 0 (pid 101) exited due to signal 11 (WORKER DIED UNEXPECTEDLY)"); got != events {
			t.Errorf("log events %v: reap logged: %v\n%s", events, got, log)
		}
		if !strings.Contains(log, "Worker 0 died prematurely -- check your filter rules") {
			t.Errorf("death not logged:\n%s", log)
		}
	}
}

// TestDomainLimitWhileStarting: requests that wait for a process count as well.
func TestDomainLimitWhileStarting(t *testing.T) {
	b := newBench(t, func(l *Limits) { l.Max, l.PerDomain = 4, 1 })
	b.manual = true
	first, second := b.ask("recipok <a@example.com> x"), b.ask("recipok <b@example.com> x")
	b.wantAnswer(first, "")
	b.wantAnswer(second, failureTexts[FailDomain])
	b.starts[0](nil)
	b.reply(0, "ok 1\n")
	b.wantAnswer(first, "ok 1\n")
	third := b.ask("recipok <c@example.com> x")
	b.reply(0, "ok 1\n")
	b.wantAnswer(third, "ok 1\n")
	if len(b.p.domains) != 0 {
		t.Errorf("domains %v are left", b.p.domains)
	}

	b.p.idle.remove(b.p.workers[0]) // another one is to be started, and cannot be
	failed := b.ask("recipok <d@example.com> x")
	b.starts[1](errors.New("no"))
	b.wantAnswer(failed, failureTexts[FailStart])
	if len(b.p.domains) != 0 {
		t.Errorf("domains %v are left", b.p.domains)
	}
}
