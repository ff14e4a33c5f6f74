package main

import (
	"os"
	"strconv"
	"syscall"
	"unsafe"
)

// Scheduling policies of sched(7).
const (
	schedOther = 0
	schedBatch = 3
)

// becomeBatch makes the proxy a batch process to the kernel. A command that comes in then does not interrupt
// who sent it, if that is a process of the same machine, or another session's work; the processor goes on
// with what it is at, and several commands are dealt with at each waking. With many small messages that is
// a tenth of the cost. The share of the processors stays what it was, and so does a policy that the administrator gave
// the proxy: the kernel has one for each thread, and with SCHED_RESET_ON_FORK only the first thread has that
// of the administrator. So each is looked at by itself, and until there is none left: threads may be starting.
func becomeBatch() {
	for changed := true; changed; {
		changed = false
		threads, _ := os.ReadDir("/proc/self/task") // without it, things are a little slower
		for _, thread := range threads {
			if id, err := strconv.Atoi(thread.Name()); err == nil && batchThread(id) {
				changed = true
			}
		}
	}
}

// batchThread makes one thread a batch process, and says whether it was not and is now. A sandbox may forbid it;
// nothing depends on it.
func batchThread(id int) bool {
	policy, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_GETSCHEDULER, uintptr(id), 0, 0)
	if errno != 0 || policy != schedOther {
		return false
	}
	var priority int32 // of struct sched_param: 0, as there are none
	_, _, errno = syscall.RawSyscall(syscall.SYS_SCHED_SETSCHEDULER, uintptr(id), schedBatch, uintptr(unsafe.Pointer(&priority)))
	return errno == 0
}
