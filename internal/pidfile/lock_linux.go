package pidfile

import "golang.org/x/sys/unix"

// Locks of the open file description: what else the process does with the file is no matter.
const (
	setLock = unix.F_OFD_SETLK
	getLock = unix.F_OFD_GETLK
)
