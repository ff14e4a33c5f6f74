package pidfile

import (
	"runtime"
	"syscall"
)

// lockedUser makes the calling goroutine's thread, and no other, act on files as
// the user. setfsuid(2)
func lockedUser(uid int) {
	runtime.LockOSThread()
	syscall.RawSyscall(syscall.SYS_SETFSUID, uintptr(uid), 0, 0)
}
