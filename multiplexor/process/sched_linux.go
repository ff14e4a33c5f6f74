package process

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// startBatch makes the processes that the calling goroutine starts from now on
// batch processes, see sched(7), and theirs as well. The kernel then lets a worker
// that gets a request wait until the multiplexor sleeps, instead of taking the
// processor from it in the middle of handing out work: with the workers of a busy
// pool doing that, each request cost a switch of processes more. Batch processes
// have the same share of the processors as others. A scheduling policy that the
// administrator gave the multiplexor is inherited as it is.
//
// A thread hands its policy on to what it starts, so the goroutine keeps its
// thread, which ends with it.
func startBatch() {
	runtime.LockOSThread()
	policy, _, errno := unix.RawSyscall(unix.SYS_SCHED_GETSCHEDULER, 0, 0, 0)
	if errno != 0 || policy != unix.SCHED_NORMAL {
		return
	}
	var priority int32 // of struct sched_param: 0, as there are none
	// A sandbox may forbid it: then workers are as others are, only a little slower.
	_, _, _ = unix.RawSyscall(unix.SYS_SCHED_SETSCHEDULER, 0, unix.SCHED_BATCH, uintptr(unsafe.Pointer(&priority)))
}
