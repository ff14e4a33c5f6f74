package pool

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"
)

func newReloadBench(t *testing.T, workers, max int) *bench {
	t.Helper()
	b := newBench(t, func(l *Limits) { l.ClassicReload, l.Max, l.QueueSize, l.MaxRequests = false, max, 10, 5 })
	b.warm(workers)
	return b
}

// generations returns a letter for each worker: o for old rules, n for new ones, . for
// a slot without a process or with one that is going.
func (b *bench) generations() string {
	s := ""
	for _, w := range b.p.workers {
		switch {
		case w.child == nil || w.state == killed:
			s += "."
		case b.p.old(w):
			s += "o"
		default:
			s += "n"
		}
	}
	return s
}

func (b *bench) wantGenerations(want string) {
	b.t.Helper()
	if got := b.generations(); got != want {
		b.t.Fatalf("generations %s (states %s), want %s", got, b.states(), want)
	}
}

// reap ends what was told to go.
func (b *bench) reap() {
	for _, w := range b.p.workers {
		if w.state == killed {
			w.Exited(Exit{Signal: syscall.SIGTERM})
		}
	}
}

func TestReloadWithRoom(t *testing.T) {
	b := newReloadBench(t, 2, 4)
	b.p.Reread()
	b.wantGenerations("oon.")
	if got := b.child(2).lines; len(got) != 1 || got[0] != "ping\n" {
		t.Fatalf("the new worker was asked %q", got)
	}
	a := b.ask("x") // the old ones serve meanwhile
	b.reply(0, "ok\n")
	b.wantAnswer(a, "ok\n")
	if strings.Contains(strings.Join(b.events, "\n"), "\nR") {
		t.Error("R before the new rules were in force")
	}
	b.reply(2, "PONG\n")
	b.pass(0)
	b.reap()
	if got := b.generations(); strings.Count(got, "o") != 1 || strings.Count(got, "n") != 2 {
		t.Fatalf("generations %s, want one old one and two new ones", got)
	}
	for i, w := range b.p.workers {
		if w.state == busy {
			b.reply(i, "PONG\n")
		}
	}
	b.pass(0)
	b.reap()
	if got := b.generations(); strings.Contains(got, "o") || strings.Count(got, "n") != 2 || b.p.reload.active {
		t.Errorf("generations %s, active %v, want two new ones and an end", got, b.p.reload.active)
	}
	if n := strings.Count(strings.Join(b.events, "\n")+"\n", "\nR\n"); n != 1 {
		t.Errorf("%d R events, want 1", n)
	}
}

func TestReloadFullPool(t *testing.T) {
	b := newReloadBench(t, 2, 2)
	busyOne := b.ask("x")
	b.p.Reread()
	b.wantStates("BK") // room is made by ending an idle one
	b.reap()
	b.wantStates("BB")
	b.reply(1, "PONG\n")
	b.pass(0)
	b.wantGenerations("on")
	b.reply(0, "ok\n")
	b.wantAnswer(busyOne, "ok\n")
	b.pass(0)
	b.reap()
	b.pass(0)
	if got := b.generations(); strings.Contains(got, "o") {
		t.Errorf("generations %s after the busy one was done", got)
	}
}

func TestReloadGivenUp(t *testing.T) {
	b := newReloadBench(t, 2, 4)
	b.broken = errors.New("syntax error in filter")
	b.p.Reread()
	b.pass(5 * time.Minute)
	b.wantGenerations("nn..") // they count as new from now on
	b.wantStates("IISS")
	if n := strings.Count(b.logged(), "Could not start"); n != 3 {
		t.Errorf("%d attempts, want 3", n)
	}
	if want := "staying with the workers that have the old rules"; !strings.Contains(b.logged(), want) {
		t.Errorf("log lacks %q", want)
	}
	if got := strings.Join(b.events, "\n"); !strings.Contains(got, "R failed") {
		t.Errorf("events %s", got)
	}
	// They are not retired: nobody could take their place.
	for range 20 {
		a := b.ask("x")
		for i, w := range b.p.workers {
			if w.state == busy {
				b.reply(i, "ok\n")
			}
		}
		b.wantAnswer(a, "ok\n")
	}
	b.pass(10 * time.Minute)
	b.wantStates("IISS")

	// When a new worker has worked, the rules of retirement are back.
	b.broken = nil
	b.pass(time.Minute)
	for range 3 {
		b.ask("y")
	}
	b.wantStates("BBBS")
	b.reply(2, "ok\n")
	b.reply(0, "ok\n")
	b.wantStates("IBIB") // the last one is to take the place of the first
	b.reply(3, "PONG\n")
	b.pass(0)
	b.wantStates("KBII")
}

// TestReloadDiesInTheMiddle: a new worker that is started but dies before it
// answers counts; one that does not answer at all, too.
func TestReloadDiesInTheMiddle(t *testing.T) {
	b := newReloadBench(t, 1, 2)
	b.p.Reread()
	b.finish(1, Exit{Status: 255})
	b.pass(time.Second)
	b.wantGenerations("on")
	b.pass(time.Minute) // no answer
	b.reap()
	b.pass(30 * time.Second)
	b.wantGenerations("on")
	b.reply(1, "error: filter not loaded\n")
	b.pass(0)
	if b.p.reload.active || !b.p.hold {
		t.Errorf("active %v, hold %v after three failures of different kinds", b.p.reload.active, b.p.hold)
	}
}

func TestReloadOfNothing(t *testing.T) {
	b := newBench(t, func(l *Limits) { l.ClassicReload = false })
	b.p.Reread()
	b.wantEvents("R")
	a := b.ask("x")
	b.reply(0, "ok\n")
	b.wantAnswer(a, "ok\n")
	b.wantStates("IS")
}

// TestReloadAgainWhileTrying: an answer of a worker that was started before the
// second reread says nothing about the newest rules.
func TestReloadAgainWhileTrying(t *testing.T) {
	b := newReloadBench(t, 1, 4)
	forgotten := -1
	b.p.os.Forget = func(generation int) { forgotten = generation }
	b.p.Reread()
	b.wantGenerations("on..")
	b.p.Reread()
	b.reply(1, "PONG\n")
	if b.p.reload.confirmed || forgotten >= 0 {
		t.Fatalf("confirmed %v, rules before %d given up, by a worker with older rules", b.p.reload.confirmed, forgotten)
	}
	b.pass(0)
	b.wantGenerations("oon.")
	b.reply(2, "PONG\n")
	if !b.p.reload.confirmed || forgotten != 2 {
		t.Errorf("confirmed %v, rules before %d given up, want 2", b.p.reload.confirmed, forgotten)
	}
}

// TestReloadErrorAnswer: a worker whose rules do not work gets no requests.
func TestReloadErrorAnswer(t *testing.T) {
	b := newReloadBench(t, 1, 4)
	b.p.limits.ReloadFailures = 1
	b.p.Reread()
	b.reply(1, "error: filter not loaded\n")
	b.wantStates("IKSS")
	a := b.ask("x")
	b.reply(0, "ok\n")
	b.wantAnswer(a, "ok\n")
}
