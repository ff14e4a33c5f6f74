package main

import (
	"context"
	"fmt"
	"log/slog"

	"postern/internal/logging"
)

type level = slog.Level

const (
	levelDebug   = slog.LevelDebug
	levelInfo    = slog.LevelInfo
	levelWarning = slog.LevelWarn
	levelError   = slog.LevelError
)

// logQueue is the log as the multiplexor uses it. It never waits for who reads it, and
// has limits for what clients and messages can cause, see package logging.
type logQueue struct {
	log    *slog.Logger
	queue  *logging.Queue
	work   *workQueue
	events bool // --log-events
}

// lineRate is more than for strangers: a pool of workers that begins or ends has a line
// for each.
var lineRate = logging.Rate{Kind: 200, Client: 200}

// Add logs one line. Control bytes in it, which can come from a worker, are made
// spaces.
func (q *logQueue) Add(l level, text string) { q.write(context.Background(), l, text) }

// event logs a line that is only wanted with --log-events.
func (q *logQueue) event(l level, format string, args ...any) {
	if q.events {
		q.Add(l, fmt.Sprintf(format, args...))
	}
}

// AddEach logs one of the lines of which there is one for each request, because a setting asks for them.
func (q *logQueue) AddEach(l level, text string) {
	q.write(logging.Earned(context.Background()), l, text)
}

func (q *logQueue) write(ctx context.Context, l level, text string) {
	if q.log != nil {
		q.log.Log(ctx, l, oneLine(text))
	}
}

// lost returns how many lines of the log and of the statistics were dropped.
func (q *logQueue) lost() uint64 { return q.queue.Dropped() + uint64(q.work.lost.Load()) }

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
