package main

import (
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestHaveShortSlice(t *testing.T) {
	for _, c := range []struct {
		name    string
		policy  uint32
		runtime time.Duration
		want    bool
	}{
		{"the usual slice", unix.SCHED_NORMAL, 3 * time.Millisecond, true},
		{"a kernel without slices", unix.SCHED_NORMAL, 0, false},
		{"a shorter one that the administrator chose", unix.SCHED_NORMAL, 200 * time.Microsecond, false},
		{"the one it has already", unix.SCHED_NORMAL, slice, false},
		{"a batch process", unix.SCHED_BATCH, 3 * time.Millisecond, false},
		{"a process in real time", unix.SCHED_FIFO, 0, false},
	} {
		a := unix.SchedAttr{Policy: c.policy, Nice: 5, Runtime: uint64(c.runtime)}
		want := a
		if c.want {
			want.Runtime = uint64(slice)
		}
		if got := haveShortSlice(&a); got != c.want || a != want {
			t.Errorf("%s: %v, %+v", c.name, got, a)
		}
	}
}

// TestShortenSlice shows the slices of all threads. Where the kernel knows of no
// slices, or a sandbox forbids to set them, it shows that nothing else changes.
func TestShortenSlice(t *testing.T) {
	before := schedAttrs(t)
	shortenSlice()
	t.Cleanup(func() { // other tests run as before
		for tid, a := range before {
			_ = unix.SchedSetAttr(tid, &a, 0)
		}
	})
	after := schedAttrs(t)
	for tid, a := range before {
		got, alive := after[tid]
		want := a
		if alive && haveShortSlice(&want) && unix.SchedSetAttr(tid, &want, 0) != nil {
			want = a
		}
		if alive && got != want {
			t.Errorf("thread %d: %+v, want %+v", tid, got, want)
		}
	}
}

// schedAttrs gives how each thread is scheduled.
func schedAttrs(t *testing.T) map[int]unix.SchedAttr {
	t.Helper()
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	attrs := map[int]unix.SchedAttr{}
	for _, thread := range threads {
		tid, err := strconv.Atoi(thread.Name())
		if err != nil {
			t.Fatal(err)
		}
		if a, err := unix.SchedGetAttr(tid, 0); err == nil {
			attrs[tid] = *a
		}
	}
	if len(attrs) == 0 {
		t.Fatal("the kernel does not say how threads are scheduled")
	}
	return attrs
}
