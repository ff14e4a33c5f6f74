package pool

import (
	"strings"
	"testing"
	"time"
)

func TestTicks(t *testing.T) {
	b := newBench(t, func(l *Limits) { l.Max, l.BusyTimeout = 2, 20*time.Second })
	b.p.StartTicks(2, 10*time.Second)
	b.pass(10 * time.Second)
	b.wantStates("BB")
	for i := range 2 {
		if got := b.child(i).lines; got[len(got)-1] != [2]string{"tick 0\n", "tick 1\n"}[i] {
			t.Errorf("worker %d got %q", i, got)
		}
	}
	if got := strings.Join(b.events, "\n"); strings.Contains(got, "tick") {
		t.Errorf("events tell of ticks:\n%s", got)
	}
	if got := b.p.workers[0].Tag(); got != "tick 0" {
		t.Errorf("tag %q", got)
	}
	b.reply(0, "tock 0\n")
	b.finish(1, Exit{Status: 1}) // the original never sent tick 1 again
	b.pass(10 * time.Second)
	b.wantStates("BB")
	b.events = nil
	b.pass(20 * time.Second) // nobody answers: the workers go, without B
	if got := strings.Join(b.events, "\n"); strings.Contains(got, "B\n") || !strings.Contains(got, "Busy -> Killed") {
		t.Errorf("events:\n%s", got)
	}
	// No free workers: skipped, and tried again.
	b.pass(10 * time.Second)
	if !strings.Contains(b.logged(), "Tick 0 skipped -- no free workers") {
		t.Errorf("log:\n%s", b.logged())
	}
	b.reap()
	b.pass(10 * time.Second)
	if n := b.p.count[busy]; n != 2 {
		t.Errorf("%d ticks under way, want 2", n)
	}
	if got := b.p.counters.failed[FailDomain]; got != 0 || b.p.messages != 0 {
		t.Error("ticks are counted as something else")
	}
}

func TestAutoscale(t *testing.T) {
	b := newBench(t, func(l *Limits) { l.Max = 3 })
	b.p.Begin()
	b.p.StartAutoscale()
	b.ask("long")
	for range 5 {
		b.pass(15 * time.Second)
	}
	b.wantStates("BSS") // .25 .44 .58 .68 .76
	b.pass(15 * time.Second)
	b.wantStates("BIS") // .82
	if !strings.Contains(b.logged(), "Autoscale: scaled out to 2 workers (ema_busy=0.82 queued=0)") {
		t.Errorf("log:\n%s", b.logged())
	}
	if got := string(b.p.AppendAutoscale(nil)); got != "enabled=1 interval=15 ema_busy=0.8220 scale_out=0.80 scale_in=0.30 out_cool=5 in_cool=30 ema_alpha=0.2500\n" {
		t.Errorf("autoscale: %q", got)
	}
	b.reply(0, "ok\n")
	for b.p.count[killed] == 0 && b.clock.Now() < 10*time.Minute {
		b.pass(15 * time.Second)
	}
	b.wantStates("IKS") // the cold one goes
	if !strings.Contains(b.logged(), "Autoscale: scaled in to 1 workers") {
		t.Errorf("log:\n%s", b.logged())
	}
}

func TestHistory(t *testing.T) {
	wall := time.Date(2026, 11, 22, 10, 59, 50, 0, time.UTC)
	h := loadAverages{wall: func() time.Time { return wall }}
	at := func(s int) time.Duration { return time.Duration(s) * time.Second }
	h.record(KindScan, at(5), 100*time.Millisecond, 2)
	h.record(KindScan, at(14), 300*time.Millisecond, 4)
	h.record(KindRelayok, at(14), time.Millisecond, 1)
	for _, tt := range []struct{ now, window, count int }{{14, 10, 2}, {15, 10, 1}, {23, 10, 1}, {24, 10, 0}, {64, 60, 2}, {65, 60, 1}, {613, 600, 1}, {614, 600, 0}, {5000, 600, 0}} {
		if got, _, _ := h.last(at(tt.now), tt.window, KindScan); got.count != tt.count {
			t.Errorf("%d scans in the %ds before %ds, want %d", got.count, tt.window, tt.now, tt.count)
		}
	}
	got, _, _ := h.last(at(14), 10, KindScan)
	if b, ms := got.averages(1); b != 3 || ms != 200 {
		t.Errorf("averages %v and %v, want 3 and 200", b, ms)
	}
	if b, ms := (tally{}).averages(1); b != 1 || ms != 0 {
		t.Errorf("averages of nothing %v and %v, want 1 and 0", b, ms)
	}
	wall = wall.Add(15 * time.Second) // the next clock hour
	h.record(KindScan, at(29), 100*time.Millisecond, 1)
	for window, want := range map[int]int{1: 1, 4: 3, 24: 3} {
		if got, _ := h.lastHours(window, KindScan); got.count != want {
			t.Errorf("%d scans in %d hours, want %d", got.count, window, want)
		}
	}
	if _, span := h.lastHours(4, KindScan); span != 15 {
		t.Errorf("span %d, want 15", span)
	}
	// The bucket of a second is emptied when it comes round again.
	h.record(KindScan, at(605), time.Second, 1)
	if got, _, _ := h.last(at(605), 600, KindScan); got.count != 3 {
		t.Errorf("%d scans after ten minutes, want 3", got.count)
	}
}
