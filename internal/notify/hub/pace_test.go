package hub

import (
	"testing"
	"time"
)

// The handful of messages that one request makes comes in no time, and yet the
// daemon is not busy: they go out at once. In a storm there are rests.
func TestPace(t *testing.T) {
	const work = 100 * time.Microsecond
	now := time.Unix(1000, 0)
	p := newPace(now)
	next := uint64(0)
	for range 1000 {
		now = now.Add(5 * time.Millisecond)
		for range 3 {
			now, next = now.Add(work), next+2
			if rest := p.pause(work, now, next); rest != 0 {
				t.Fatalf("with %d messages in %v: a rest of %v", next, now.Sub(time.Unix(1000, 0)), rest)
			}
		}
	}
	var rested time.Duration
	began := now
	for now.Sub(began) < time.Second {
		now, next = now.Add(work), next+20
		rest := p.pause(work, now, next)
		rested += rest
		now, next = now.Add(rest), next+uint64(rest/(5*time.Microsecond))
	}
	if rested < 800*time.Millisecond {
		t.Errorf("in a storm of one second it rested %v only", rested)
	}
	now = now.Add(time.Second)
	if rest := p.pause(work, now, next+5); rest != 0 {
		t.Errorf("after the storm: a rest of %v", rest)
	}
}

// A round that took long, by the clock, is followed by a rest like any other: listeners hear of an edge within a tenth of
// a second or so, however little of the processor the daemon gets.
func TestPaceRestsShortly(t *testing.T) {
	now := time.Unix(1000, 0)
	p := newPace(now)
	next := uint64(0)
	for _, work := range []time.Duration{time.Millisecond, time.Second, time.Minute, time.Millisecond, 50 * time.Microsecond} {
		for range 50 {
			now, next = now.Add(work), next+uint64(work/(10*time.Microsecond))
			rest := p.pause(work, now, next)
			if rest > 100*time.Millisecond {
				t.Fatalf("after a round of %v: a rest of %v", work, rest)
			}
			now, next = now.Add(rest), next+uint64(rest/(10*time.Microsecond))
		}
	}
}
