package main

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"postern/internal/testenv"
)

// TestBatchThreads: a thread with a policy of its own, such as the first one of a service with
// CPUSchedulingResetOnFork, keeps it, and the others become batch. The kernel does not take such a flag back from
// who has no privileges, so that it must not matter that what can be done to one thread cannot be done to all.
func TestBatchThreads(t *testing.T) {
	const inChild = "POSTERN_TEST_BATCH_THREADS"
	if os.Getenv(inChild) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestBatchThreads$")
		cmd.Env = append(os.Environ(), inChild+"=1")
		if out, more, status := testenv.RunCmd(t, cmd); status != 0 {
			t.Fatalf("status %d\n%.2000s%.2000s", status, out, more)
		}
		return
	}
	const resetOnFork = 0x40000000
	policy := func(id int) int {
		n, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_GETSCHEDULER, uintptr(id), 0, 0)
		if errno != 0 {
			t.Fatalf("policy of thread %d: %v", id, errno)
		}
		return int(n)
	}
	before := policy(0)
	special, done := make(chan int), make(chan bool)
	defer close(done)
	go func() {
		runtime.LockOSThread()
		var priority int32
		_, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETSCHEDULER, 0, uintptr(before|resetOnFork), uintptr(unsafe.Pointer(&priority)))
		if errno != 0 {
			t.Errorf("set a policy: %v", errno)
		}
		special <- syscall.Gettid()
		<-done
	}()
	id := testenv.Receive(t, "the special thread", special)
	if os.Geteuid() == 0 {
		if err := syscall.Setuid(65534); err != nil {
			t.Fatal(err)
		}
	}
	becomeBatch()
	want := before
	if before == schedOther {
		want = schedBatch
	}
	if got := policy(0); got != want {
		t.Errorf("policy is %d, want %d", got, want)
	}
	if got := policy(id); got != before|resetOnFork {
		t.Errorf("policy of the special thread is %#x, want %#x", got, before|resetOnFork)
	}
}
