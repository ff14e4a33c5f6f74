package logging

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"syscall"
	"time"
)

// queueRoom bounds the bytes of the lines that wait: some ten thousand lines.
const queueRoom = 2 << 20

// flushWait bounds how long Close waits for lines that nobody may be reading.
const flushWait = time.Second

// Queue holds the lines that wait for their target, which may be a pipe that
// nobody reads. Who logs never waits for it: a line that finds no room is dropped
// and counted, and the log says how many were when there is room again.
type Queue struct {
	send sender
	tell func(dropped uint64) error // writes the line about it, past the queue

	mu      sync.Mutex
	todo    []record
	size    int    // bytes of todo and of what is being sent
	dropped uint64 // since the start
	untold  uint64 // of these
	closed  bool
	more    chan struct{} // has room for one
	done    chan struct{}
}

func newQueue(send sender) *Queue {
	return &Queue{send: send, more: make(chan struct{}, 1), done: make(chan struct{})}
}

// put appends a copy of the line, if there is room.
func (q *Queue) put(r record) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.size+len(r.line) > queueRoom {
		q.dropped++
		q.untold++
		return
	}
	r.line = bytes.Clone(r.line)
	q.size += len(r.line)
	q.todo = append(q.todo, r)
	q.wake()
}

func (q *Queue) wake() {
	select {
	case q.more <- struct{}{}:
	default: // it will look anyway
	}
}

// run sends lines until the queue is closed and empty.
func (q *Queue) run() {
	defer close(q.done)
	var batch []record
	for {
		q.mu.Lock()
		clear(batch)
		batch, q.todo = q.todo, batch[:0]
		closed := q.closed
		q.mu.Unlock()
		for _, r := range batch {
			q.sent(r, q.send(r))
		}
		switch {
		case len(batch) > 0:
			q.tellDropped()
		case closed:
			return
		default:
			<-q.more
		}
	}
}

// sent takes the line off the account. One that could not be written is lost.
func (q *Queue) sent(r record, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.size -= len(r.line)
	if err != nil {
		q.dropped++
		q.untold++
	}
}

// tellDropped says how many lines were dropped since it last could.
func (q *Queue) tellDropped() {
	q.mu.Lock()
	n := q.untold
	q.untold = 0
	q.mu.Unlock()
	if n == 0 || q.tell(n) == nil {
		return
	}
	q.mu.Lock()
	q.untold += n
	q.mu.Unlock()
}

// Dropped returns how many lines were dropped since the start, because the target
// took them too slowly or not at all.
func (q *Queue) Dropped() uint64 {
	if q == nil {
		return 0
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dropped
}

// Close waits for the lines that are left, but not longer than a second. What is
// logged afterwards is dropped.
func (q *Queue) Close() error {
	if q == nil {
		return nil
	}
	q.mu.Lock()
	q.closed = true
	q.wake()
	q.mu.Unlock()
	late := time.NewTimer(flushWait)
	defer late.Stop()
	select {
	case <-q.done:
		return nil
	case <-late.C:
		return errors.New("the log does not take its last lines")
	}
}

// writeAll writes a line to a file that may have been made non-blocking by another
// process that shares it.
func writeAll(w io.Writer, line []byte) error {
	for {
		n, err := w.Write(line)
		if !errors.Is(err, syscall.EAGAIN) {
			return err
		}
		line = line[n:]
		time.Sleep(retryPause)
	}
}

const retryPause = 20 * time.Millisecond

// Say writes a text for who started the program, such as its last words, but waits
// a second at most for a reader.
func Say(w io.Writer, text string) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = writeAll(w, []byte(text)) // there is nobody else to tell
	}()
	late := time.NewTimer(flushWait)
	defer late.Stop()
	select {
	case <-done:
	case <-late.C:
	}
}
