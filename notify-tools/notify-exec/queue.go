package main

import (
	"time"

	"postern/internal/notify/listener"
)

// A queue is the events that wait for one rule: those that are no states, each
// of which counts.
type queue struct {
	*engine
	rule *rule

	waiting []listener.Event
	arrived time.Time // when the newest came
	acted   time.Time // when the last run began
	running int
	merged  int // events that the newest stands for besides itself
	dropped int // events given up since this was last said
	told    time.Time
}

// tellEvery is how often at most dropped events are reported.
const tellEvery = 5 * time.Second

// add puts an event at the end. With --min-hold or --debounce only the newest
// waits; otherwise the oldest give way when there are too many.
func (q *queue) add(ev *listener.Event, now time.Time) {
	q.arrived = now
	if (q.MinHold > 0 || q.Debounce > 0) && len(q.waiting) > 0 {
		q.waiting[0] = *ev
		q.merged++
		return
	}
	if len(q.waiting) >= q.Backlog {
		q.waiting = q.waiting[1:]
		q.dropped++
	}
	q.waiting = append(q.waiting, *ev)
}

// step runs what is due, or says when it will be.
func (q *queue) step(now time.Time) (wake time.Time) {
	wake = q.tell(now)
	for len(q.waiting) > 0 && q.running < q.MaxParallel && !q.closing {
		due := latest(q.arrived.Add(q.Debounce))
		if !q.acted.IsZero() {
			due = latest(due, q.acted.Add(q.MinHold))
		}
		if now.Before(due) {
			if wake.IsZero() || due.Before(wake) {
				wake = due
			}
			return wake
		}
		ev := q.waiting[0]
		q.waiting = q.waiting[1:]
		q.acted, q.undoDue = now, true
		q.running++
		q.start(&execution{command: q.rule.command, event: ev, merged: q.merged, what: ev.Line(), done: func(error) { q.running-- }})
		q.merged = 0
	}
	return wake
}

// tell says how many events were dropped, now and then.
func (q *queue) tell(now time.Time) (wake time.Time) {
	if q.dropped == 0 {
		return time.Time{}
	}
	if due := q.told.Add(tellEvery); now.Before(due) {
		return due
	}
	q.warn("dropped %d events for --on %s: they come faster than %q runs", q.dropped, q.rule.letters, q.rule.command[0])
	q.dropped, q.told = 0, now
	return time.Time{}
}

// drop gives up what waits, because the program ends.
func (q *queue) drop() {
	if n := q.dropped + len(q.waiting); n > 0 {
		q.warn("%d events for --on %s were not handled", n, q.rule.letters)
	}
	q.waiting, q.dropped = nil, 0
}
