package safedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Dir is a directory held open. Its methods take single names, which are looked up in it whatever becomes of its path,
// and follow no link. An os.Root does that too, with two to five system calls for one of these: Dir is for what is done
// for each message.
type Dir struct{ f *os.File }

// OpenDir opens the directory that root is of.
func OpenDir(root *os.Root) (*Dir, error) {
	f, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	return &Dir{f}, nil
}

// Close closes the directory; what was opened in it stays open.
func (d *Dir) Close() error { return d.f.Close() }

// do carries out a system call on the descriptor of the directory for a name in it.
func (d *Dir) do(what, name string, call func(fd int) error) error {
	conn, err := d.f.SyscallConn()
	if err != nil {
		return err
	}
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		err = fs.ErrInvalid
	} else if closed := conn.Control(func(fd uintptr) {
		for err = syscall.EINTR; err == syscall.EINTR; {
			err = call(int(fd))
		}
	}); closed != nil {
		return closed
	}
	if err != nil {
		return &fs.PathError{Op: what, Path: d.f.Name() + "/" + name, Err: err}
	}
	return nil
}

func (d *Dir) open(name string, flags int, perm fs.FileMode) (*os.File, error) {
	var fd int
	err := d.do("openat", name, func(dir int) (err error) {
		fd, err = unix.Openat(dir, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, uint32(perm))
		return err
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), d.f.Name()+"/"+name), nil
}

// Mkdir makes the directory name, with the rights that the umask leaves of perm.
func (d *Dir) Mkdir(name string, perm fs.FileMode) error {
	return d.do("mkdirat", name, func(dir int) error { return unix.Mkdirat(dir, name, uint32(perm)) })
}

// Dir opens the directory name, and gives what is known of it. It is for the caller to see whether it is the right one.
func (d *Dir) Dir(name string) (*Dir, fs.FileInfo, error) {
	f, err := d.open(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return &Dir{f}, info, nil
}

// File is the directory as a file, such as to change its rights; Close closes it.
func (d *Dir) File() *os.File { return d.f }

// Open opens the existing regular file name. flag is that of open(2) without O_CREAT. A link, directory, FIFO, socket or
// device gives an error that wraps [ErrNotRegular], and does not block.
func (d *Dir) Open(name string, flag int) (*os.File, error) {
	f, err := d.open(name, flag&^os.O_CREATE|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	// A link, on FreeBSD too, a directory, a FIFO that nobody reads or a socket.
	odd := []error{syscall.ELOOP, syscall.EMLINK, syscall.EISDIR, syscall.ENXIO}
	for _, e := range odd {
		if errors.Is(err, e) {
			return nil, fmt.Errorf("%w: %w", err, ErrNotRegular)
		}
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("open %q: %w", f.Name(), ErrNotRegular)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// Create makes the new file name with exactly the rights perm, whatever the umask takes from others. It fails with an
// error that wraps fs.ErrExist if anything of that name is there, a link included.
func (d *Dir) Create(name string, perm fs.FileMode) (*os.File, error) {
	f, err := d.open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
	if err == nil && perm&0o077 != 0 {
		if err = f.Chmod(perm); err != nil {
			_ = f.Close()
		}
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Replace puts a file of this content, with exactly the rights perm, in the place of name, whole: who opens name gets what
// was there before or all of it. temp is what the file is called until then, and must be free. It is for what is done for
// each session: an os.File would be announced to the poller, which takes no file.
func (d *Dir) Replace(name, temp, content string, perm fs.FileMode) error {
	return d.do("openat", temp, func(dir int) error {
		fd, err := unix.Openat(dir, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, uint32(perm))
		if err != nil {
			return err
		}
		if err = fill(fd, content, perm); err == nil {
			err = d.do("renameat", name, func(int) error { return unix.Renameat(dir, temp, dir, name) })
		}
		if err != nil {
			_ = unix.Unlinkat(dir, temp, 0)
		}
		return err
	})
}

// fill gives a new file its content and rights, and closes it.
func fill(fd int, content string, perm fs.FileMode) error {
	var err error
	if perm&0o077 != 0 {
		err = unix.Fchmod(fd, uint32(perm)) // what the umask took from others
	}
	for rest := []byte(content); err == nil && len(rest) > 0; {
		var n int
		if n, err = unix.Write(fd, rest); err == unix.EINTR {
			err = nil
		} else if err == nil {
			rest = rest[n:]
		}
	}
	if closed := unix.Close(fd); err == nil {
		err = closed
	}
	return err
}

// Remove removes name, which is no directory.
func (d *Dir) Remove(name string) error {
	return d.do("unlinkat", name, func(dir int) error { return unix.Unlinkat(dir, name, 0) })
}

// RemoveDir removes the directory name, which is empty.
func (d *Dir) RemoveDir(name string) error {
	return d.do("rmdir", name, func(dir int) error { return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR) })
}

// Has reports whether there is anything of that name.
func (d *Dir) Has(name string) bool {
	var st unix.Stat_t
	return d.do("fstatat", name, func(dir int) error { return unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) }) == nil
}
