package listen

import (
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Handover is the descriptors of open listeners for a process that takes them over, as sd_listen_fds(3) has them.
type Handover struct {
	FDs   []int // to be the first that the process gets, from firstPassed on
	names []string
	bound []string // numbers, among them, of those that Open has bound
}

// Handover gives the descriptors of all listeners; Close closes them. They are copies: the listeners stay as they are.
func (s Set) Handover() (*Handover, error) {
	h := &Handover{}
	for _, name := range slices.Sorted(maps.Keys(s)) {
		for _, l := range s[name] {
			fd, err := dup(l)
			if err != nil {
				h.Close()
				return nil, fmt.Errorf("listener %s: %w", name, err)
			}
			if !isPassed(l) {
				h.bound = append(h.bound, strconv.Itoa(len(h.FDs)))
			}
			h.FDs, h.names = append(h.FDs, fd), append(h.names, name)
		}
	}
	return h, nil
}

// boundVar says which of the descriptors are not the service manager's.
const boundVar = "POSTERN_LISTEN_BOUND"

// Env returns the variables that go with the descriptors, but for LISTEN_PID, which is not known yet: see Mine.
func (h *Handover) Env() []string {
	return []string{
		"LISTEN_FDS=" + strconv.Itoa(len(h.FDs)), "LISTEN_FDNAMES=" + strings.Join(h.names, ":"), boundVar + "=" + strings.Join(h.bound, ":"),
	}
}

// asBound makes a listener that was handed over what it was for the process that has bound it.
func asBound(l net.Listener) (net.Listener, error) {
	ul, ok := l.(*net.UnixListener)
	if !ok {
		return l, nil
	}
	ul.SetUnlinkOnClose(false)
	return newUnixListener(ul, ul.Addr().String())
}

// Close closes the descriptors.
func (h *Handover) Close() {
	for _, fd := range h.FDs {
		_ = unix.Close(fd)
	}
}

// Mine says that the descriptors of a Handover are meant for this process. It is called before Open.
func Mine() error { return os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())) }

// Release closes all listeners of which another process has copies. The files of UNIX sockets stay.
func (s Set) Release() error {
	for _, listeners := range s {
		for _, l := range listeners {
			if ul, ok := unwrap(l).(*unixListener); ok {
				ul.unlink.Do(func() {})
			}
		}
	}
	return s.Close()
}

// unwrap returns what is below what others have put over a listener.
func unwrap(l net.Listener) net.Listener {
	for {
		over, ok := l.(interface{ Unwrap() net.Listener })
		if !ok {
			return l
		}
		l = over.Unwrap()
	}
}

// dup gives a copy of a listener's descriptor, which the children of others do not get. Not that of File: as soon as
// somebody looks at its number, the listener would block.
func dup(l net.Listener) (fd int, err error) {
	conn, ok := unwrap(l).(syscall.Conn)
	if !ok {
		return -1, fmt.Errorf("a %T has no descriptor", l)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	err = control(raw, func(of int) (err error) {
		fd, err = unix.FcntlInt(uintptr(of), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	return fd, err
}
