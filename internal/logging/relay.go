package logging

import (
	"fmt"
	"io"
	"log/slog"
)

// Relay returns a queue for what a tool says on w, which may be a pipe that nobody reads: who writes to it never waits.
// It is to be closed before the program ends.
func Relay(name string, w io.Writer) *Queue {
	q := newQueue(func(r record) error { return writeAll(w, r.line) })
	q.tell = func(n uint64) error {
		return writeAll(w, fmt.Appendf(nil, "%s: %d messages were dropped\n", name, n))
	}
	go q.run()
	return q
}

// Write appends a copy of a text, if there is room. It always succeeds.
func (q *Queue) Write(text []byte) (int, error) {
	q.put(record{level: slog.LevelInfo, line: text})
	return len(text), nil
}
