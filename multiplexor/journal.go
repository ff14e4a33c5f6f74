package main

import (
	"context"
	"log/slog"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
)

type level = slog.Level

const (
	levelDebug   = slog.LevelDebug
	levelInfo    = slog.LevelInfo
	levelWarning = slog.LevelWarn
	levelError   = slog.LevelError
)

// errands are calls that may block and so are not for the loop: log lines,
// statistics, messages to the service manager. They are made in order by a goroutine
// of their own. If it cannot keep up, lines are dropped and counted; the loop never
// waits.
type errands struct {
	mu      sync.Mutex
	todo    []func()
	ending  bool
	more    chan struct{} // has room for one: there is something to do, or the end has come
	done    chan struct{}
	dropped atomic.Int64 // since that was last logged
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

// Close waits for what was added, also by errands themselves. What is added
// afterwards is not done.
func (e *errands) Close() {
	e.mu.Lock()
	e.ending = true
	e.mu.Unlock()
	e.wake()
	<-e.done
}

// journal is the log as the loop uses it.
type journal struct {
	log     *slog.Logger
	errands *errands
}

// add logs one line. Control bytes in it, which can come from a worker, are made
// spaces.
func (j *journal) add(l level, text string) {
	if j.log == nil || !j.log.Enabled(context.Background(), l) {
		return
	}
	j.errands.add(func() {
		if n := j.errands.dropped.Swap(0); n > 0 {
			j.log.Warn(strconv.FormatInt(n, 10) + " log lines were dropped: the log is too slow")
		}
		j.write(l, text)
	})
}

// write logs one line at once. It may block: it is for errands.
func (j *journal) write(l level, text string) {
	if j.log != nil {
		j.log.Log(context.Background(), l, oneLine(text))
	}
}

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
