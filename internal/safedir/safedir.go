// Package safedir opens directories that other accounts can reach, and files in them, without being led
// astray: nobody who is not trusted can write there or on the way there, no link is followed, nothing but a regular file
// is opened, no open blocks.
package safedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrInsecure is wrapped by every error of [Check] that is about rights, not about a missing directory.
var ErrInsecure = errors.New("directory is not safe to use")

// ErrNotRegular is wrapped by errors of [OpenFile] for links, directories, FIFOs, sockets and devices.
var ErrNotRegular = errors.New("not a regular file")

// Account is a user and a group. A negative number stands for none.
type Account struct{ UID, GID int }

// Check looks at the directory and at each one above it, from the root on, as descriptors: nothing is looked up twice
// by its name. Each must belong to root, to this process or to one of the accounts, and nobody else may be able to
// write there, neither others nor another group than root's, this process's or one of the accounts. Above the directory
// itself there may be one of root's where anybody may write with the sticky bit set, as /tmp is. Links on the way are not
// followed by the kernel but read, and must have such an owner, too.
//
// The error for a directory that is not there yet, below ones that are safe, wraps fs.ErrNotExist.
func Check(dir string, also ...Account) error {
	fd, err := walk(dir, also)
	if err != nil {
		return err
	}
	_ = unix.Close(fd) // nothing was done with it
	return nil
}

// Open opens a directory that Check finds safe.
func Open(dir string, also ...Account) (*os.Root, error) {
	fd, err := walk(dir, also)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	// Nobody could have put another one there, but that is cheap to see.
	var walked unix.Stat_t
	info, err := root.Stat(".")
	if err == nil {
		err = unix.Fstat(fd, &walked)
	}
	if err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Ino != walked.Ino || st.Dev != walked.Dev {
			err = fmt.Errorf("replaced meanwhile: %w", ErrInsecure)
		}
	}
	if err != nil {
		_ = root.Close()
		return nil, fmt.Errorf("open directory %q: %w", dir, err)
	}
	return root, nil
}

// MayWrite returns why this process, or thread, may not make files in a directory; nil if it may.
func MayWrite(dir string) error {
	if err := unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return &fs.PathError{Op: "write to", Path: dir, Err: err}
	}
	return nil
}

// Unchanged reports whether two looks at a directory are at one and the same, with the same owner, group and mode.
func Unchanged(before, now fs.FileInfo) bool {
	a, ok := before.Sys().(*syscall.Stat_t)
	b, too := now.Sys().(*syscall.Stat_t)
	return ok && too && a.Dev == b.Dev && a.Ino == b.Ino && a.Uid == b.Uid && a.Gid == b.Gid && a.Mode == b.Mode
}

// maxLinks bounds the links met on the way, as the kernel does (path_resolution(7)).
const maxLinks = 40

// walk returns a descriptor of the directory, which stands for its path only, see [PathOnly].
func walk(dir string, also []Account) (fd int, err error) {
	abs, err := filepath.Abs(dir)
	for links := 0; err == nil; links++ {
		if links > maxLinks {
			err = syscall.ELOOP
			break
		}
		var link string
		if fd, link, err = descend(abs, also); err == nil && link == "" {
			return fd, nil
		}
		abs = link
	}
	return -1, fmt.Errorf("check directory %q: %w", dir, err)
}

// descend goes down a path without links. At a link it gives the path that it stands for, with what comes behind it.
func descend(abs string, also []Account) (fd int, link string, err error) {
	const flags = PathOnly | unix.O_NOFOLLOW | unix.O_CLOEXEC
	rest := strings.FieldsFunc(abs, func(r rune) bool { return r == '/' })
	path := "/"
	fd, err = unix.Open(path, flags, 0)
	for err == nil {
		var st unix.Stat_t
		if err = unix.Fstat(fd, &st); err != nil {
			break
		}
		if st.Mode&unix.S_IFMT == unix.S_IFLNK {
			link, err = readLink(fd, path, &st, also)
			return -1, filepath.Join(append([]string{link}, rest...)...), errors.Join(err, unix.Close(fd))
		}
		if err = safe(&st, len(rest) == 0, also); err != nil || len(rest) == 0 {
			break
		}
		path = filepath.Join(path, rest[0])
		var next int
		if next, err = unix.Openat(fd, rest[0], flags, 0); err == nil {
			_ = unix.Close(fd) // it was never used for more than the way
			fd, rest = next, rest[1:]
		}
	}
	if err != nil {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		return -1, "", fmt.Errorf("%q: %w", path, err)
	}
	return fd, "", nil
}

// safe says what is wrong with a directory. last says that it is the one that files are to be in.
func safe(st *unix.Stat_t, last bool, also []Account) error {
	uid, gid, mode := int(st.Uid), int(st.Gid), st.Mode
	switch {
	case mode&unix.S_IFMT != unix.S_IFDIR:
		return syscall.ENOTDIR
	case !trusted(uid, also):
		return fmt.Errorf("belongs to user %d: %w", uid, ErrInsecure)
	case !last && uid == 0 && mode&unix.S_ISVTX != 0:
		return nil
	case mode&0o002 != 0:
		return fmt.Errorf("is writable for everybody: %w", ErrInsecure)
	case mode&0o020 != 0 && !trustedGroup(gid, also):
		return fmt.Errorf("is writable for group %d: %w", gid, ErrInsecure)
	}
	return nil
}

func trusted(uid int, also []Account) bool {
	return uid == 0 || uid == os.Geteuid() || slices.ContainsFunc(also, func(a Account) bool { return a.UID == uid })
}

func trustedGroup(gid int, also []Account) bool {
	return gid == 0 || gid == os.Getegid() || slices.ContainsFunc(also, func(a Account) bool { return a.GID == gid })
}

// readLink returns the absolute path that the link at path, of which fd is a descriptor, stands for.
func readLink(fd int, path string, st *unix.Stat_t, also []Account) (string, error) {
	if !trusted(int(st.Uid), also) {
		return "", fmt.Errorf("%q is a link of user %d: %w", path, st.Uid, ErrInsecure)
	}
	var buf [unix.PathMax]byte
	n, err := unix.Readlinkat(fd, "", buf[:])
	if err != nil {
		return "", fmt.Errorf("read link %q: %w", path, err)
	}
	if target := string(buf[:n]); filepath.IsAbs(target) {
		return target, nil
	}
	return filepath.Join(filepath.Dir(path), string(buf[:n])), nil
}

// Owner returns the user id that the file described by info belongs to.
func Owner(info fs.FileInfo) (uid uint32, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return st.Uid, true
}

// OpenFile opens the existing regular file name, a single component, in root. flag is that of open(2) without
// O_CREAT. Links are not followed, and a FIFO, socket or device neither blocks nor is opened: all of them give an
// error that wraps [ErrNotRegular].
func OpenFile(root *os.Root, name string, flag int) (*os.File, error) {
	// os.Root resolves a link that stays inside the root even with O_NOFOLLOW.
	dir, err := OpenDir(root)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Open(name, flag)
}

// CreateFile makes the new file name in root, with exactly the rights perm, whatever the umask. It fails with an
// error that wraps fs.ErrExist if anything of that name is there, a link included.
func CreateFile(root *os.Root, name string, perm fs.FileMode) (*os.File, error) {
	// Without O_NONBLOCK, which means nothing for a file, package os sets and clears it by four system calls.
	f, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, perm)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(perm); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
