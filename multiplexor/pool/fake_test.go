package pool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postern/internal/evloop"
	"postern/internal/notify"
)

// bench is a pool with a clock that the test moves and processes that the test
// plays.
type bench struct {
	t      *testing.T
	p      *Pool
	clock  evloop.Timers
	events []string // as listeners see them
	log    *poolLog
	starts []func(error) // that wait for the test
	manual bool          // starts wait; otherwise they succeed at once
	broken error         // starts fail with it
	pids   int
}

// poolLog is the pool's log, which the test reads.
type poolLog struct {
	slog.Handler
	out strings.Builder
}

func (l *poolLog) Add(level slog.Level, text string) {
	r := slog.NewRecord(time.Time{}, level, text, 0)
	if l.Handler.Enabled(context.Background(), level) {
		_ = l.Handler.Handle(context.Background(), r) // it writes to memory
	}
}

func (l *poolLog) AddEach(level slog.Level, text string) { l.Add(level, text) }

// textLines is a handler that writes the texts of records, a line each.
type textLines struct {
	slog.Handler // for what is not used
	out          *strings.Builder
}

func (l textLines) Enabled(context.Context, slog.Level) bool { return true }

func (l textLines) Handle(_ context.Context, r slog.Record) error {
	l.out.WriteString(r.Message + "\n")
	return nil
}

// defaults are limits as the command line's defaults make them.
func defaults() Limits {
	return Limits{Min: 1, Max: 2, MaxRequests: 500, IdleTimeout: 300 * time.Second, BusyTimeout: 120 * time.Second, ClientTimeout: 10 * time.Second,
		StartInterval: 3 * time.Second, QueueTimeout: 30 * time.Second, MaxAnswer: 64 << 10, LogEvents: true, LogStderr: true, Original: true, ClassicReload: true, ReloadFailures: 3, ReloadTimeout: time.Minute}
}

func newBench(t *testing.T, change func(*Limits)) *bench {
	t.Helper()
	l := defaults()
	if change != nil {
		change(&l)
	}
	b := &bench{t: t, log: &poolLog{}, pids: 100}
	b.log.Handler = textLines{out: &b.log.out}
	b.p = New(l, &b.clock, Processes{Start: b.start, Wall: time.Now}, b.log)
	b.p.Events = b
	return b
}

// Publish implements Events.
func (b *bench) Publish(msgs ...notify.Message) {
	for _, m := range msgs {
		b.events = append(b.events, m.String())
	}
}

func (b *bench) start(o Owner, _ bool, done func(Process, error)) {
	finish := func(err error) {
		if err != nil {
			done(nil, err)
			return
		}
		b.pids++
		done(&fakeChild{pid: b.pids, w: o.(*worker)}, nil)
	}
	switch {
	case b.manual:
		b.starts = append(b.starts, finish)
	default:
		finish(b.broken)
	}
}

// logged returns the log.
func (b *bench) logged() string { return b.log.out.String() }

// pass moves the clock in steps, so that timers see the time they fire at.
func (b *bench) pass(d time.Duration) {
	end := b.clock.Now() + d
	for {
		next, ok := b.clock.Next()
		if !ok || b.clock.Now()+next > end {
			break
		}
		b.clock.Advance(b.clock.Now() + next)
	}
	b.clock.Advance(end)
}

// states returns the letters of all workers.
func (b *bench) states() string {
	letters := ""
	for _, w := range b.p.workers {
		letters += string(stateLetters[w.state])
	}
	return letters
}

func (b *bench) wantStates(want string) {
	b.t.Helper()
	if got := b.states(); got != want {
		b.t.Fatalf("states %s, want %s", got, want)
	}
}

// wantEvents compares what was published since the last call.
func (b *bench) wantEvents(want ...string) {
	b.t.Helper()
	got := b.events
	b.events = nil
	if d := cmp.Diff(want, got); d != "" {
		b.t.Fatalf("events differ (-want +got):\n%s", d)
	}
}

// client is a request and what became of it.
type fakeAsker struct {
	req    Request
	answer string
	told   int
	pool   *Pool
}

func (a *fakeAsker) Answered(line []byte) { a.answer, a.told = string(line), a.told+1 }
func (a *fakeAsker) Failed(why Failure)   { a.answer, a.told = a.pool.FailureText(why), a.told+1 }

func (b *bench) ask(line string) *fakeAsker { return b.askFrom(FromClient, line) }

func (b *bench) askFrom(from origin, line string) *fakeAsker {
	a := &fakeAsker{pool: b.p}
	a.req.Set([]byte(line), from, a)
	b.p.Submit(&a.req)
	return a
}

func (b *bench) wantAnswer(a *fakeAsker, want string) {
	b.t.Helper()
	if a.answer != want || (a.told == 1) != (want != "") {
		b.t.Fatalf("answer %q (told %d times), want %q", a.answer, a.told, want)
	}
}

// child returns the process in slot n.
func (b *bench) child(n int) *fakeChild {
	b.t.Helper()
	c, ok := b.p.workers[n].child.(*fakeChild)
	if !ok {
		b.t.Fatalf("no process in slot %d", n)
	}
	return c
}

// reply makes the worker in slot n answer.
func (b *bench) reply(n int, line string) {
	b.t.Helper()
	if taken := b.p.workers[n].GotOutput([]byte(line)); taken != len(line) {
		b.t.Fatalf("worker %d: %d bytes of %q taken", n, taken, line)
	}
}

// finish ends the process in slot n as one that exits by itself does: its output
// closes, then it is gone.
func (b *bench) finish(n int, e Exit) {
	b.t.Helper()
	b.child(n).look = OutputClosed
	b.p.workers[n].OutputEnded()
	b.p.workers[n].Exited(e)
}

// warm brings workers up to Idle by asking as many requests at once.
func (b *bench) warm(n int) {
	b.t.Helper()
	for range n {
		b.ask("warm up")
	}
	for i := range n {
		b.reply(i, "ok\n")
	}
	b.events = nil
}

// fakeChild is a process played by the test.
type fakeChild struct {
	pid      int
	w        *worker
	lines    []string
	signals  []string
	look     OutputState
	slow     bool // lines do not fit into the pipe
	unread   bool // they do, but are not read
	deaf     bool // the pipe is broken
	released bool
	rss      int64
}

func (c *fakeChild) Pid() int { return c.pid }
func (c *fakeChild) Send(line []byte) error {
	if c.deaf {
		return errors.New("broken pipe")
	}
	c.lines = append(c.lines, string(line))
	return nil
}
func (c *fakeChild) Waiting() bool             { return c.slow }
func (c *fakeChild) Unread() bool              { return c.slow || c.unread }
func (c *fakeChild) CloseInput()               { c.signals = append(c.signals, "EOF") }
func (c *fakeChild) ReadNow()                  {}
func (c *fakeChild) ReadWords()                {}
func (c *fakeChild) Look() OutputState         { return c.look }
func (c *fakeChild) Signal(sig syscall.Signal) { c.signals = append(c.signals, sigName(sig)) }
func (c *fakeChild) Kill()                     { c.signals = append(c.signals, "KILL") }
func (c *fakeChild) Usage() (Usage, bool)      { return Usage{Resident: c.rss}, c.rss > 0 }
func (c *fakeChild) Release()                  { c.released = true }

func sigName(sig syscall.Signal) string {
	switch sig {
	case syscall.SIGTERM:
		return "TERM"
	case syscall.SIGCONT:
		return "CONT"
	}
	return fmt.Sprint(sig)
}

// wantSignals compares what the process was sent since the last call.
func (b *bench) wantSignals(c *fakeChild, want ...string) {
	b.t.Helper()
	got := slices.Clone(c.signals)
	c.signals = nil
	if !slices.Equal(got, want) {
		b.t.Fatalf("process %d got %v, want %v", c.pid, got, want)
	}
}
