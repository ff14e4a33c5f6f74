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
// A process id file in a directory of root is written before privileges are dropped,
// because only then it can be; one in anybody else's directory afterwards, because
// root has no business there.
type ownFiles struct {
	pidPath   string // absolute; "" = none
	pid, lock *pidfile.File
}

var errLocked = errors.New("Cannot lock lockfile: Is another copy running?")

// openEarly writes the process id file if that needs root. Relative paths are
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
	f.pid, err = takeFile(f.pidPath)
	return err
}

// takeFile writes a file that says who runs, and locks it.
func takeFile(path string) (*pidfile.File, error) {
	f, err := pidfile.Write(path)
	if errors.Is(err, pidfile.ErrRunning) {
		err = fmt.Errorf("%w (%w)", errLocked, err)
	}
	return f, err
}

// acquire takes the lock and then writes the process id, if it is not written yet. A
// relative lock file is relative to the spool directory, which is the current one by
// now.
func (f *ownFiles) acquire(lockPath string) (err error) {
	if lockPath != "" {
		if f.lock, err = pidfile.Write(lockPath); err != nil {
			return fmt.Errorf("%w (%w)", errLocked, err)
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
