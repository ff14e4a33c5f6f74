package main

import (
	"syscall"
	"time"
)

// processes is the seam between the pool and the operating system. Start makes
// a process for w outside the loop and calls done on the loop with the result.
// The child reports to w: gotOutput, outputEnded, inputFlushed, gotStderr,
// gotStatus, and at last exited. The pool's rules are tested with a fake one.
type processes struct {
	Start func(w *worker, done func(child, error))
	// Forget says that no worker of a generation of rules before this one will be
	// started any more. It may be nil.
	Forget func(generation int)
	// Revert says that the newest rules do not work: workers started from now on
	// are to have those before, if that can be. It may be nil.
	Revert func()
}

// child is a running worker process. Its methods are called on the loop and do
// not block.
type child interface {
	Pid() int
	// Send writes a line to standard input. What does not fit at once is written
	// later and reported by inputFlushed; Waiting says whether that is so.
	Send(line []byte) error
	Waiting() bool
	// Unread says whether there is something of the line that the process has not
	// read: then what it writes cannot be the answer.
	Unread() bool
	CloseInput()
	// ReadNow takes what there is on standard output.
	ReadNow()
	// ReadWords takes what there is on standard error.
	ReadWords()
	// Look says whether standard output is as it should be between requests.
	Look() outputState
	// Signal goes to the process, Kill (SIGKILL) to its whole group.
	Signal(sig syscall.Signal)
	Kill()
	// Usage tells what the process uses now; ok is false if that is not known.
	Usage() (u usage, ok bool)
	// Release frees all descriptors, after exited.
	Release()
}

// outputState is what is seen on a worker's standard output.
type outputState int8

const (
	outputQuiet  outputState = iota
	outputNoisy              // bytes nobody asked for
	outputClosed             // the process is ending, or of no use any more
)

// exit tells how a process ended.
type exit struct {
	Status int            // if it ended by itself
	Signal syscall.Signal // if a signal ended it
	Lost   bool           // it was not our child: nothing is known
	Rusage *syscall.Rusage
}

// usage is what a process uses.
type usage struct {
	Resident int64 // bytes
	CPU      time.Duration
}
