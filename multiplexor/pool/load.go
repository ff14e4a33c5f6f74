package pool

import (
	"time"
)

// loadAverages counts what was finished in the last ten minutes, second by second, and
// in the last day, hour by hour. Times are those of the timers; hours are clock hours.
type loadAverages struct {
	seconds [MaxLoadSeconds]second
	hours   [loadHours]hour
	wall    func() time.Time // the wall clock, for the hours
}

// MaxLoadSeconds is how far back load averages by the second go.
const MaxLoadSeconds = 600

const loadHours = 24

// tally is the sum of some finished commands of one kind.
type tally struct {
	count, busy int
	ms          int64
}

func (t *tally) add(o tally) {
	t.count += o.count
	t.busy += o.busy
	t.ms += o.ms
}

type second struct {
	at                  int64 // which second this is, plus one; 0 = never used
	kind                [kinds]tally
	activations, reaped int
}

type hour struct {
	at          int64 // hours since 1970
	kind        [kinds]tally
	first, last [kinds]int64 // seconds since 1970
}

// second returns the bucket of now, emptied if it is an old one.
func (h *loadAverages) second(now time.Duration) *second {
	at := int64(now/time.Second) + 1
	s := &h.seconds[at%MaxLoadSeconds]
	if s.at != at {
		*s = second{at: at}
	}
	return s
}

// record counts a command that took the given time and ended while busy workers
// were busy, its own included.
func (h *loadAverages) record(k Kind, now, took time.Duration, busy int) {
	t := tally{1, busy, int64(took / time.Millisecond)}
	h.second(now).kind[k].add(t)

	unix := h.wall().Unix()
	b := &h.hours[unix/3600%loadHours]
	if b.at != unix/3600 {
		*b = hour{at: unix / 3600}
	}
	if b.kind[k].count == 0 {
		b.first[k] = unix
	}
	b.last[k] = unix
	b.kind[k].add(t)
}

func (h *loadAverages) activated(now time.Duration) { h.second(now).activations++ }
func (h *loadAverages) reaped(now time.Duration)    { h.second(now).reaped++ }

// last sums the current second and the n-1 before it.
func (h *loadAverages) last(now time.Duration, n int, k Kind) (t tally, activations, reaped int) {
	at := int64(now/time.Second) + 1
	for i := range h.seconds {
		if s := &h.seconds[i]; s.at > 0 && s.at <= at && s.at > at-int64(n) {
			t.add(s.kind[k])
			activations += s.activations
			reaped += s.reaped
		}
	}
	return t, activations, reaped
}

// lastHours sums the current clock hour and the n-1 before it; span is the time
// between the first and the last command in them, in seconds.
func (h *loadAverages) lastHours(n int, k Kind) (t tally, span int64) {
	at := h.wall().Unix() / 3600
	first, last := int64(0), int64(0)
	for i := range h.hours {
		b := &h.hours[i]
		if b.at > at || b.at <= at-int64(n) || b.kind[k].count == 0 {
			continue
		}
		t.add(b.kind[k])
		if first == 0 || b.first[k] < first {
			first = b.first[k]
		}
		last = max(last, b.last[k])
	}
	return t, last - first
}

// averages returns the mean number of busy workers and of milliseconds.
func (t tally) averages(empty float64) (busy, ms float64) {
	if t.count == 0 {
		return empty, 0
	}
	return float64(t.busy) / float64(t.count), float64(t.ms) / float64(t.count)
}
