// Package procstat reads what the kernel says of a process: proc_pid_stat(5).
package procstat

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// Stat is what is read of /proc/PID/stat.
type Stat struct {
	State        byte // 'Z' for a zombie
	Parent       int
	MinorFaults  int64
	MajorFaults  int64
	User, System time.Duration      // processor time
	Start        time.Duration      // after the machine's, to 10 ms and rather too early
	Status       syscall.WaitStatus // of a zombie, as far as one may see it
}

// tick is the unit of times: USER_HZ is 100 on every Linux that Go runs on.
const tick = time.Second / 100

// Read returns the state of a process, which may be a zombie.
func Read(pid int) (Stat, error) {
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
	ticks := func(field int) time.Duration { return time.Duration(number(field)) * tick }
	return Stat{State: f[0][0], Parent: int(number(4)), MinorFaults: number(10), MajorFaults: number(12),
		User: ticks(14), System: ticks(15), Start: ticks(22), Status: syscall.WaitStatus(number(52))}, nil
}

// All returns the numbers of all processes there are, none without a /proc.
func All() (pids []int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}
