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

// look has f look at the socket of a connection, whatever deadlines it has; a connection without one, such as TLS, is
// not looked at. f must not wait.
func look(conn net.Conn, f func(fd int)) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	if raw, err := sc.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { f(int(fd)) })
	}
}

// pending tells whether bytes wait to be read from a TCP or UNIX socket, without waiting and without reading them. For
// other connections, TLS for one, it says no.
func pending(conn net.Conn) (found bool) {
	look(conn, func(fd int) {
		var one [1]byte
		n, errno := rawio.Peek(fd, one[:])
		found = errno == 0 && n > 0
	})
	return found
}

// partingOf tells whether the other side of a TCP or UNIX socket has closed it, also behind bytes that wait to be read.
// Of other connections it is not known.
func partingOf(conn net.Conn) (p parting) {
	look(conn, func(fd int) {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		_, err := unix.Poll(poll, 0)
		switch {
		case err != nil:
		case poll[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0:
			p = goneAway
		case poll[0].Revents&unix.POLLRDHUP != 0:
			p = silent
		}
	})
	return p
}
