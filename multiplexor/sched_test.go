package main

import (
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// policy is how the kernel schedules a process.
func policy(t *testing.T, pid int) int {
	t.Helper()
	p, _, errno := unix.Syscall(unix.SYS_SCHED_GETSCHEDULER, uintptr(pid), 0, 0)
	if errno != 0 {
		t.Fatalf("scheduling policy of process %d: %v", pid, errno)
	}
	return int(p)
}

// TestRealWorkersAreBatch: a worker that gets a request does not take the processor
// from the multiplexor; a policy that the multiplexor was given is left as it is.
func TestRealWorkersAreBatch(t *testing.T) {
	t.Parallel()
	startReal(t, "-x", "1").wantBatch()
}

func TestForkServerWorkersAreBatch(t *testing.T) {
	t.Parallel()
	startForking(t, "one").wantBatch()
}

func (r *real) wantBatch() {
	r.t.Helper()
	want := policy(r.t, r.proc.Pid())
	if want == unix.SCHED_NORMAL {
		want = unix.SCHED_BATCH
	}
	r.ask("x")
	if got := policy(r.t, r.workerPid(0)); got != want {
		r.t.Errorf("policy of a worker is %d, want %d", got, want)
	}
	r.end()
}

// workerPid is the process id of worker n.
func (r *real) workerPid(n int) int {
	r.t.Helper()
	info := r.ask("workerinfo " + strconv.Itoa(n))
	_, rest, _ := strings.Cut(info, "PID ")
	text, _, _ := strings.Cut(rest, "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		r.t.Fatalf("no process id in %q", info)
	}
	return pid
}
