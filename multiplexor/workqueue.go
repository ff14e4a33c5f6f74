package main

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// workQueue makes calls that may block and so are not for the loop: statistics and
// messages to the service manager. It makes them in order, on a goroutine of its
// own. If it cannot keep up, lines are dropped and counted; the loop never waits.
type workQueue struct {
	mu      sync.Mutex
	todo    []func()
	ending  bool
	more    chan struct{} // has room for one: there is something to do, or the end has come
	done    chan struct{}
	dropped atomic.Int64 // since that was last told
	lost    atomic.Int64 // since the start
}

// workRoom bounds how many lines wait.
const workRoom = 8192

func newWorkQueue() *workQueue {
	q := &workQueue{more: make(chan struct{}, 1), done: make(chan struct{})}
	go q.run()
	return q
}

func (q *workQueue) run() {
	defer close(q.done)
	var batch []func()
	for {
		q.mu.Lock()
		batch, q.todo = q.todo, batch[:0]
		ending := q.ending
		q.mu.Unlock()
		for i, f := range batch {
			batch[i] = nil
			f()
		}
		switch {
		case len(batch) > 0:
		case ending:
			return
		default:
			<-q.more
		}
	}
}

// add makes the call soon, or not at all if too much waits already.
func (q *workQueue) add(f func()) {
	if !q.put(f, workRoom) {
		q.dropped.Add(1)
		q.lost.Add(1)
	}
}

// must makes the call soon, however much waits. It is for what comes seldom.
func (q *workQueue) must(f func()) { q.put(f, math.MaxInt) }

func (q *workQueue) put(f func(), room int) bool {
	q.mu.Lock()
	fits := len(q.todo) < room
	if fits {
		q.todo = append(q.todo, f)
	}
	first := len(q.todo) == 1
	q.mu.Unlock()
	if fits && first {
		q.wake()
	}
	return fits
}

func (q *workQueue) wake() {
	select {
	case q.more <- struct{}{}:
	default: // it will look anyway
	}
}

// Close waits for what was added, also by such work itself, but not longer than a
// second, and reports whether all is done. What is added afterwards is not done.
func (q *workQueue) Close() bool {
	q.mu.Lock()
	q.ending = true
	q.mu.Unlock()
	q.wake()
	late := time.NewTimer(workWait)
	defer late.Stop()
	select {
	case <-q.done:
		return true
	case <-late.C:
		return false
	}
}

const workWait = time.Second
