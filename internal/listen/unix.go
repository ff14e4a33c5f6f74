package listen

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"postern/internal/safedir"
)

// lockWait bounds the wait for another program that is just binding a socket in
// the same directory, which takes it less than a millisecond.
const lockWait = time.Second

// dialWait bounds the test whether somebody answers at a socket.
const dialWait = 2 * time.Second

// unixListener removes its socket file when it is closed, if the file is still
// the one that it made.
type unixListener struct {
	*net.UnixListener
	path     string // absolute
	dev, ino uint64
	unlink   sync.Once
}

// newUnixListener returns the listener of the file that is at path now, or closes ul.
func newUnixListener(ul *net.UnixListener, path string) (*unixListener, error) {
	st, err := lstat(path)
	if err != nil {
		return nil, orClose(ul, err)
	}
	return &unixListener{UnixListener: ul, path: path, dev: st.Dev, ino: st.Ino}, nil
}

// Close removes the listener's file and stops it. A directory that the process
// may no longer write to is no error: the next start replaces the stale socket.
func (l *unixListener) Close() error {
	err := l.remove()
	if closeErr := l.UnixListener.Close(); closeErr != nil {
		err = closeErr
	}
	return err
}

// remove removes the socket's file, once, if it is still the one that was made. It is
// called while the socket is open: as long as somebody listens no other program
// replaces the file, and its number is not given to another one.
func (l *unixListener) remove() (err error) {
	l.unlink.Do(func() {
		if st, statErr := lstat(l.path); statErr != nil || st.Dev != l.dev || st.Ino != l.ino {
			return
		}
		if rmErr := os.Remove(l.path); rmErr != nil && !notPermitted(rmErr) {
			err = rmErr
		}
	})
	return err
}

func notPermitted(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EROFS)
}

// bindUnix makes the UNIX socket of a request.
func bindUnix(r Request, path string) (net.Listener, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	uid, gid, err := r.ids()
	if err != nil {
		return nil, err
	}
	unlock, err := lockDir(filepath.Dir(path), r.trusted()...)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := removeStale(path); err != nil {
		return nil, err
	}
	first := r.Mode
	if uid >= 0 || gid >= 0 {
		first &= 0o700 // the group that it is made with gets no rights
	}
	ul, err := listenUnix(path, first)
	if err != nil {
		return nil, err
	}
	l, err := newUnixListener(ul, path)
	if err != nil {
		return nil, err
	}
	if err := setRights(l, r.Mode, uid, gid); err != nil {
		return nil, orClose(l, err)
	}
	if err := setBacklog(ul, r.Backlog); err != nil {
		return nil, orClose(l, err)
	}
	return l, nil
}

// ids gives user and group of the socket's file, -1 for those of this process.
func (r Request) ids() (uid, gid int, err error) {
	uid = -1
	if gid, err = r.gid(); r.Owner != nil {
		if uid = r.Owner.UID; gid < 0 {
			gid = r.Owner.GID
		}
	}
	return uid, gid, err
}

// listenUnix binds and listens; before the bind the socket's own mode is set,
// which Linux takes, less the umask, for the file: it never has more rights.
func listenUnix(path string, mode fs.FileMode) (*net.UnixListener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return control(c, func(fd int) error { return unix.Fchmod(fd, uint32(mode.Perm())) })
	}}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	ul, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return nil, fmt.Errorf("listener is a %T", l)
	}
	ul.SetUnlinkOnClose(false) // unixListener does it, with a look at what is there
	return ul, nil
}

// lockDir makes sure that the directory is one in which sockets are safe, and
// keeps other programs of the suite out of it until unlock: between the test for a
// stale socket and listen(2) a socket of ours would look stale to them.
func lockDir(dir string, also ...safedir.Account) (unlock func(), err error) {
	if err := safedir.Check(dir, also...); err != nil {
		return nil, err
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EACCES) {
		return func() {}, nil // a directory may be writable and not readable
	}
	if err != nil {
		return nil, fmt.Errorf("open directory %s: %w", dir, err)
	}
	// Whoever can read the directory can lock it, so that the lock is not waited
	// for without end: it only keeps two starts at the same moment apart.
	deadline := time.Now().Add(lockWait)
	for unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) != nil && time.Now().Before(deadline) {
		time.Sleep(lockWait / 500)
	}
	return func() { unix.Close(fd) }, nil
}

// removeStale clears the path of a socket that nobody listens on any more. All
// else that may be there is an error and stays.
func removeStale(path string) error {
	st, err := lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return errors.New("there is a file that is no socket; it was left alone")
	}
	conn, err := net.DialTimeout("unix", path, dialWait)
	if err == nil {
		conn.Close()
		return errors.New("another process listens there; its socket was left alone")
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	// Only a refused connection proves that nobody listens; a full backlog
	// (EAGAIN), a socket of another type (EPROTOTYPE) and missing rights do not.
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("there is a socket that may be in use (%w); it was left alone", reason(err))
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove stale socket: %w", reason(err))
	}
	return nil
}

// setRights gives the socket file its owner and group, -1 for no other, and then its mode, which the umask
// has narrowed. It works on the file that was made and on no other that may have
// come into its place: a path descriptor is opened and compared first.
func setRights(l *unixListener, mode fs.FileMode, uid, gid int) error {
	fd, err := unix.Open(l.path, safedir.PathOnly|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: l.path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: l.path, Err: err}
	}
	if st.Dev != l.dev || st.Ino != l.ino || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return fmt.Errorf("%s was replaced while it was made", l.path)
	}
	if uid >= 0 && st.Uid != uint32(uid) || gid >= 0 && st.Gid != uint32(gid) {
		if err := chownPath(fd, uid, gid); err != nil {
			return &fs.PathError{Op: "chown", Path: l.path, Err: err}
		}
	}
	if uint32(st.Mode)&0o777 != uint32(mode.Perm()) {
		if err := chmodPath(fd, uint32(mode.Perm())); err != nil {
			return &fs.PathError{Op: "chmod", Path: l.path, Err: err}
		}
	}
	return nil
}

func lstat(path string) (*unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return nil, &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	return &st, nil
}
