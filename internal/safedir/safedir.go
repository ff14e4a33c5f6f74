// Package safedir opens directories that other accounts can reach, and files in them, without being led
// astray: no link is followed, nothing but a regular file is opened, no open blocks.
package safedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// ErrInsecure is wrapped by every error of [Check] that is about rights, not about a missing directory.
var ErrInsecure = errors.New("directory is not safe to use")

// ErrNotRegular is wrapped by errors of [OpenFile] for links, directories, FIFOs, sockets and devices.
var ErrNotRegular = errors.New("not a regular file")

// Check looks at every component of the absolute path dir. It refuses a component that anybody may write to
// unless its sticky bit is set, and a symbolic link that belongs to neither root nor this process. The directory
// itself must be a directory.
func Check(dir string) error {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("check directory %q: %w", dir, err)
	}
	return check(abs, 0)
}

// maxLinks bounds the links met on the way, as the kernel does (path_resolution(7)).
const maxLinks = 40

func check(abs string, links int) error {
	path := "/"
	rest := strings.Split(strings.TrimPrefix(filepath.Clean(abs), "/"), "/")
	for i := -1; i < len(rest); i++ {
		if i >= 0 {
			path = filepath.Join(path, rest[i])
		}
		info, err := os.Lstat(path)
		if err != nil {
			return fmt.Errorf("check directory %q: %w", abs, err)
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			if !ownerTrusted(info) {
				return fmt.Errorf("check directory %q: %q is a link of another user: %w", abs, path, ErrInsecure)
			}
			if links >= maxLinks {
				return fmt.Errorf("check directory %q: %w", abs, syscall.ELOOP)
			}
			target, err := os.Readlink(path)
			if err != nil {
				return fmt.Errorf("check directory %q: %w", abs, err)
			}
			if !filepath.IsAbs(target) {
				target = filepath.Join(filepath.Dir(path), target)
			}
			return check(filepath.Join(append([]string{target}, rest[i+1:]...)...), links+1)
		}
		if !info.IsDir() {
			return fmt.Errorf("check directory %q: %q: %w", abs, path, syscall.ENOTDIR)
		}
		if info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 {
			return fmt.Errorf("check directory %q: %q is writable for everybody: %w", abs, path, ErrInsecure)
		}
	}
	return nil
}

func ownerTrusted(info fs.FileInfo) bool {
	uid, ok := Owner(info)
	return ok && (uid == 0 || uid == uint32(os.Geteuid()))
}

// Owner returns the user id that the file described by info belongs to.
func Owner(info fs.FileInfo) (uid uint32, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return st.Uid, true
}

// Private is [Check], and refuses dir too if anybody may write to it, sticky bit or not.
func Private(dir string) error {
	if err := Check(dir); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("check directory %q: %w", dir, err)
	}
	if info.Mode().Perm()&0o002 != 0 {
		return fmt.Errorf("check directory %q: writable for everybody: %w", dir, ErrInsecure)
	}
	return nil
}

// OpenFile opens the existing regular file name, a single component, in root. flag is that of open(2) without
// O_CREAT. Links are not followed, and a FIFO, socket or device neither blocks nor is opened: all of them give an
// error that wraps [ErrNotRegular].
func OpenFile(root *os.Root, name string, flag int) (*os.File, error) {
	if strings.ContainsRune(name, '/') || name == "." || name == ".." {
		return nil, fmt.Errorf("open %q: %w", name, fs.ErrInvalid)
	}
	// os.Root resolves a link that stays inside the root even with O_NOFOLLOW. So look first, and see afterwards
	// whether the file that was opened is the one that was looked at.
	before, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, fmt.Errorf("open %q in %q: %w", name, root.Name(), ErrNotRegular)
	}
	f, err := root.OpenFile(name, flag&^os.O_CREATE|syscall.O_NONBLOCK|syscall.O_NOFOLLOW|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	after, err := f.Stat()
	if err != nil || !after.Mode().IsRegular() || !os.SameFile(before, after) {
		_ = f.Close()
		return nil, fmt.Errorf("open %q in %q: replaced meanwhile: %w", name, root.Name(), ErrNotRegular)
	}
	return f, nil
}

// CreateFile makes the new file name in root, with exactly the rights perm, whatever the umask. It fails with an
// error that wraps fs.ErrExist if anything of that name is there, a link included.
func CreateFile(root *os.Root, name string, perm fs.FileMode) (*os.File, error) {
	f, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, perm)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(perm); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
