package privdrop

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tasks has a directory for each thread. proc(5)
const tasks = "/proc/self/task"

// Sets of capabilities, a bit each. capabilities(7)
const (
	allCaps uint64 = 1<<64 - 1
	// idCaps are CAP_SETGID, CAP_SETUID and CAP_SETPCAP: with them a process could
	// change its ids, or get the right to.
	idCaps uint64 = 1<<6 | 1<<7 | 1<<8
)

// endWait bounds the wait for a thread that is just ending: the C library (in
// builds with cgo) does not change its ids any more.
const endWait = time.Second

// errNotAll says that a list of the threads had not all of them: the kernel ends it where a thread ends meanwhile.
var errNotAll = errors.New("not all threads could be looked at")

// allWait bounds the wait for a list of all threads.
const allWait = time.Minute

// verifyThreads looks at the ids of each thread, and that it has none of the
// forbidden capabilities. A thread that differs has a moment to end.
func verifyThreads(a Account, forbidden uint64) error {
	for began := time.Now(); ; time.Sleep(endWait / 100) {
		limit := endWait
		err := lookAtThreads(a, forbidden)
		if errors.Is(err, errNotAll) {
			limit = allWait
		}
		if err == nil || time.Since(began) > limit {
			return err
		}
	}
}

// threads returns how many there are.
func threads() (int, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(statusFields(status)["Threads"])
}

// lookAtThreads looks at each thread once. A thread that starts while it reads
// has the ids of the one that started it.
func lookAtThreads(a Account, forbidden uint64) error {
	before, err := threads()
	entries, listErr := os.ReadDir(tasks)
	after, afterErr := threads()
	if err := errors.Join(err, listErr, afterErr); err != nil {
		return fmt.Errorf("look at all threads: %w", err)
	}
	seen := 0
	for _, e := range entries {
		data, err := os.ReadFile(tasks + "/" + e.Name() + "/status")
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // the thread has ended
		}
		if err != nil {
			return fmt.Errorf("look at thread %s: %w", e.Name(), err)
		}
		if err := verifyStatus(data, a, forbidden); err != nil {
			return fmt.Errorf("thread %s: %w", e.Name(), err)
		}
		seen++
	}
	if all := max(before, after); seen == 0 || len(entries) < all {
		return fmt.Errorf("%w: %d of %d were listed, and %d still there", errNotAll, len(entries), all, seen)
	}
	return nil
}

// statusFields takes a status file apart. proc(5)
func statusFields(data []byte) map[string]string {
	fields := make(map[string]string)
	for line := range bytes.Lines(data) {
		if key, value, ok := strings.Cut(string(line), ":"); ok {
			fields[key] = strings.TrimSpace(value)
		}
	}
	return fields
}

// verifyStatus holds a thread's status file against the account.
func verifyStatus(data []byte, a Account, forbidden uint64) error {
	fields := statusFields(data)
	if err := verifyIDs("user", fields["Uid"], a.UID); err != nil {
		return err
	}
	if err := verifyIDs("group", fields["Gid"], a.GID); err != nil {
		return err
	}
	if err := verifyGroups(fields, a.Groups); err != nil {
		return err
	}
	for _, set := range []string{"CapPrm", "CapEff", "CapAmb"} {
		caps, err := strconv.ParseUint(fields[set], 16, 64)
		if err != nil {
			return fmt.Errorf("capabilities %s: %q", set, fields[set])
		}
		if caps&forbidden != 0 {
			return fmt.Errorf("capabilities %s are still %s", set, fields[set])
		}
	}
	return nil
}

// verifyIDs wants real, effective, saved and file system id to be the same.
func verifyIDs(what, text string, want int) error {
	ids := strings.Fields(text)
	if len(ids) != 4 {
		return fmt.Errorf("%s ids: %q", what, text)
	}
	for _, id := range ids {
		if id != strconv.FormatUint(uint64(uint32(want)), 10) {
			return fmt.Errorf("%s ids are %q, want %d", what, text, want)
		}
	}
	return nil
}

func verifyGroups(fields map[string]string, want []int) error {
	text, ok := fields["Groups"]
	if !ok {
		return errors.New("groups are not shown")
	}
	var got []int
	for _, f := range strings.Fields(text) {
		gid, err := strconv.ParseUint(f, 10, 32)
		if err != nil {
			return fmt.Errorf("groups: %q", text)
		}
		got = append(got, int(gid))
	}
	want = slices.Sorted(slices.Values(want))
	slices.Sort(got)
	if !slices.Equal(slices.Compact(got), slices.Compact(want)) {
		return fmt.Errorf("supplementary groups are %v, want %v", got, want)
	}
	return nil
}
