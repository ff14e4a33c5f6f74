package sockspec

import (
	"errors"
	"fmt"
	"net"
	"os/user"
	"strconv"
	"syscall"
)

// Peer returns who is on the other side of a UNIX socket, as the kernel knows it.
func Peer(conn net.Conn) (cred *syscall.Ucred, err error) {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.New("no UNIX socket")
	}
	raw, err := uc.SyscallConn()
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
