package main

import (
	"errors"
	"strings"
	"time"

	"postern/internal/notify/listener"
)

// A state is something of which only the newest counts: Y or Z, L, F. Its
// commands are run one change at a time; what has changed and changed back
// meanwhile is not carried out.
type state struct {
	*engine
	letters string

	want    *listener.Event // as the daemon last said
	changed time.Time       // when it became so
	done    string          // the message that was last carried out, "" if none counts
	acted   time.Time       // when that was begun
	running int
	failed  bool // of the commands that run or ran last
	retry   time.Time
	pause   time.Duration
}

// Pauses before a command that failed for a state is run again.
const (
	firstRetry = time.Second
	lastRetry  = time.Minute
)

func (s *state) covers(letter byte) bool { return strings.IndexByte(s.letters, letter) >= 0 }

func (s *state) change(ev *listener.Event, now time.Time) {
	if s.want != nil && s.want.Line() == ev.Line() {
		return
	}
	e := *ev
	s.want, s.changed = &e, now
}

// forget makes the state unknown.
func (s *state) forget() {
	s.want, s.done, s.retry, s.pause = nil, "", time.Time{}, 0
}

// step runs what is due, or says when it will be.
func (s *state) step(now time.Time) (wake time.Time) {
	if s.want == nil || s.running > 0 || s.closing {
		return time.Time{}
	}
	var due time.Time
	again := s.want.Line() == s.done
	switch {
	case !again:
		due = latest(s.changed.Add(s.Debounce), s.hold(), s.retry)
	case s.Repeat > 0 && s.matched():
		due = s.acted.Add(s.Repeat)
	default:
		return time.Time{}
	}
	if now.Before(due) {
		return due
	}
	s.act(now)
	return time.Time{}
}

// hold is the time until which the last change is kept.
func (s *state) hold() time.Time {
	if s.acted.IsZero() {
		return time.Time{}
	}
	return s.acted.Add(s.MinHold)
}

func (s *state) matched() bool {
	for _, r := range s.rules {
		if r.wants(s.want.Letter) {
			return true
		}
	}
	return false
}

// act runs the commands for the state as it is wanted.
func (s *state) act(now time.Time) {
	s.done, s.failed = s.want.Line(), false
	for _, r := range s.rules {
		if !r.wants(s.want.Letter) {
			continue
		}
		s.acted, s.undoDue = now, true
		s.running++
		s.start(&execution{command: r.command, event: *s.want, what: s.want.Line(), done: s.ended})
	}
}

// ended notes that a command has ended. After a failure the state is carried
// out anew, after a while.
func (s *state) ended(err error) {
	s.running--
	s.failed = s.failed || err != nil && !errors.Is(err, errGivenUp)
	if s.running > 0 {
		return
	}
	if !s.failed {
		s.pause = 0
		return
	}
	s.pause = min(max(2*s.pause, firstRetry), lastRetry)
	s.done, s.retry = "", time.Now().Add(s.pause)
}

func latest(times ...time.Time) (t time.Time) {
	for _, u := range times {
		if u.After(t) {
			t = u
		}
	}
	return t
}
