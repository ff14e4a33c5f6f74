package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// gcPercent is how much of the live heap may be allocated before a collection, in
// percent; with the smallest heap there is that makes about a megabyte.
const gcPercent = 30

// keepSmall gives back what only the start needed, and keeps the heap small from now
// on. The heap is a few hundred kilobytes, and most of what the start made is
// garbage: collecting often costs little.
func keepSmall() {
	debug.SetGCPercent(gcPercent)
	debug.FreeOSMemory()
	// The kernel has mapped the program's code in pieces around each page that was
	// touched, nearly all of it by now. What is needed again is mapped again, from memory.
	// If that cannot be done the process is only a little larger.
	_ = unmapCode()
}

func unmapCode() error {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return err
	}
	defer f.Close()
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var from, to uintptr
		var mode string
		// Only code: it is never written to, so that nothing can be lost.
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &mode); err != nil || mode != "r-xp" || !strings.HasSuffix(lines.Text(), " "+program) {
			continue
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
			return errno
		}
	}
	return nil
}
