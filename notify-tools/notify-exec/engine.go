package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"postern/internal/notify"
	"postern/internal/notify/listener"
	"postern/internal/printable"
)

// An engine receives events and decides what is run when. One goroutine, that
// of run, owns all of it; commands and the connection have theirs and report.
type engine struct {
	*settings
	out, log io.Writer // of commands
	messages io.Writer // waits for nobody

	states []*state
	queues []*queue
	free   int // last known, -1 if unknown

	reports chan report // of commands that have ended
	running map[*execution]bool

	up      bool
	away    time.Time // since when there is no connection
	undoDue bool      // something may be in force that undo would end
	undoing undoing
	undoAt  time.Time // when undo begins at the latest, whatever else still runs
	failed  error     // of the last undo
	closing bool
}

// undoing is how far an undo is. While there is one nothing else begins.
type undoing int

const (
	notUndoing undoing = iota
	clearing           // what runs is being ended, so that it does nothing behind the undo
	undoRuns
)

const (
	undoRetry  = 5 * time.Second         // how long after a failure undo is run again
	undoWithin = killDelay + time.Second // how long it waits for what cannot even be killed
)

// A report is the end of a command.
type report struct {
	run *execution
	err error
}

func newEngine(s *settings, stdout, stderr io.Writer) *engine {
	e := &engine{settings: s, out: stdout, log: stderr, free: -1,
		reports: make(chan report), running: map[*execution]bool{}, undoDue: true, away: time.Now()}
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
		timer := alarm(e.step(time.Now()))
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

// alarm returns a channel that is ready at a time, never if that is zero.
func alarm(at time.Time) <-chan time.Time {
	if at.IsZero() {
		return nil
	}
	return time.After(time.Until(at))
}

func (e *engine) follow(ctx context.Context) (<-chan listener.Event, <-chan error) {
	events, ended := make(chan listener.Event), make(chan error, 1)
	f := &listener.Follower{Source: e.source, Interest: listener.Interest{Letters: e.letters()}, Once: e.NoReconnect}
	go func() {
		ended <- f.Follow(ctx, func(ev listener.Event) error {
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
func (e *engine) event(ev *listener.Event, now time.Time) {
	switch ev.Kind {
	case listener.Up:
		if !e.up {
			e.say("connected to %s", ev.Source)
		}
		e.up = true
	case listener.Down:
		e.up, e.away = false, now
		e.warn("lost %s: %v", ev.Source, ev.Err)
	case listener.Lost:
		e.warn("%d events were lost on the way", ev.Lost)
	case listener.State, listener.Happened:
		if n := ev.Free(); n >= 0 {
			e.free = n
		} else if ev.Letter == notify.LetterSome && e.free == 0 {
			e.free = -1
		}
		for _, s := range e.states {
			if s.covers(ev.Letter) {
				s.change(ev, now)
				return
			}
		}
		if ev.Kind == listener.State {
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
	if e.undoDue && e.undoing == notUndoing {
		switch due := e.away.Add(e.DeadMan); {
		case e.closing, !e.up && !now.Before(due):
			e.beginUndo(now)
		case !e.up:
			soonest(due)
		}
	}
	if e.undoing == clearing {
		if len(e.running) > 0 && now.Before(e.undoAt) {
			return e.undoAt
		}
		e.undoing = undoRuns
		e.start(&execution{command: e.undo, event: listener.Event{Source: e.source.Name}, what: "undo"})
	}
	if e.undoing != notUndoing {
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

// beginUndo ends what runs and makes the undo command the next thing that is run. From now on nothing counts as
// carried out, so that what the daemon says when it is back is acted on, whatever it is.
func (e *engine) beginUndo(now time.Time) {
	e.undoDue = false
	for _, s := range e.states {
		s.forget()
	}
	if e.undo == nil {
		return
	}
	if !e.closing {
		e.warn("%s has been away for %v: undo", e.source.Name, e.DeadMan)
	}
	e.undoing, e.undoAt = clearing, now.Add(undoWithin)
	for x := range e.running {
		x.giveUp()
	}
}

// start runs a command in a goroutine that reports its end.
func (e *engine) start(x *execution) {
	x.free = e.free
	x.timeout, x.out, x.log = e.RunTimeout, e.out, e.log
	x.givenUp = make(chan struct{})
	e.running[x] = true
	e.say("%s: run %q", x.what, x.arguments())
	go func() {
		e.reports <- report{x, x.run()}
	}()
}

func (e *engine) finished(r report) {
	delete(e.running, r.run)
	if r.err != nil {
		e.warn("error: %s: %q: %v", r.run.what, r.run.command[0], r.err)
	}
	if r.run.done != nil {
		r.run.done(r.err)
		return
	}
	e.undoing, e.failed = notUndoing, r.err
	if r.err != nil && !e.closing {
		e.undoDue, e.away = true, time.Now().Add(undoRetry-e.DeadMan)
	}
}

// end undoes what may be in force and returns; without --undo it waits for what runs. A second signal cuts this short.
func (e *engine) end(stop <-chan os.Signal) error {
	e.closing = true
	for _, q := range e.queues {
		q.drop()
	}
	for {
		timer := alarm(e.step(time.Now()))
		if e.undoing == notUndoing && (e.undo != nil || len(e.running) == 0) {
			break
		}
		select {
		case r := <-e.reports:
			e.finished(r)
		case <-timer:
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
	fmt.Fprintf(e.messages, "%s: %s\n", name, printable.Text(fmt.Sprintf(format, args...)))
}
