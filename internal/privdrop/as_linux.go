package privdrop

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// As runs f on a thread that is the account, to learn what it may do or to do it as the account; the process stays what it is, and the thread is
// again what it was when As returns: system calls for all threads would end the process if one differed. What f
// starts in goroutines of its own is not covered. Without the right to become another account, f runs as who is there.
func As(a Account, f func() error) error {
	if syscall.Geteuid() != 0 {
		return f()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	groups, err := syscall.Getgroups()
	if err != nil {
		return fmt.Errorf("get groups: %w", err)
	}
	gid := syscall.Getegid()
	defer func() {
		// A thread that cannot go back is good for nothing.
		if err := becomeThread(0, gid, groups, false); err != nil {
			panic(fmt.Sprintf("become root again: %v", err))
		}
	}()
	if err := becomeThread(a.UID, a.GID, append([]int{a.GID}, a.Groups...), true); err != nil {
		return err
	}
	return f()
}

// becomeThread sets the groups and effective ids of the calling thread alone, as the functions of package syscall do
// not: the groups first where rights are given up, and last where they come back.
func becomeThread(uid, gid int, groups []int, giveUp bool) error {
	ids := func() error {
		if _, _, errno := unix.RawSyscall(sysSetresuid, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
			return fmt.Errorf("set user of thread: %w", errno)
		}
		return nil
	}
	if !giveUp {
		if err := ids(); err != nil {
			return err
		}
	}
	list := make([]uint32, len(groups), len(groups)+1)
	for i, g := range groups {
		list[i] = uint32(g)
	}
	if _, _, errno := unix.RawSyscall(sysSetgroups, uintptr(len(list)), uintptr(unsafe.Pointer(unsafe.SliceData(list))), 0); errno != 0 {
		return fmt.Errorf("set groups of thread: %w", errno)
	}
	if _, _, errno := unix.RawSyscall(sysSetresgid, ^uintptr(0), uintptr(gid), ^uintptr(0)); errno != 0 {
		return fmt.Errorf("set group of thread: %w", errno)
	}
	if giveUp {
		return ids()
	}
	return nil
}
