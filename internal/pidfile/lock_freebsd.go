package pidfile

import "golang.org/x/sys/unix"

// Locks of the process, which end when it closes any descriptor of the file: it opens it only once.
const (
	setLock = unix.F_SETLK
	getLock = unix.F_GETLK
)
