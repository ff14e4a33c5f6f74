package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"postern/internal/notify"
)

// An engine receives events and decides what is run when. One goroutine, that
// of run, owns all of it; commands and the connection have theirs and report.
type engine struct {
	*settings
	out, log io.Writer

	states []*state
	queues []*queue
	free   int // last known, -1 if unknown

	reports chan report // of commands that have ended
	running int

	up      bool
	away    time.Time // since when there is no connection
	undoDue bool      // something may be in force that undo would end
	undoing bool      // undo runs, and nothing else begins
	failed  error     // of the last undo
	closing bool
}

// undoRetry is how long after a failure undo is run again.
const undoRetry = 5 * time.Second

// A report is the end of a command.
type report struct {
	run *execution
	err error
}

func newEngine(s *settings, stdout, stderr io.Writer) *engine {
	e := &engine{settings: s, out: stdout, log: stderr, free: -1,
		reports: make(chan report), undoDue: true, away: time.Now()}
	for _, letters := range []string{"YZ", "L", "F"} {
		e.states = append(e.states, &state{engine: e, letters: letters})
	}
	for _, r := range s.rules {
		e.queues = append(e.queues, &queue{engine: e, rule: r})
	}
	return e
}

// run returns when a signal has come and all is undone, or when the daemon
// cannot be listened to any more.
func (e *engine) run(ctx context.Context, stop <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, ended := e.follow(ctx)
	for {
		wake := e.step(time.Now())
		var timer <-chan time.Time
		if !wake.IsZero() {
			timer = time.After(time.Until(wake))
		}
		select {
		case ev := <-events:
			e.event(&ev, time.Now())
		case r := <-e.reports:
			e.finished(r)
		case <-timer:
		case err := <-ended:
			return errors.Join(err, e.end(stop))
		case <-stop:
			return e.end(stop)
		}
	}
}

func (e *engine) follow(ctx context.Context) (<-chan notify.Event, <-chan error) {
	events, ended := make(chan notify.Event), make(chan error, 1)
	f := &notify.Follower{Source: e.source, Interest: notify.Interest{Letters: e.letters()}, Once: e.NoReconnect}
	go func() {
		ended <- f.Follow(ctx, func(ev notify.Event) error {
			select {
			case events <- ev:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	return events, ended
}

// event takes an event in.
func (e *engine) event(ev *notify.Event, now time.Time) {
	switch ev.Kind {
	case notify.Up:
		if !e.up {
			e.say("connected to %s", ev.Source)
		}
		e.up = true
	case notify.Down:
		e.up, e.away = false, now
		e.warn("lost %s: %v", ev.Source, ev.Err)
	case notify.Lost:
		e.warn("%d events were lost on the way", ev.Lost)
	case notify.State, notify.Happened:
		if n := ev.Free(); n >= 0 {
			e.free = n
		} else if ev.Letter == 'Y' && e.free == 0 {
			e.free = -1
		}
		for _, s := range e.states {
			if s.covers(ev.Letter) {
				s.change(ev, now)
				return
			}
		}
		if ev.Kind == notify.State {
			return // a worker's tag has been set before, it is no event now
		}
		for _, q := range e.queues {
			if q.rule.wants(ev.Letter) {
				q.add(ev, now)
			}
		}
	}
}

// step starts what is due and says when there is something to be done next;
// zero means at the next event.
func (e *engine) step(now time.Time) (wake time.Time) {
	soonest := func(t time.Time) {
		if !t.IsZero() && (wake.IsZero() || t.Before(wake)) {
			wake = t
		}
	}
	if !e.up && e.undoDue && e.running == 0 {
		if due := e.away.Add(e.DeadMan); !now.Before(due) {
			e.undoNow()
		} else {
			soonest(due)
		}
	}
	if e.undoing {
		return wake
	}
	for _, s := range e.states {
		soonest(s.step(now))
	}
	for _, q := range e.queues {
		soonest(q.step(now))
	}
	return wake
}

// undoNow starts the undo command. Afterwards nothing counts as carried out, so
// that what the daemon says when it is back is acted on, whatever it is.
func (e *engine) undoNow() {
	e.undoDue = false
	for _, s := range e.states {
		s.forget()
	}
	if e.undo == nil {
		e.failed = nil
		return
	}
	if !e.closing {
		e.warn("%s has been away for %v: undo", e.source.Name, e.DeadMan)
	}
	e.undoing = true
	e.start(&execution{command: e.undo, event: notify.Event{Source: e.source.Name}, what: "undo"})
}

// start runs a command in a goroutine that reports its end.
func (e *engine) start(x *execution) {
	x.free = e.free
	x.timeout, x.out, x.log = e.RunTimeout, e.out, e.log
	e.running++
	e.say("%s: run %q", x.what, x.arguments())
	go func() {
		e.reports <- report{x, x.run()}
	}()
}

func (e *engine) finished(r report) {
	e.running--
	if r.err != nil {
		e.warn("error: %s: %q: %v", r.run.what, r.run.command[0], r.err)
	}
	if r.run.done != nil {
		r.run.done(r.err)
		return
	}
	e.undoing, e.failed = false, r.err
	if r.err != nil && !e.closing {
		e.undoDue, e.away = true, time.Now().Add(undoRetry-e.DeadMan)
	}
}

// end waits for what runs, undoes what may be in force and returns. A second
// signal cuts this short.
func (e *engine) end(stop <-chan os.Signal) error {
	e.closing = true
	for _, q := range e.queues {
		q.drop()
	}
	for e.running > 0 || e.undoDue {
		if e.running == 0 {
			e.undoNow()
			continue
		}
		select {
		case r := <-e.reports:
			e.finished(r)
		case <-stop:
			return errors.New("stopped before all was undone")
		}
	}
	if e.failed != nil {
		return fmt.Errorf("undo failed: %w", e.failed)
	}
	return nil
}

func (e *engine) say(format string, args ...any) {
	if e.Verbose {
		e.warn(format, args...)
	}
}

func (e *engine) warn(format string, args ...any) {
	fmt.Fprintf(e.log, "%s: %s\n", name, notify.Printable(fmt.Sprintf(format, args...)))
}
