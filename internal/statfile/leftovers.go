package statfile

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// mine reports whether the name is that of a status file of this program, and of which process. The process id has at
// least five digits, padded with zeros.
func (d *Dir) mine(name string) (pid int, ok bool) {
	s, ok := strings.CutPrefix(name, d.program+"-")
	if !ok {
		return 0, false
	}
	if s, ok = strings.CutSuffix(s, ".stat"); !ok {
		return 0, false
	}
	s, number, dash := strings.Cut(s, "-")
	if dash {
		if _, err := strconv.ParseUint(number, 10, 64); err != nil {
			return 0, false
		}
	}
	pid, err := strconv.Atoi(s)
	return pid, err == nil && pid > 0 && len(s) >= 5
}

// removeLeftovers removes files of processes that are no more.
func (d *Dir) removeLeftovers() {
	f, err := d.root.Open(".")
	if err != nil {
		return
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return
	}
	for _, e := range entries {
		pid, ok := d.mine(strings.TrimPrefix(e.Name(), tempPrefix))
		if !ok || !d.ours(e.Name()) {
			continue
		}
		if info, err := d.root.Lstat(e.Name()); err == nil && !mayWrite(pid, info.ModTime()) {
			_ = d.root.Remove(e.Name())
		}
	}
}

// mayWrite reports whether the process with the id may be the one that wrote a file at the given time. Ids are used
// again, in a container soon: a process that is younger than the file did not write it. Nor did we, who have written none.
func mayWrite(pid int, written time.Time) bool {
	if pid == os.Getpid() {
		return false
	}
	if err := syscall.Kill(pid, 0); err != nil && !errors.Is(err, syscall.EPERM) {
		return false
	}
	started, ok := startOf(pid)
	return !ok || !written.Before(started)
}
