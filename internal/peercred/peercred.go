// Package peercred tells who is at the other end of a UNIX socket, and reads settings that
// say who may be.
package peercred

import (
	"errors"
	"fmt"
	"net"
	"os/user"
	"strconv"
	"syscall"
)

// Of returns who has connected, as the kernel says; other than a UNIX socket's, a peer is not
// known, which is an error.
func Of(conn net.Conn) (cred *syscall.Ucred, err error) {
	unix, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.New("no UNIX socket")
	}
	raw, err := unix.SyscallConn()
	if err != nil {
		return nil, err
	}
	controlled := raw.Control(func(fd uintptr) {
		cred, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	return cred, errors.Join(controlled, err)
}

// Users returns the ids of the users in a setting. A user is a name or a number;
// one that does not exist is an error.
func Users(setting string, names []string) (ids []uint32, err error) {
	for _, name := range names {
		id := name
		if u, err := user.Lookup(name); err == nil {
			id = u.Uid
		}
		uid, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%s %q: no such user", setting, name)
		}
		ids = append(ids, uint32(uid))
	}
	return ids, nil
}
