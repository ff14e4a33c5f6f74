package main

import (
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// slice is how long the kernel lets the proxy run before others have their turn: sched_setattr(2), sched_runtime. The
// usual 3 ms are more than a session takes in all. With less, what the proxy may have of the processors stays the same,
// but it has it sooner: it need not wait until a busy filter has used up its own slice. Beside four busy processes an
// SMTP transaction takes three quarters of the time, and the slowest hundredth two thirds (bench contended).
const slice = 500 * time.Microsecond

// shortenSlice has every thread of the process run for slices, and those that they start. An administrator's choice of
// another policy, or of shorter slices, stays; kernels before 6.12 know of none.
func shortenSlice() {
	for range 10 { // again while a thread may have started another one that was not seen
		if !shortenSlices() {
			return
		}
	}
}

// shortenSlices goes through the threads, and reports whether it has changed one.
func shortenSlices() (changed bool) {
	threads, _ := os.ReadDir("/proc/self/task")
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		a, err := unix.SchedGetAttr(tid, 0)
		if err != nil || !haveShortSlice(a) {
			continue
		}
		// A sandbox may forbid it: then the proxy waits as others do.
		changed = unix.SchedSetAttr(tid, a, 0) == nil || changed
	}
	return changed
}

// haveShortSlice makes the slice of a thread shorter, and reports whether it is to be.
func haveShortSlice(a *unix.SchedAttr) bool {
	if a.Policy != unix.SCHED_NORMAL || a.Runtime <= uint64(slice) {
		return false
	}
	a.Runtime = uint64(slice)
	return true
}
