package listen

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Take takes the descriptor of a listener of Open away from Go's poller, for a
// program with an event loop of its own; the net.Listener is of no use
// afterwards. The descriptor is non-blocking and close-on-exec, and the caller
// closes it. remove removes the socket's file as Close would have done, and is called
// before.
func Take(l net.Listener) (fd int, remove func() error, err error) {
	filer, ok := l.(interface{ File() (*os.File, error) })
	if !ok {
		return -1, nil, fmt.Errorf("take the descriptor of a %T: it has none", l)
	}
	f, err := filer.File()
	if err != nil {
		return -1, nil, fmt.Errorf("take the descriptor of listener %s: %w", l.Addr(), err)
	}
	defer f.Close()
	// Another descriptor of the same listener: f would close its own.
	fd, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, nil, fmt.Errorf("take the descriptor of listener %s: %w", l.Addr(), err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return -1, nil, fmt.Errorf("make listener %s non-blocking: %w", l.Addr(), err)
	}
	ul, ours := l.(*unixListener)
	if !ours {
		return fd, func() error { return nil }, l.Close()
	}
	return fd, ul.remove, ul.UnixListener.Close()
}
