// Package atomicfile writes files that others read at any time: they see the
// old content or the new, whole, and never a part. A temporary file is made in the
// same directory and renamed into place, which never follows a link.
package atomicfile

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// prefix marks temporary files; a crash may leave one behind.
const prefix = ".tmp-"

// attempts bounds the search for a free temporary name.
const attempts = 10

// Write puts data into the file of that path, with exactly that mode. The file
// may be lost in a crash of the system; see WriteSync.
func Write(path string, data []byte, mode fs.FileMode) error {
	return write(path, data, mode, false)
}

// WriteSync is Write for a file that must survive a crash: content and directory
// are on disk before it returns.
func WriteSync(path string, data []byte, mode fs.FileMode) error {
	return write(path, data, mode, true)
}

func write(path string, data []byte, mode fs.FileMode, sync bool) error {
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer root.Close()
	return writeAt(root, filepath.Base(path), data, mode, sync)
}

// WriteAt is Write for a name directly in an open directory: whatever happens to
// the directory's own path meanwhile, nothing is written elsewhere.
func WriteAt(dir *os.Root, name string, data []byte, mode fs.FileMode) error {
	return writeAt(dir, name, data, mode, false)
}

func writeAt(dir *os.Root, name string, data []byte, mode fs.FileMode, sync bool) (err error) {
	if name != filepath.Base(name) || name == "." || name == ".." || name == "/" {
		return fmt.Errorf("write %q: not a name in a directory", name)
	}
	f, temp, err := create(dir)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", name, errors.Join(err, dir.Remove(temp)))
		}
	}()
	if err := fill(f, data, mode, sync); err != nil {
		return err
	}
	if err := dir.Rename(temp, name); err != nil {
		return err
	}
	if sync {
		return syncDir(dir)
	}
	return nil
}

// create makes a temporary file that was not there before.
func create(dir *os.Root) (*os.File, string, error) {
	var err error
	for range attempts {
		temp := prefix + rand.Text()
		var f *os.File
		f, err = dir.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			return f, temp, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	return nil, "", err
}

// fill writes and closes f. The mode is set on the open file, so that the umask
// has no say.
func fill(f *os.File, data []byte, mode fs.FileMode, sync bool) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil && sync {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(dir *os.Root) error {
	d, err := dir.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
