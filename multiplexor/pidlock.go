package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// ownFiles are the process id file and the lock file.
//
// A process id file in a directory of root is opened before privileges are
// dropped, because only then it can be; one in anybody else's directory
// afterwards, because root has no business there. It is written when the lock
// is held, so that a second instance leaves that of the first alone.
type ownFiles struct {
	pidPath, lockPath string // absolute; "" = none
	pid, lock         *os.File
}

var errLocked = errors.New("Cannot lock lockfile: Is another copy running?")

// openEarly opens the process id file if that needs root. Relative paths are
// relative to the directory the program was started in.
func (f *ownFiles) openEarly(pidPath string) error {
	if pidPath == "" {
		return nil
	}
	var err error
	if f.pidPath, err = filepath.Abs(pidPath); err != nil {
		return fmt.Errorf("process id file %s: %w", pidPath, err)
	}
	st, err := os.Stat(filepath.Dir(f.pidPath))
	if err != nil {
		return fmt.Errorf("process id file: %w", err)
	}
	owner := st.Sys().(*syscall.Stat_t)
	if owner.Uid != 0 || st.Mode().Perm()&0o022 != 0 {
		return nil
	}
	f.pid, err = openPlain(f.pidPath, 0o644)
	if errors.Is(err, os.ErrPermission) && os.Getuid() != 0 {
		return fmt.Errorf("process id file: %w", err)
	}
	return err
}

// openPlain opens a regular file for writing, without following a link, waiting
// for a FIFO, or touching what is in it.
func openPlain(path string, mode os.FileMode) (*os.File, error) {
	old := syscall.Umask(0)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, mode)
	syscall.Umask(old)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		file.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1 {
		file.Close()
		return nil, fmt.Errorf("%s is not a regular file with one name", path)
	}
	return file, nil
}

// acquire takes the lock and then writes the process id. A relative lock file is
// relative to the spool directory, which is the current one by now.
func (f *ownFiles) acquire(lockPath string) error {
	if lockPath != "" {
		if err := f.takeLock(lockPath); err != nil {
			return err
		}
	}
	if f.pidPath == "" {
		return nil
	}
	if f.pid == nil {
		var err error
		if f.pid, err = openPlain(f.pidPath, 0o644); err != nil {
			return fmt.Errorf("process id file: %w", err)
		}
	}
	if err := f.pid.Truncate(0); err != nil {
		return fmt.Errorf("process id file: %w", err)
	}
	if _, err := f.pid.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return fmt.Errorf("process id file: %w", err)
	}
	return nil
}

func (f *ownFiles) takeLock(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("lock file %s: %w", path, err)
	}
	file, err := openPlain(path, 0o600)
	if err != nil {
		return fmt.Errorf("%w (%w)", errLocked, err)
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(file.Fd(), unix.F_SETLK, &lock); err != nil {
		file.Close()
		return fmt.Errorf("%w (%s: %w)", errLocked, path, err)
	}
	f.lock, f.lockPath = file, path
	return nil
}

// remove removes the files as far as this user may, and gives up the lock.
func (f *ownFiles) remove() {
	if f.pid != nil {
		_ = os.Remove(f.pidPath)
		_ = f.pid.Close()
	}
	if f.lock != nil {
		_ = os.Remove(f.lockPath)
		_ = f.lock.Close()
	}
}
