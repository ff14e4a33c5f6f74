package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"postern/internal/pidfile"
)

// ownFiles are the process id file and the lock file. Both are locked as long as they
// are ours, so that a second instance leaves those of the first alone; both are given
// up when the end begins, for the one that takes over.
//
// Those in a directory of root are made as root, because only root can; those in
// anybody else's as the account that will serve, because root has no business there.
// Both are made before the sockets are opened.
type ownFiles struct {
	pidPath   string // absolute; "" = none
	pid, lock *pidfile.File
}

var errLocked = errors.New("Cannot lock lockfile: Is another copy running?")

// openEarly writes the process id file and the lock file if that needs root. A relative process id file is relative to
// the directory the program was started in, a relative lock file to the spool directory, which it is too early for.
func (f *ownFiles) openEarly(pidPath, lockPath string) error {
	var err error
	if pidPath != "" {
		if f.pidPath, err = filepath.Abs(pidPath); err != nil {
			return fmt.Errorf("process id file %s: %w", pidPath, err)
		}
		switch roots, err := inDirOfRoot(f.pidPath); {
		case err != nil:
			return fmt.Errorf("process id file: %w", err)
		case roots:
			if f.pid, err = takeFile(f.pidPath); err != nil {
				return err
			}
		}
	}
	if !filepath.IsAbs(lockPath) {
		return nil
	}
	if roots, err := inDirOfRoot(lockPath); err != nil || !roots {
		return nil // acquire says what is wrong
	}
	f.lock, err = takeFile(lockPath)
	return err
}

// inDirOfRoot reports whether only root may make a file of that name.
func inDirOfRoot(path string) (bool, error) {
	st, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return false, err
	}
	return st.Sys().(*syscall.Stat_t).Uid == 0 && st.Mode().Perm()&0o022 == 0, nil
}

// takeFile writes a file that says who runs, and locks it.
func takeFile(path string) (*pidfile.File, error) {
	f, err := pidfile.Write(path)
	switch {
	case errors.Is(err, pidfile.ErrRunning):
		err = fmt.Errorf("%w (%w)", errLocked, err)
	case err != nil:
		err = fmt.Errorf("Cannot lock: %w", err)
	}
	return f, err
}

// acquire takes the lock and then writes the process id, if it is not written yet. A
// relative lock file is relative to the spool directory, which is the current one by
// now.
func (f *ownFiles) acquire(lockPath string) (err error) {
	if lockPath != "" && f.lock == nil {
		if f.lock, err = takeFile(lockPath); err != nil {
			return err
		}
	}
	if f.pidPath != "" && f.pid == nil {
		f.pid, err = takeFile(f.pidPath)
	}
	return err
}

// remove gives up the files, once, and removes them as far as this user may.
func (f *ownFiles) remove() error {
	var errs []error
	for _, file := range []**pidfile.File{&f.pid, &f.lock} {
		if *file != nil {
			errs = append(errs, (*file).Remove())
			*file = nil
		}
	}
	return errors.Join(errs...)
}
