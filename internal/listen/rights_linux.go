package listen

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// chownPath gives the file of a path descriptor an owner and a group.
func chownPath(fd, uid, gid int) error { return unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH) }

// chmodPath gives the file of a path descriptor a mode. fchmod(2) refuses such descriptors; their name in /proc is taken.
func chmodPath(fd int, mode uint32) error { return unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), mode) }
