package privdrop

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The ids are the process's here, not a thread's.

// setgroups puts the group first: the first of the list is the effective one. setgroups(2)
func setgroups(a Account) error                  { return syscall.Setgroups(append([]int{a.GID}, a.Groups...)) }
func setresgid(real, effective, saved int) error { return unix.Setresgid(real, effective, saved) }
func setresuid(real, effective, saved int) error { return unix.Setresuid(real, effective, saved) }

// Capabilities are Linux's.
const allCaps, idCaps uint64 = 0, 0

// verifyThreads looks at the ids and groups. Whether a saved id differs is seen by trying to go back.
func verifyThreads(a Account, _ uint64) error {
	if os.Getuid() != a.UID || os.Geteuid() != a.UID {
		return fmt.Errorf("user ids are %d and %d, want %d", os.Getuid(), os.Geteuid(), a.UID)
	}
	if os.Getgid() != a.GID || os.Getegid() != a.GID {
		return fmt.Errorf("group ids are %d and %d, want %d", os.Getgid(), os.Getegid(), a.GID)
	}
	groups, err := os.Getgroups()
	if err != nil {
		return fmt.Errorf("get groups: %w", err)
	}
	for _, g := range groups {
		if g != a.GID && !slices.Contains(a.Groups, g) {
			return fmt.Errorf("supplementary groups are %v, want %v", groups, a.Groups)
		}
	}
	return nil
}

// As runs f as who is there: no thread can be another account.
func As(_ Account, f func() error) error { return f() }

// Of procctl(2); FreeBSD 14 or later has all.
const (
	idtypePID            = 0
	procTraceCtl         = 7
	procTraceCtlDisable  = 2
	procNoNewPrivsCtl    = 19
	procNoNewPrivsEnable = 1
)

// Protect keeps what is in the memory of this process, until it becomes another program, from processes of the same account: they
// cannot trace it, and no core is written.
func Protect() error {
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("set core size: %w", err)
	}
	if err := procctl(procTraceCtl, procTraceCtlDisable); err != nil {
		return fmt.Errorf("protect the memory of the process: %w", err)
	}
	return nil
}

// NoNewPrivileges keeps this process and all it starts from gaining rights by programs that are set-uid or set-gid. It
// cannot be undone, and is left out where the kernel is too old for it.
func NoNewPrivileges() error {
	if err := procctl(procNoNewPrivsCtl, procNoNewPrivsEnable); err != nil && !errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("give up new privileges: %w", err)
	}
	return nil
}

func procctl(command uintptr, value int32) error {
	_, _, errno := unix.Syscall6(unix.SYS_PROCCTL, idtypePID, uintptr(os.Getpid()), command, uintptr(unsafe.Pointer(&value)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
