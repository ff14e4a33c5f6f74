package main

import (
	"net"
	"syscall"
)

// pending tells whether bytes wait to be read from a TCP or UNIX socket, without waiting and without reading them. For
// other connections, TLS for one, it says no.
func pending(conn net.Conn) bool {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	found := false
	err = raw.Read(func(fd uintptr) bool {
		var one [1]byte
		n, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		found = err == nil && n > 0
		return true
	})
	return err == nil && found
}
