package main

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"

	"postern/internal/rawio"
)

// direct returns the connection without what system calls cost that never block, see package rawio.
func direct(conn net.Conn) net.Conn {
	if c, ok := rawio.New(conn); ok {
		return c
	}
	return conn
}

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
		n, errno := rawio.Peek(int(fd), one[:])
		found = errno == 0 && n > 0
		return true
	})
	return err == nil && found
}

// partingOf tells whether the other side of a TCP or UNIX socket has closed it, also behind bytes that wait to be read.
// Of other connections it is not known.
func partingOf(conn net.Conn) parting {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return here
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return here
	}
	p := []unix.PollFd{{Events: unix.POLLRDHUP}}
	_ = raw.Control(func(fd uintptr) {
		p[0].Fd = int32(fd)
		_, err = unix.Poll(p, 0)
	})
	switch {
	case err != nil:
	case p[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0:
		return goneAway
	case p[0].Revents&unix.POLLRDHUP != 0:
		return silent
	}
	return here
}
