package pool

import (
	"syscall"
	"time"
)

// Processes is the seam between the pool and the operating system. Start makes
// a process outside the loop and calls done on the loop with the result. The
// process reports to its owner; probe says that it is to try new filter rules, and
// that no client waits for it. The pool's rules are tested with fake processes.
type Processes struct {
	Start func(o Owner, probe bool, done func(Process, error))
	// Forget says that no worker of a generation of rules before this one will be
	// started any more. It may be nil.
	Forget func(generation int)
	// Revert says that the newest rules do not work: workers started from now on
	// are to have those before, if that can be. It may be nil.
	Revert func()
	// Wall is the wall clock, for load averages by the hour.
	Wall func() time.Time
}

// Owner is who a process reports to, on the loop. The functions that get bytes give how many they have taken; what they
// leave is given again with what follows it.
type Owner interface {
	GotOutput(b []byte) (taken int)           // from standard output
	OutputEnded()                             // standard output is closed
	GotStderr(b []byte, end bool) (taken int) // from standard error
	GotStatus(b []byte) (taken int)           // from the status pipe
	InputFlushed(err error)                   // a line that did not fit at once is written, or cannot be
	Exited(Exit)                              // the last report
}

// Process is a running worker process. Its methods are called on the loop and do
// not block.
type Process interface {
	Pid() int
	// Send writes a line to standard input. What does not fit at once is written
	// later and reported by InputFlushed; Waiting says whether that is so.
	Send(line []byte) error
	Waiting() bool
	// Unread reports whether there is something of the line that the process has not
	// read: then what it writes cannot be the answer.
	Unread() bool
	CloseInput()
	// ReadNow takes what there is on standard output.
	ReadNow()
	// ReadWords takes what there is on standard error.
	ReadWords()
	// Look reports whether standard output is as it should be between requests.
	Look() OutputState
	// Signal goes to the process, Kill (SIGKILL) to its whole group.
	Signal(sig syscall.Signal)
	Kill()
	// Usage tells what the process uses now; ok is false if that is not known.
	Usage() (u Usage, ok bool)
	// Release frees all descriptors, after Exited.
	Release()
}

// OutputState is what is seen on a worker's standard output.
type OutputState int8

const (
	OutputQuiet  OutputState = iota // as it should be between requests
	OutputNoisy                     // bytes nobody asked for
	OutputClosed                    // the process is ending, or of no use any more
)

// Exit tells how a process ended.
type Exit struct {
	Status int            // if it ended by itself
	Signal syscall.Signal // if a signal ended it
	Name   string         // of the signal, such as SIGTERM
	Lost   bool           // it was not our child: nothing is known
	Rusage *syscall.Rusage
}

// Usage is what a process uses.
type Usage struct {
	Resident int64 // bytes
	CPU      time.Duration
}
