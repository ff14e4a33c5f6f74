package main

import (
	"context"
	"log/slog"
	"strconv"
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
// statistics. They are made in order by a goroutine of their own. If it cannot
// keep up they are dropped and counted; the loop never waits.
type errands struct {
	todo    chan func()
	quit    chan struct{} // closed to end the goroutine
	done    chan struct{}
	dropped atomic.Int64
}

const errandRoom = 8192

func newErrands() *errands {
	e := &errands{todo: make(chan func(), errandRoom), quit: make(chan struct{}), done: make(chan struct{})}
	go e.run()
	return e
}

func (e *errands) run() {
	defer close(e.done)
	for {
		select {
		case f := <-e.todo:
			f()
			continue
		case <-e.quit:
		}
		for {
			select {
			case f := <-e.todo:
				f()
			default:
				return
			}
		}
	}
}

// add makes the call soon, or not at all if too much waits already.
func (e *errands) add(f func()) {
	select {
	case e.todo <- f:
	default:
		e.dropped.Add(1)
	}
}

// Close waits for what was added, also by errands themselves. What is added
// afterwards is not done.
func (e *errands) Close() {
	close(e.quit)
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
	text = oneLine(text)
	j.errands.add(func() {
		if n := j.errands.dropped.Swap(0); n > 0 {
			j.log.Warn(strconv.FormatInt(n, 10) + " log lines were dropped: the log is too slow")
		}
		j.log.Log(context.Background(), l, text)
	})
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
