package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A usage is how much processor time the parts of a storm have used up to now.
type usage struct{ daemon, workers, listeners, load time.Duration }

// used reads the times of a multiplexor, its children, the process of the
// listeners (0 for none) and ourselves.
func used(daemon, listeners int) usage {
	u := usage{daemon: cpu(daemon), listeners: cpu(listeners)}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, s := range stats {
		if f := fields(s); len(f) > 1 && f[1] == strconv.Itoa(daemon) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(s)))
			u.workers += cpu(pid)
		}
	}
	var self syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &self) == nil {
		u.load = time.Duration(self.Utime.Nano() + self.Stime.Nano())
	}
	return u
}

func (u usage) since(v usage) usage {
	return usage{u.daemon - v.daemon, u.workers - v.workers, u.listeners - v.listeners, u.load - v.load}
}

func (u usage) total() time.Duration { return u.daemon + u.workers + u.listeners + u.load }

func (u usage) String() string {
	return fmt.Sprintf("processor: multiplexor %v, workers %v, load %v, listeners %v",
		u.daemon.Round(time.Millisecond), u.workers.Round(time.Millisecond), u.load.Round(time.Millisecond), u.listeners.Round(time.Millisecond))
}

// cpu is the time from /proc/PID/schedstat, in all threads.
func cpu(pid int) (d time.Duration) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, s := range tasks {
		text, _ := os.ReadFile(s)
		if f := strings.Fields(string(text)); len(f) > 0 {
			n, _ := strconv.ParseInt(f[0], 10, 64)
			d += time.Duration(n)
		}
	}
	return d
}

// fields are those of a stat file behind the name, which may contain anything:
// state, parent and so on.
func fields(stat string) []string {
	text, _ := os.ReadFile(stat)
	i := strings.LastIndexByte(string(text), ')')
	if i < 0 {
		return nil
	}
	return strings.Fields(string(text[i+1:]))
}
