package main

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"postern/internal/logging"
)

type level = slog.Level

const (
	levelDebug   = slog.LevelDebug
	levelInfo    = slog.LevelInfo
	levelWarning = slog.LevelWarn
	levelError   = slog.LevelError
)

// errands are calls that may block and so are not for the loop: statistics and
// messages to the service manager. They are made in order by a goroutine of their
// own. If it cannot keep up, lines are dropped and counted; the loop never waits.
type errands struct {
	mu      sync.Mutex
	todo    []func()
	ending  bool
	more    chan struct{} // has room for one: there is something to do, or the end has come
	done    chan struct{}
	dropped atomic.Int64 // since that was last told
	lost    atomic.Int64 // since the start
}

// errandRoom bounds how many lines wait.
const errandRoom = 8192

func newErrands() *errands {
	e := &errands{more: make(chan struct{}, 1), done: make(chan struct{})}
	go e.run()
	return e
}

func (e *errands) run() {
	defer close(e.done)
	var batch []func()
	for {
		e.mu.Lock()
		batch, e.todo = e.todo, batch[:0]
		ending := e.ending
		e.mu.Unlock()
		for i, f := range batch {
			batch[i] = nil
			f()
		}
		switch {
		case len(batch) > 0:
		case ending:
			return
		default:
			<-e.more
		}
	}
}

// add makes the call soon, or not at all if too much waits already.
func (e *errands) add(f func()) {
	if !e.put(f, errandRoom) {
		e.dropped.Add(1)
		e.lost.Add(1)
	}
}

// must makes the call soon, however much waits. It is for what comes seldom.
func (e *errands) must(f func()) { e.put(f, math.MaxInt) }

func (e *errands) put(f func(), room int) bool {
	e.mu.Lock()
	fits := len(e.todo) < room
	if fits {
		e.todo = append(e.todo, f)
	}
	first := len(e.todo) == 1
	e.mu.Unlock()
	if fits && first {
		e.wake()
	}
	return fits
}

func (e *errands) wake() {
	select {
	case e.more <- struct{}{}:
	default: // it will look anyway
	}
}

// Close waits for what was added, also by errands themselves, but not longer than a
// second, and reports whether all is done. What is added afterwards is not done.
func (e *errands) Close() bool {
	e.mu.Lock()
	e.ending = true
	e.mu.Unlock()
	e.wake()
	late := time.NewTimer(errandsWait)
	defer late.Stop()
	select {
	case <-e.done:
		return true
	case <-late.C:
		return false
	}
}

const errandsWait = time.Second

// journal is the log as the multiplexor uses it. It never waits for who reads it, and
// has limits for what clients and messages can cause, see package logging.
type journal struct {
	log     *slog.Logger
	queue   *logging.Queue
	errands *errands
	events  bool // --log-events
}

// lineRate is more than for strangers: a pool of workers that begins or ends has a line
// for each.
var lineRate = logging.Rate{Kind: 200, Client: 200}

// Add logs one line. Control bytes in it, which can come from a worker, are made
// spaces.
func (j *journal) Add(l level, text string) { j.write(context.Background(), l, text) }

// event logs a line that is only wanted with --log-events.
func (j *journal) event(l level, format string, args ...any) {
	if j.events {
		j.Add(l, fmt.Sprintf(format, args...))
	}
}

// AddEach logs one of the lines of which there is one for each request, because a setting asks for them.
func (j *journal) AddEach(l level, text string) {
	j.write(logging.Earned(context.Background()), l, text)
}

func (j *journal) write(ctx context.Context, l level, text string) {
	if j.log != nil {
		j.log.Log(ctx, l, oneLine(text))
	}
}

// lost is how many lines of the log and of the statistics were dropped.
func (j *journal) lost() uint64 { return j.queue.Dropped() + uint64(j.errands.lost.Load()) }

func oneLine(s string) string {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] == 0x7f {
			b := []byte(s)
			for ; i < len(b); i++ {
				if b[i] < ' ' || b[i] == 0x7f {
					b[i] = ' '
				}
			}
			return string(b)
		}
	}
	return s
}
