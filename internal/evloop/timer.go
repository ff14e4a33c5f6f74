package evloop

import "time"

// Timers is a set of timers on a clock that the owner moves. A Loop has one that
// follows the monotonic clock; tests of rules that depend on time move one by
// hand. Times are durations since an arbitrary start and never go back, whatever
// happens to the wall clock.
type Timers struct {
	now  time.Duration
	heap []*Timer
}

// Timer calls Do once at its time. The zero Timer with Do set is ready to use and
// belongs to whatever it is embedded in; starting it again moves it.
type Timer struct {
	Do   func()
	when time.Duration
	slot int // place in the heap plus one; 0 = not running
}

// Now returns the time of the clock when it was last moved: in a Loop, when the
// loop last woke up.
func (ts *Timers) Now() time.Duration { return ts.now }

// Start makes t fire after d, counted from Now.
func (ts *Timers) Start(t *Timer, d time.Duration) {
	t.when = ts.now + max(d, 0)
	if t.slot == 0 {
		ts.heap = append(ts.heap, t)
		t.slot = len(ts.heap)
		ts.up(t.slot - 1)
		return
	}
	if !ts.up(t.slot - 1) {
		ts.down(t.slot - 1)
	}
}

// Stop ends t before its time; a timer that does not run is left alone.
func (ts *Timers) Stop(t *Timer) {
	if t.slot == 0 {
		return
	}
	i, last := t.slot-1, len(ts.heap)-1
	ts.swap(i, last)
	ts.heap[last] = nil
	ts.heap = ts.heap[:last]
	t.slot = 0
	if i < last && !ts.up(i) {
		ts.down(i)
	}
}

// Running reports whether t will still fire.
func (t *Timer) Running() bool { return t.slot != 0 }

// Next returns the time until the first timer fires, which is 0 if it is overdue;
// ok is false if no timer runs.
func (ts *Timers) Next() (d time.Duration, ok bool) {
	if len(ts.heap) == 0 {
		return 0, false
	}
	return max(ts.heap[0].when-ts.now, 0), true
}

// Advance moves the clock to now and fires what is due, earliest first. Timers
// started meanwhile fire in the same call only if they are due as well, and not
// more of them than were running at its start, so that a timer that restarts
// itself with no delay cannot hold the caller.
func (ts *Timers) Advance(now time.Duration) {
	ts.now = max(ts.now, now)
	for n := len(ts.heap); n > 0 && len(ts.heap) > 0 && ts.heap[0].when <= ts.now; n-- {
		t := ts.heap[0]
		ts.Stop(t)
		t.Do()
	}
}

func (ts *Timers) swap(i, j int) {
	h := ts.heap
	h[i], h[j] = h[j], h[i]
	h[i].slot, h[j].slot = i+1, j+1
}

func (ts *Timers) up(i int) (moved bool) {
	for i > 0 {
		parent := (i - 1) / 2
		if ts.heap[i].when >= ts.heap[parent].when {
			break
		}
		ts.swap(i, parent)
		i, moved = parent, true
	}
	return moved
}

func (ts *Timers) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(ts.heap) {
			return
		}
		if r := child + 1; r < len(ts.heap) && ts.heap[r].when < ts.heap[child].when {
			child = r
		}
		if ts.heap[child].when >= ts.heap[i].when {
			return
		}
		ts.swap(i, child)
		i = child
	}
}
