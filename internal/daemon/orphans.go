package daemon

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ReapOrphans takes note, until ended is closed, of the end of processes that were left behind, by a filter or a server
// program say, and that have become our children because we are the first process of a container. Nobody else would,
// and they would stay in the table of processes.
func ReapOrphans(ended <-chan struct{}) {
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

// zombies gives the children of a process that have ended.
func zombies(parent int) (pids []int) {
	processes, _ := filepath.Glob("/proc/[0-9]*/stat") // without /proc there are none to see
	want := fmt.Sprintf(" Z %d ", parent)
	for _, file := range processes {
		text, err := os.ReadFile(file)
		// State and parent stand behind the second field, a name in parentheses that may hold anything.
		if err != nil || !strings.HasPrefix(string(text[bytes.LastIndexByte(text, ')')+1:]), want) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}
