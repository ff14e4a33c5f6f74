package privdrop

import (
	"runtime"
	"syscall"
	"unsafe"
)

// As runs f on a thread that is the account, to learn what it may do; the process stays what it is. What f starts in
// goroutines of its own is not covered. Without the right to become another account, f runs as who is there.
func As(a Account, f func() error) error {
	if syscall.Geteuid() != 0 {
		return f()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := becomeThread(a)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// becomeThread sets the ids of the calling thread alone, as the functions of package syscall do not.
func becomeThread(a Account) error {
	groups := make([]uint32, len(a.Groups)+1)
	for i, gid := range a.Groups {
		groups[i] = uint32(gid)
	}
	groups[len(a.Groups)] = uint32(a.GID)
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0); errno != 0 {
		return errno
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESGID, uintptr(a.GID), uintptr(a.GID), uintptr(a.GID)); errno != 0 {
		return errno
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(a.UID), uintptr(a.UID), uintptr(a.UID)); errno != 0 {
		return errno
	}
	return nil
}
