// Package pidfile tells the process id of a running program to those who send it
// signals, and keeps a second copy of it from starting.
//
// The file is written by root, often in a directory that the service user can
// write to, so that nothing that may be there is trusted (CVE-2018-16888 and its
// like): it appears by a rename of a new file, links and files with a second name
// stop the start, its owner is never changed, and no pid is ever read back to act
// on it.
package pidfile

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"postern/internal/safedir"
)

// Mode of a pid file.
const Mode fs.FileMode = 0o644

// ErrRunning says that another process holds the pid file.
var ErrRunning = errors.New("another copy is running")

// attempts bounds the tries when other processes keep changing the file.
const attempts = 10

// File is a pid file of this process. It stays open, and locked, until Remove.
type File struct {
	path string // absolute
	dir  *os.Root
	name string
	f    *os.File
}

// Write makes or replaces the pid file at path. It fails with ErrRunning if a
// process that wrote it with Write still lives. It fails, and touches nothing, if
// there is anything but a regular file with this one name, or if the directory is not
// safe, see safedir.Check; it may also belong to one of the accounts.
func Write(path string, also ...safedir.Account) (*File, error) {
	file, err := open(path, also)
	if err != nil {
		return nil, fmt.Errorf("pid file %s: %w", path, err)
	}
	if err := file.write(); err != nil {
		file.close()
		return nil, fmt.Errorf("pid file %s: %w", path, err)
	}
	return file, nil
}

func open(path string, also []safedir.Account) (*File, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	dir, err := safedir.Open(filepath.Dir(path), also...)
	if err != nil {
		return nil, err
	}
	return &File{path: path, dir: dir, name: filepath.Base(path)}, nil
}

// write makes a new file, locked and with the pid in it, and gives it its name.
func (p *File) write() error {
	temp := "." + p.name + "-" + rand.Text()
	f, err := p.dir.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	p.f = f
	if err := p.fill(); err != nil {
		return errors.Join(err, p.dir.Remove(temp))
	}
	for range attempts {
		var done bool
		if done, err = p.install(temp); done {
			return nil
		}
		if err != nil {
			break
		}
		err = errors.New("other processes keep changing it")
	}
	return errors.Join(err, p.dir.Remove(temp))
}

func (p *File) fill() error {
	if !lock(p.f) { // before anybody else can open it
		return errors.New("a new file cannot be locked")
	}
	if _, err := fmt.Fprintf(p.f, "%d\n", os.Getpid()); err != nil {
		return err
	}
	return p.f.Chmod(Mode) // whatever the umask is
}

// install puts the temporary file into its place. It is not done, without an
// error, if what is there has changed meanwhile.
func (p *File) install(temp string) (done bool, err error) {
	old, err := p.lockOld()
	if errors.Is(err, fs.ErrNotExist) {
		// A link fails if another process is quicker; a rename would not.
		if err := p.dir.Link(temp, p.name); err != nil {
			if errors.Is(err, fs.ErrExist) {
				return false, nil
			}
			return false, err
		}
		return true, p.dir.Remove(temp)
	}
	if err != nil {
		return false, err
	}
	if old == nil {
		return false, nil
	}
	defer old.Close()
	if err := p.dir.Rename(temp, p.name); err != nil {
		return false, err
	}
	return true, nil
}

// lockOld opens and locks the file that is in the place. It gives nil if that
// is not the same file any more.
func (p *File) lockOld() (*os.File, error) {
	before, err := p.dir.Lstat(p.name)
	if err != nil {
		return nil, err
	}
	stat, ok := before.Sys().(*syscall.Stat_t)
	if !ok || !before.Mode().IsRegular() {
		return nil, fmt.Errorf("there is a %s, not a regular file; it was left alone", kind(before.Mode()))
	}
	if stat.Nlink == 0 {
		return nil, nil // it was removed in this moment
	}
	if stat.Nlink != 1 {
		return nil, fmt.Errorf("the file has %d names (hard links); it was left alone", stat.Nlink)
	}
	f, err := p.openOld()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	opened, err := f.Stat()
	if err != nil || !os.SameFile(before, opened) {
		f.Close()
		return nil, err
	}
	// The service user could keep us from starting by locking a file of its own.
	ours := stat.Uid == 0 || stat.Uid == uint32(os.Geteuid())
	if !lock(f) && ours && isLocked(f) {
		defer f.Close()
		return nil, fmt.Errorf("%w (pid %s)", ErrRunning, pidText(f))
	}
	// It may have been replaced between Lstat and the lock.
	now, err := p.dir.Lstat(p.name)
	if err != nil || !os.SameFile(opened, now) {
		f.Close()
		return nil, nil
	}
	return f, nil
}

// openOld opens the file that is there for writing, which a lock needs, or else
// for reading.
func (p *File) openOld() (*os.File, error) {
	const flags = syscall.O_NONBLOCK | syscall.O_NOFOLLOW
	f, err := p.dir.OpenFile(p.name, os.O_RDWR|flags, 0)
	if errors.Is(err, fs.ErrPermission) {
		return p.dir.OpenFile(p.name, os.O_RDONLY|flags, 0)
	}
	return f, err
}

// kind names what is in the place of the file.
func kind(mode fs.FileMode) string {
	switch mode.Type() {
	case fs.ModeSymlink:
		return "symbolic link"
	case fs.ModeDir:
		return "directory"
	case fs.ModeNamedPipe:
		return "FIFO"
	case fs.ModeSocket:
		return "socket"
	}
	return "device"
}

// pidText reads what a pid file says, for a message and nothing else.
func pidText(f *os.File) string {
	data, err := io.ReadAll(io.LimitReader(f, 20))
	pid, numErr := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || numErr != nil {
		return "unknown"
	}
	return strconv.Itoa(pid)
}

// Adopt opens the pid file at path that another process has written, holds, and has passed on as f. It fails if another file
// is there. Nothing is written before Take.
func Adopt(path string, f *os.File, also ...safedir.Account) (*File, error) {
	file, err := open(path, also)
	if err != nil {
		return nil, fmt.Errorf("pid file %s: %w", path, err)
	}
	file.f = f
	there, err := file.dir.Lstat(file.name)
	if err == nil {
		var passed fs.FileInfo
		if passed, err = f.Stat(); err == nil && !os.SameFile(there, passed) {
			err = errors.New("it is not the one that was passed on")
		}
	}
	if err != nil {
		file.close()
		return nil, fmt.Errorf("pid file %s: %w", path, err)
	}
	return file, nil
}

// Take writes our pid into a file that was adopted, once the other process has let go of it.
func (p *File) Take() error {
	lock(p.f) // it comes with the file where locks are those of open files, and not of processes
	err := p.f.Truncate(0)
	if err == nil {
		_, err = p.f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
	return err
}

// Descriptor is the one to pass on to a process that adopts the file.
func (p *File) Descriptor() int { return int(p.f.Fd()) }

// Path returns where it is.
func (p *File) Path() string { return p.path }

// Leave leaves the file to the process that has adopted it, or was adopted from.
func (p *File) Leave() { p.close() }

// Remove removes the file, if it is still the one that Write made, and gives up
// the lock; a second call does nothing. After root was given up the directory may be
// closed to this process: the file is then emptied, so that nobody takes the number
// for that of a program that runs, and the error is fs.ErrPermission or EROFS. The
// next start replaces the file.
func (p *File) Remove() error {
	if p.f == nil {
		return nil
	}
	defer p.close()
	err := p.remove()
	if err != nil {
		return errors.Join(fmt.Errorf("remove pid file: %w", err), p.f.Truncate(0))
	}
	return nil
}

func (p *File) remove() error {
	info, err := p.dir.Lstat(p.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	ours, err := p.f.Stat()
	if err != nil || !os.SameFile(info, ours) {
		return err
	}
	return p.dir.Remove(p.name)
}

func (p *File) close() {
	if p.f != nil {
		p.f.Close()
		p.f = nil
	}
	p.dir.Close()
}
