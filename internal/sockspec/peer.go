package sockspec

import (
	"errors"
	"net"
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
