package listen

import "golang.org/x/sys/unix"

const atEmptyPath = 0x4000 // AT_EMPTY_PATH of FreeBSD 13.1 or later

// chownPath gives the file of a path descriptor an owner and a group.
func chownPath(fd, uid, gid int) error { return unix.Fchownat(fd, "", uid, gid, atEmptyPath) }

// chmodPath gives the file of a path descriptor a mode.
func chmodPath(fd int, mode uint32) error { return unix.Fchmodat(fd, "", mode, atEmptyPath) }
