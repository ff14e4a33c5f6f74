package testenv

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Patience is how long whatever must come may take. It is far above what the slowest machine needs, and says nothing
// about what is tested: a limit of time that is a promise is shown with a clock of the test's own, or as a ratio.
const Patience = 3 * time.Minute

// Eventually calls cond until it is true, first at once, then every few milliseconds. A test whose condition does not
// become true is ended by the watchdog, which names what it waited for.
func Eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	w := beginWait(t, what)
	defer w.end()
	if !Poll(w.left(), cond) {
		w.fail()
	}
}

// Poll calls cond until it is true, at most for the given time, and reports whether it was. It may be called on any
// goroutine.
func Poll(within time.Duration, cond func() bool) bool {
	deadline := time.Now().Add(within)
	for pause := time.Millisecond; !cond(); {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(pause)
		if pause < 20*time.Millisecond {
			pause *= 2
		}
	}
	return true
}

// Receive returns what comes from a channel, or the zero value when it is closed. A test whose channel nobody fills is
// ended by the watchdog, which names what it waited for.
func Receive[T any](t testing.TB, what string, from <-chan T) T {
	t.Helper()
	w := beginWait(t, what)
	defer w.end()
	v, came := receive(from, w.left())
	if !came {
		w.fail()
	}
	return v
}

func receive[T any](from <-chan T, within time.Duration) (v T, came bool) {
	select {
	case v = <-from: // it counts also when it is late
		return v, true
	default:
	}
	limit := time.NewTimer(within)
	defer limit.Stop()
	select {
	case v = <-from:
		return v, true
	case <-limit.C:
		return v, false
	}
}

// aMoment is long enough to see what comes too early on most machines; a slower one sees it less often, and never
// something else.
const aMoment = 100 * time.Millisecond

// NotYet ends the test if something comes from a channel within a moment.
func NotYet[T any](t testing.TB, what string, from <-chan T) {
	t.Helper()
	if v, came := receive(from, aMoment); came {
		t.Fatalf("too early: %s: %v", what, v)
	}
}

// Soon gives a context that ends in a moment: for what must be given up, and not for what must come.
func Soon(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, aMoment)
}

// Pause is what a slow peer does: nothing, for a while. No test waits for anything with it.
func Pause(d time.Duration) { time.Sleep(d) }

// Task is a function that runs on a goroutine of its own, which the test's owns.
type Task struct {
	t    testing.TB
	what string
	done chan struct{}
	err  error // valid after done
	had  bool  // somebody has looked at err
}

// errLeft is the result of a function that did not return.
var errLeft = errors.New("it did not return: t.Fatal and the like end the goroutine that calls them, not the test")

// Go runs f on a goroutine of its own, where nothing may end the test: f returns what went wrong. The test has it with
// Wait or Err; if it does not ask, its end waits for the function and fails with its error. What makes f return must
// therefore have happened by then: a cleanup that closes a listener is registered after Go.
func Go(t testing.TB, what string, f func() error) *Task {
	t.Helper()
	return run(t, what, func(k *Task) { k.err = f() })
}

// Play is Go for a function that is written as a part of a test, with helpers that may end it: the t that it gets ends
// the function, whose error is then what the test was to fail with.
func Play(t testing.TB, what string, f func(t testing.TB)) *Task {
	t.Helper()
	return run(t, what, func(k *Task) {
		part := &part{TB: t, task: k}
		f(part)
		k.err = nil
	})
}

func run(t testing.TB, what string, f func(*Task)) *Task {
	t.Helper()
	k := &Task{t: t, what: what, done: make(chan struct{}), err: errLeft}
	watchedTest(t)
	t.Cleanup(func() {
		if k.had {
			return
		}
		w := beginWait(t, "the end of "+what)
		defer w.end()
		if _, ended := receive(k.done, w.left()); !ended {
			t.Error(w.report())
		} else if k.err != nil {
			t.Errorf("%s: %v", what, k.err)
		}
	})
	go func() {
		defer close(k.done)
		f(k)
	}()
	return k
}

// part is a test as a function of Play sees it.
type part struct {
	testing.TB
	task *Task
}

func (p *part) end(text string) {
	p.task.err = errors.New(strings.TrimSpace(text))
	runtime.Goexit()
}

func (p *part) Fatal(args ...any)                 { p.end(fmt.Sprintln(args...)) }
func (p *part) Fatalf(format string, args ...any) { p.end(fmt.Sprintf(format, args...)) }
func (p *part) FailNow()                          { p.end("it failed") }
func (p *part) Skip(args ...any)                  { p.end("a part cannot be skipped: " + fmt.Sprintln(args...)) }
func (p *part) Skipf(format string, args ...any)  { p.Skip(fmt.Sprintf(format, args...)) }
func (p *part) SkipNow()                          { p.Skip() }

// Deadline is that of the test.
func (p *part) Deadline() (time.Time, bool) {
	if limited, ok := p.TB.(interface{ Deadline() (time.Time, bool) }); ok {
		return limited.Deadline()
	}
	return time.Time{}, false
}

// Wait waits for the end of the function, and ends the test if that returned an error.
func (k *Task) Wait() {
	k.t.Helper()
	if err := k.Err(); err != nil {
		k.t.Fatalf("%s: %v", k.what, err)
	}
}

// Err waits for the end of the function and returns its error.
func (k *Task) Err() error {
	k.t.Helper()
	Receive(k.t, "the end of "+k.what, k.done)
	k.had = true
	return k.err
}

// Done is closed when the function has ended.
func (k *Task) Done() <-chan struct{} { return k.done }

// Ended reports whether the function has ended.
func (k *Task) Ended() bool {
	select {
	case <-k.done:
		return true
	default:
		return false
	}
}
