package main

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// orphans are processes that were left behind, by a filter say, and that have become
// our children because we are the first process of a container. Nobody else takes
// note of their end, and without that they would stay in the table of processes.
type orphans struct{ seen []int }

// orphanInterval is the time between looks. Children of our own are waited for as soon
// as they end; one that has ended in two looks is none of them.
const orphanInterval = 10 * time.Second

// watch looks for orphans until ended is closed.
func (o *orphans) watch(ended <-chan struct{}) {
	looks := time.NewTicker(orphanInterval)
	defer looks.Stop()
	for {
		select {
		case <-ended:
			return
		case <-looks.C:
			o.reap(zombies(os.Getpid()))
		}
	}
}

// reap takes note of the end of those that had ended at the last look.
func (o *orphans) reap(zombies []int) {
	for _, pid := range zombies {
		if slices.Contains(o.seen, pid) {
			_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil) // somebody else has, if this fails
		}
	}
	o.seen = zombies
}

// zombies gives the children of a process that have ended.
func zombies(parent int) (pids []int) {
	processes, _ := filepath.Glob("/proc/[0-9]*") // without /proc there are none to see
	for _, dir := range processes {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if st, err := readStat(pid); err == nil && st.state == 'Z' && st.parent == parent {
			pids = append(pids, pid)
		}
	}
	return pids
}
