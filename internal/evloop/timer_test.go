package evloop

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestTimersFireInOrder(t *testing.T) {
	var ts Timers
	var fired []int
	timers := make([]*Timer, 5)
	for i := range timers {
		timers[i] = &Timer{Do: func() { fired = append(fired, i) }}
	}
	ts.Start(timers[0], 30)
	ts.Start(timers[1], 10)
	ts.Start(timers[2], 20)
	ts.Start(timers[3], 40)
	ts.Start(timers[4], 5)
	ts.Stop(timers[2])
	ts.Start(timers[4], 35) // moves it
	if d, ok := ts.Next(); d != 10 || !ok {
		t.Errorf("Next = %v, %v, want 10ns, true", d, ok)
	}
	ts.Advance(9)
	if fired != nil {
		t.Fatalf("fired %v before their time", fired)
	}
	ts.Advance(35)
	if want := []int{1, 0, 4}; !slices.Equal(fired, want) {
		t.Errorf("fired %v, want %v", fired, want)
	}
	if timers[2].Running() || !timers[3].Running() {
		t.Errorf("running: %v and %v, want false and true", timers[2].Running(), timers[3].Running())
	}
	ts.Advance(20) // the clock never goes back
	if ts.Now() != 35 {
		t.Errorf("Now = %v after a step back, want 35ns", ts.Now())
	}
}

func TestTimerThatRestartsItselfDoesNotHoldTheCaller(t *testing.T) {
	var ts Timers
	n := 0
	var tm Timer
	tm.Do = func() { n++; ts.Start(&tm, 0) }
	ts.Start(&tm, 0)
	ts.Advance(1)
	if n != 1 {
		t.Errorf("fired %d times in one Advance, want 1", n)
	}
}

// TestTimersAgainstModel starts, moves and stops timers at random and compares
// with a sorted list.
func TestTimersAgainstModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var ts Timers
	due := map[*Timer]time.Duration{}
	timers := make([]*Timer, 50)
	for i := range timers {
		tm := &Timer{}
		tm.Do = func() {
			if when, ok := due[tm]; !ok || when > ts.Now() {
				t.Fatalf("timer for %v (known: %v) fired at %v", when, ok, ts.Now())
			}
			delete(due, tm)
		}
		timers[i] = tm
	}
	for range 20000 {
		tm := timers[rng.IntN(len(timers))]
		switch rng.IntN(4) {
		case 0, 1:
			d := time.Duration(rng.IntN(100))
			ts.Start(tm, d)
			due[tm] = ts.Now() + d
		case 2:
			ts.Stop(tm)
			delete(due, tm)
		case 3:
			// Two rounds: what is due after the first was due before it.
			now := ts.Now() + time.Duration(rng.IntN(10))
			ts.Advance(now)
			for tm, when := range due {
				if when <= now {
					t.Fatalf("timer %p for %v has not fired at %v", tm, when, now)
				}
			}
		}
	}
}

func BenchmarkTimers(b *testing.B) {
	var ts Timers
	timers := make([]Timer, 1000)
	for i := range timers {
		ts.Start(&timers[i], time.Duration(i))
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		tm := &timers[i%len(timers)]
		ts.Stop(tm)
		ts.Start(tm, time.Hour)
	}
}
