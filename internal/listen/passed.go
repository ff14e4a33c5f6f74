package listen

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// firstPassed is the number of the first passed descriptor, SD_LISTEN_FDS_START.
const firstPassed = 3

// passed takes over the descriptors that the service manager passed. go-systemd
// does so for any number without a look and leaves out what is no listener, so
// that all is checked before: a number out of the blue would have it close
// descriptors of the Go runtime.
func passed(requests []Request, log *slog.Logger) (Set, error) {
	defer unsetenv("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID", boundVar)
	bound := strings.Split(os.Getenv(boundVar), ":")
	fdNames, err := passedNames(os.Getenv, os.Getpid())
	if errors.Is(err, errNotForUs) {
		log.Debug("passed listeners ignored", "cause", err)
		return Set{}, nil
	}
	if err != nil {
		return nil, err
	}
	for i, name := range fdNames {
		if err := checkListener(firstPassed + i); err != nil {
			return nil, fmt.Errorf("passed descriptor %d (%s): %w", firstPassed+i, name, err)
		}
		if !slices.ContainsFunc(requests, func(r Request) bool { return r.Name == name }) {
			return nil, fmt.Errorf("passed descriptor %d: no listener is named %q here, only %s (see FileDescriptorName= in systemd.socket)",
				firstPassed+i, name, names(requests))
		}
	}
	set := Set{}
	if len(fdNames) == 0 {
		return set, nil
	}
	for i, f := range activation.Files(false) {
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("passed descriptor %d (%s): %w", firstPassed+i, fdNames[i], err), set.Close())
		}
		if !slices.Contains(bound, strconv.Itoa(i)) {
			l = asPassed(l)
		} else if l, err = asBound(l); err != nil {
			return nil, errors.Join(fmt.Errorf("listener %s of the process before: %w", fdNames[i], err), set.Close())
		}
		set[fdNames[i]] = append(set[fdNames[i]], l)
	}
	return set, nil
}

// passedTCP and passedUnix are listeners that the service manager keeps open.
type (
	passedTCP  struct{ *net.TCPListener }
	passedUnix struct{ *net.UnixListener }
)

func asPassed(l net.Listener) net.Listener {
	switch l := l.(type) {
	case *net.TCPListener:
		return passedTCP{l}
	case *net.UnixListener:
		return passedUnix{l}
	}
	return l
}

func isPassed(l net.Listener) bool {
	switch unwrap(l).(type) {
	case passedTCP, passedUnix:
		return true
	}
	return false
}

// errNotForUs: the variables are meant for another process, most likely our parent.
var errNotForUs = errors.New("LISTEN_PID is another process")

// passedNames reads the variables: a name for each passed descriptor.
func passedNames(getenv func(string) string, pid int) ([]string, error) {
	count := getenv("LISTEN_FDS")
	if count == "" {
		return nil, nil
	}
	if forPid := getenv("LISTEN_PID"); forPid != strconv.Itoa(pid) {
		return nil, fmt.Errorf("%w (%q)", errNotForUs, forPid)
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 {
		return nil, fmt.Errorf("LISTEN_FDS=%q is no number of descriptors", count)
	}
	if n == 0 {
		return nil, nil
	}
	list := getenv("LISTEN_FDNAMES")
	if list == "" {
		return nil, fmt.Errorf("LISTEN_FDS=%d, but LISTEN_FDNAMES gives no names", n)
	}
	fdNames := strings.Split(list, ":")
	if len(fdNames) != n {
		return nil, fmt.Errorf("LISTEN_FDS=%d, but LISTEN_FDNAMES=%q has %d names", n, list, len(fdNames))
	}
	return fdNames, nil
}

// checkListener wants a stream socket that listens.
func checkListener(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("not open: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return errors.New("not a socket")
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return fmt.Errorf("socket type: %w", err)
	}
	if kind != unix.SOCK_STREAM {
		return errors.New("not a stream socket")
	}
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return fmt.Errorf("socket state: %w", err)
	}
	if listening == 0 {
		return errors.New("a socket that does not listen (connected? Accept=yes in the socket unit?)")
	}
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fmt.Errorf("socket domain: %w", err)
	}
	if domain != unix.AF_UNIX && domain != unix.AF_INET && domain != unix.AF_INET6 {
		return fmt.Errorf("socket domain %d is neither UNIX nor IP", domain)
	}
	return nil
}

func unsetenv(names ...string) {
	for _, name := range names {
		os.Unsetenv(name)
	}
}
