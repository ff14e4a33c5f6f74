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

// ticksPerSecond is the unit of times in /proc/PID/stat. It is 100 on every
// Linux that Go runs on.
const ticksPerSecond = 100

// A processEntry is what /proc/PID/stat says of a process.
type processEntry struct {
	parent int
	state  byte          // as ps(1) shows it
	cpu    time.Duration // to the hundredth of a second, ended threads included
	reaped time.Duration // of children that have ended
}

// processes by their ids.
type processMap map[int]processEntry

// processTable reads the processes of the machine.
func processTable() processMap {
	table := processMap{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if text, err := os.ReadFile(name); err == nil {
			if entry, ok := parseStat(string(text)); ok {
				table[pid] = entry
			}
		}
	}
	return table
}

// parseStat reads the text of /proc/PID/stat. The second field, the name, may
// contain anything but ends at the last parenthesis; state is field 3, the
// parent 4, utime, stime, cutime and cstime 14 to 17. proc(5)
func parseStat(text string) (e processEntry, ok bool) {
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 15 {
		return e, false
	}
	ticks := func(field int) time.Duration {
		n, _ := strconv.Atoi(fields[field-3])
		return time.Duration(n) * time.Second / ticksPerSecond
	}
	e.parent, _ = strconv.Atoi(fields[1])
	e.state = fields[0][0]
	e.cpu, e.reaped = ticks(14)+ticks(15), ticks(16)+ticks(17)
	return e, true
}

// tree gives a process and all below it.
func (m processMap) tree(pid int) []int {
	children := map[int][]int{}
	for child, entry := range m {
		children[entry.parent] = append(children[entry.parent], child)
	}
	found := []int{pid}
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i]]...)
	}
	return found
}

// state gives the state of a process, 0 if it is gone.
func state(pid int) byte {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	entry, _ := parseStat(string(text))
	return entry.state
}

// gone says whether a process has ended, or is but for its parent's knowing.
func gone(pid int) bool {
	s := state(pid)
	return s == 0 || s == 'Z'
}

// cpu gives the CPU time that a process has used, without its children.
func cpu(pid int) time.Duration {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	entry, _ := parseStat(string(text))
	return max(entry.cpu, threads(pid))
}

// threads gives the CPU time of the threads that a process has, to the
// nanosecond; those that have ended are not in it.
func threads(pid int) (used time.Duration) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, name := range tasks {
		text, _ := os.ReadFile(name)
		if fields := strings.Fields(string(text)); len(fields) > 0 {
			n, _ := strconv.ParseInt(fields[0], 10, 64)
			used += time.Duration(n)
		}
	}
	return used
}

// treeCPU gives the CPU time of a process and all below it, those that have
// ended included.
func treeCPU(pid int) (used time.Duration) {
	table := processTable()
	for _, p := range table.tree(pid) {
		used += max(table[p].cpu, threads(p)) + table[p].reaped
	}
	return used
}

// memory gives the resident memory of a process in bytes.
func memory(pid int) int { return statusBytes(pid, "VmRSS:") }

// ownMemory gives the resident memory of a process without the pages of files, such as its program, in bytes.
func ownMemory(pid int) int { return statusBytes(pid, "RssAnon:") }

// peak gives the most resident memory that a process has had, in bytes.
func peak(pid int) int { return statusBytes(pid, "VmHWM:") }

// resetPeak makes the present memory of a process its peak. proc(5), clear_refs
func resetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

// treeMemory gives the proportional memory of a process and all below it in
// bytes: pages that several of them share count once.
func treeMemory(pid int) (sum int) {
	for _, p := range processTable().tree(pid) {
		sum += fileBytes(fmt.Sprintf("/proc/%d/smaps_rollup", p), "Pss:")
	}
	return sum
}

func statusBytes(pid int, key string) int { return fileBytes(fmt.Sprintf("/proc/%d/status", pid), key) }

// fileBytes reads a line such as "VmRSS: 12 kB".
func fileBytes(name, key string) int {
	text, _ := os.ReadFile(name)
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			n, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			return n << 10
		}
	}
	return 0
}

// descriptors counts the open descriptors of a process.
func descriptors(pid int) int {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(entries)
}

// mib is a number of bytes in MiB.
func mib(bytes int) float64 { return float64(bytes) / (1 << 20) }

// descriptorLimit is how many descriptors a process may have. Go programs, ours
// included, raise their own to the hard limit.
func descriptorLimit() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1024
	}
	return int(min(limit.Max, 1<<20))
}
