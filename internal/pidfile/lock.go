package pidfile

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// lock takes the write lock that a pid file has while its process lives. Unlike a
// lock of flock(2) it is for those alone who may write to the file: readers cannot
// pretend that the process lives. fcntl(2)
func lock(f *os.File) bool {
	request := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	return unix.FcntlFlock(f.Fd(), setLock, &request) == nil
}

// isLocked reports whether another process has the write lock. Read locks, which
// anybody can have, do not count.
func isLocked(f *os.File) bool {
	request := unix.Flock_t{Type: unix.F_RDLCK, Whence: io.SeekStart}
	err := unix.FcntlFlock(f.Fd(), getLock, &request)
	return err == nil && request.Type != unix.F_UNLCK
}
