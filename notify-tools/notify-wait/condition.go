package main

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"postern/internal/notify"
	"postern/internal/notify/listener"
)

// A condition is fed with events until it is met.
type condition interface {
	letters() string // what to subscribe to
	met(*listener.Event) bool
}

var numberForm = regexp.MustCompile(`^(free|working)\s*(>=|<=|!=|==|=|>|<)\s*([0-9]{1,9})$`)

func parseCondition(s string) (condition, error) {
	s = strings.TrimSpace(s)
	if m := numberForm.FindStringSubmatch(s); m != nil {
		n, err := strconv.Atoi(m[3])
		if m[1] == "working" {
			return working{free{m[2], n}}, err
		}
		return free{m[2], n}, err
	}
	switch {
	case s == "no-workers":
		return free{"=", 0}, nil
	case s == "idle":
		return &idle{}, nil
	case s != "" && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == "":
		return happens(s), nil
	}
	return nil, fmt.Errorf("condition %q: not free>=N or working>=N (or > <= < = !=), idle, no-workers or message letters", s)
}

// free compares the number of free workers, as the snapshot and the messages
// tell it.
type free struct {
	op string
	n  int
}

func (c free) letters() string { return "FYZ" }

func (c free) met(e *listener.Event) bool {
	if e.Kind != listener.Happened && e.Kind != listener.State {
		return false
	}
	if n := e.Free(); n >= 0 {
		return c.holds(n)
	}
	// Y alone says that there is at least one.
	return e.Letter == notify.LetterSome && c.holds(1) && (c.op[0] == '>' || c.op == "!=" && c.n == 0)
}

func (c free) holds(n int) bool {
	switch c.op {
	case ">=":
		return n >= c.n
	case "<=":
		return n <= c.n
	case ">":
		return n > c.n
	case "<":
		return n < c.n
	case "!=":
		return n != c.n
	}
	return n == c.n
}

// working compares the number of workers that have answered since they were started:
// that a worker is free says only that one could be started.
type working struct{ free }

func (c working) letters() string { return "N" }

func (c working) met(e *listener.Event) bool {
	if e.Kind != listener.Happened && e.Kind != listener.State || e.Letter != notify.LetterWorking {
		return false
	}
	n, err := strconv.Atoi(e.Text)
	return err == nil && c.holds(n)
}

// happens waits for a message; what a snapshot says has happened before.
type happens string

func (c happens) letters() string { return string(c) }

func (c happens) met(e *listener.Event) bool {
	return e.Kind == listener.Happened && strings.IndexByte(string(c), e.Letter) >= 0
}

// idle waits until no worker has a request. An original multiplexor does not
// say which are busy at the start: there, it takes one that becomes idle while
// we listen, and no other that has become busy meanwhile.
type idle struct {
	busy     map[int]bool
	complete bool // the state of all workers is known as far as it ever will be
}

func (c *idle) letters() string { return "S" }

func (c *idle) met(e *listener.Event) bool {
	switch e.Kind {
	case listener.Up:
		c.busy, c.complete = map[int]bool{}, false
	case listener.Live:
		c.complete = true
	case listener.State, listener.Happened:
		worker := e.Worker()
		if worker < 0 {
			return false
		}
		_, state, changed := e.StateChange()
		if !changed || state == notify.Busy {
			c.busy[worker] = true
			return false
		}
		if c.busy[worker] && e.Seq == 0 {
			c.complete = true
		}
		delete(c.busy, worker)
	default:
		return false
	}
	return c.complete && len(c.busy) == 0
}
