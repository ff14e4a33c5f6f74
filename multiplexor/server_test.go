package main

import (
	"log/slog"
	"os"
	"testing"
	"time"

	"postern/internal/evloop"
	"postern/multiplexor/pool"
)

// newTestServer makes a server on the loop whose pool of two can start no worker.
func newTestServer(t *testing.T, loop *evloop.Loop, change func(*pool.Limits)) *server {
	t.Helper()
	l := pool.Limits{Min: 1, Max: 2, MaxRequests: 500, IdleTimeout: time.Minute, BusyTimeout: time.Minute, ClientTimeout: time.Minute,
		StartInterval: time.Second, QueueTimeout: time.Minute, MaxAnswer: 64 << 10, Original: true, ClassicReload: true}
	if change != nil {
		change(&l)
	}
	errands := newWorkQueue()
	t.Cleanup(func() { errands.Close() })
	log := &logQueue{log: slog.New(&memoryLog{}), work: errands}
	none := pool.Processes{Start: func(_ pool.Owner, _ bool, done func(pool.Process, error)) { done(nil, os.ErrNotExist) }, Wall: time.Now}
	p := pool.New(l, &loop.Timers, none, log)
	return &server{loop: loop, pool: p, log: log, name: "v", began: time.Now(), timeout: time.Minute, diskTimeout: l.BusyTimeout, maxLine: 1000, commands: makeBuiltins(), reread: p.Reread}
}
