package daemon

import (
	"os"
	"slices"
	"syscall"
	"time"

	"postern/internal/procstat"
)

// reapOrphans takes note, until ended is closed, of the end of processes that were left behind, by a filter or a server
// program say, and that have become our children because we are the first process of a container. Nobody else would,
// and they would stay in the table of processes.
func reapOrphans(ended <-chan struct{}) {
	// Not with the /proc of others, where the numbers are different ones.
	if self, err := os.Readlink("/proc/self"); err == nil && self == "1" && os.Getpid() == 1 {
		new(orphans).watch(ended)
	}
}

// orphans are children that had ended at the last look.
type orphans struct{ seen []int }

// orphanInterval is the time between looks. Children of our own are waited for as soon
// as they end; one that has ended in two looks is none of them.
const orphanInterval = 5 * time.Second

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

// zombies returns the children of a process that have ended.
func zombies(parent int) (pids []int) {
	for _, pid := range procstat.All() {
		if st, err := procstat.Read(pid); err == nil && st.State == 'Z' && st.Parent == parent {
			pids = append(pids, pid)
		}
	}
	return pids
}
