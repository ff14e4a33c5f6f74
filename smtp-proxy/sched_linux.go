package main

import (
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
// the proxy.
func becomeBatch() {
	policy, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_GETSCHEDULER, 0, 0, 0)
	if errno != 0 || policy != schedOther {
		return
	}
	priority := new(int32) // of struct sched_param: 0, as there are none
	// A sandbox may forbid it; nothing depends on it.
	_, _, _ = syscall.AllThreadsSyscall(syscall.SYS_SCHED_SETSCHEDULER, 0, schedBatch, uintptr(unsafe.Pointer(priority)))
}
