package process

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"postern/multiplexor/pool"
)

// Stat is what is read of /proc/PID/stat.
type Stat struct {
	State        byte
	Parent       int
	minflt       int64
	majflt       int64
	utime, stime time.Duration
	status       syscall.WaitStatus
}

// ReadStat reads the state of a process, which may be a zombie: proc(5).
func ReadStat(pid int) (Stat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Stat{}, fmt.Errorf("look at process %d: %w", pid, err)
	}
	// The second field is a name in parentheses that may hold anything.
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 50 {
		return Stat{}, fmt.Errorf("look at process %d: %d fields", pid, len(f))
	}
	number := func(field int) int64 { // counted from 1, as in the manual page
		n, _ := strconv.ParseInt(string(f[field-3]), 10, 64)
		return n
	}
	ticks := func(field int) time.Duration { return time.Duration(number(field)) * (time.Second / clockTicks) }
	return Stat{State: f[0][0], Parent: int(number(4)), minflt: number(10), majflt: number(12),
		utime: ticks(14), stime: ticks(15), status: syscall.WaitStatus(number(52))}, nil
}

func (st Stat) exit() pool.Exit {
	ru := &syscall.Rusage{Utime: syscall.NsecToTimeval(int64(st.utime)), Stime: syscall.NsecToTimeval(int64(st.stime))}
	setCount(&ru.Minflt, st.minflt)
	setCount(&ru.Majflt, st.majflt)
	return exitOf(st.status, ru)
}

// clockTicks is USER_HZ, which is 100 on every Linux that Go runs on.
const clockTicks = 100

// setCount sets a figure that has as many bits as the machine's words.
func setCount[T int32 | int64](to *T, n int64) { *to = T(n) }
