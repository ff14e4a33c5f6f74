package workdir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Abandon has Remove move the directory aside instead of deleting it, because a worker may still be at work in it;
// Spool.Tend deletes it later.
func (d *Dir) Abandon() { d.aside = true }

// Remove closes the files and removes the directory with all that is in it. Links are removed, not followed. What only
// the account of the workers can remove is left to Spool.Tend. Further calls do nothing. If a file
// SPOOL/DO-NOT-DELETE-WORK-DIRS exists, the directory stays.
func (d *Dir) Remove() error {
	if d.removed {
		return nil
	}
	d.removed = true
	d.closeFiles()
	err := d.remove()
	if d.dir != nil {
		_ = d.dir.Close()
	}
	if err != nil {
		return fmt.Errorf("remove working directory %q: %w", d.name, err)
	}
	return nil
}

func (d *Dir) remove() error {
	if d.in.dir.Has(fileKeepAll) {
		return nil
	}
	if d.aside {
		_, err := d.spool.moveAside(d.in.root, d.name)
		return err
	}
	if d.dir != nil {
		for i, name := range snapshotFiles {
			_ = d.dir.Remove(name)
			if i >= snapResults && d.in.dir.RemoveDir(d.name) == nil {
				return nil // most workers leave nothing but RESULTS, and some NEWBODY
			}
		}
	}
	return d.spool.removeOrLeave(d.in.root, d.name)
}

// removeOrLeave removes a directory, or leaves the rest to Tend: workers of another account can leave what this one
// cannot remove, and there may be no descriptor now.
func (s *Spool) removeOrLeave(root *os.Root, name string) error {
	err := removeTree(root, name)
	if err == nil {
		return nil
	}
	to, moved := s.moveAside(root, name)
	if moved != nil {
		return errors.Join(err, moved)
	}
	// No worker is busy in it: it is as good as one whose time is over.
	done := time.Now().Add(-s.asideAge())
	_ = root.Chtimes(to, done, done)
	if s.Empty == nil {
		return err
	}
	select {
	case s.leftovers() <- to:
	default: // the next sweep finds it
	}
	return nil
}

// moveAside renames the working directory name to one with the prefix of those that are put aside.
func (s *Spool) moveAside(root *os.Root, name string) (string, error) {
	now := time.Now()
	// The time of the move counts for Sweep, not that of the last file made.
	_ = root.Chtimes(name, now, now)
	to := asidePrefix + strings.TrimPrefix(name, dirPrefix)
	if _, err := root.Lstat(to); err == nil {
		to += "." + NewQueueID()
	}
	return to, root.Rename(name, to)
}

// removeTree removes name, a directory with all that is in it.
func removeTree(root *os.Root, name string) error {
	if err := root.Remove(name); err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil // it was empty, or something else took its place
	}
	dir, err := openDir(root, name)
	if err != nil {
		return err
	}
	err = (&remover{dir: dir}).empty()
	_ = dir.Close()
	if err != nil {
		return err
	}
	return root.Remove(name)
}

// openDir opens the directory name, and no link to another one.
func openDir(root *os.Root, name string) (*os.Root, error) {
	info, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if info.IsDir() && info.Mode().Perm()&0o700 != 0o700 {
		_ = root.Chmod(name, 0o700)
	}
	dir, err := root.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	return sameDir(info, dir)
}

// sameDir gives dir if it is the directory that info tells of, else it closes dir.
func sameDir(info fs.FileInfo, dir *os.Root) (*os.Root, error) {
	opened, err := dir.Stat(".")
	if err == nil && !(info.IsDir() && os.SameFile(info, opened)) {
		err = errors.New("replaced meanwhile")
	}
	if err != nil {
		_ = dir.Close()
		return nil, err
	}
	return dir, nil
}

// remover empties a directory. A directory in it that is not empty hands its own directories up before it goes, so that
// neither the depth of a tree nor the length of a path costs a descriptor or ends the work. Every name is looked up
// below dir: no link that a worker puts there at any moment leads out of it. Directories whose rights a worker took
// away get them back first.
type remover struct {
	dir    *os.Root
	handed int // directories that were handed up
	rounds int // lists of entries that were read
}

// maxRounds is for a worker that makes files faster than they are removed.
const maxRounds = 100_000

func (r *remover) empty() error {
	for {
		list, err := r.list(".")
		if err != nil || len(list) == 0 {
			return err
		}
		for _, e := range list {
			if err := r.remove(e); err != nil {
				return err
			}
		}
	}
}

// list gives some of the entries of a directory, none if it is empty.
func (r *remover) list(name string) ([]fs.DirEntry, error) {
	if r.rounds++; r.rounds > maxRounds {
		return nil, errors.New("does not become empty")
	}
	f, err := r.dir.Open(name)
	if errors.Is(err, fs.ErrPermission) {
		_ = r.dir.Chmod(name, 0o700)
		f, err = r.dir.Open(name)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	list, err := f.ReadDir(entriesAtOnce)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return list, err
}

// entriesAtOnce bounds the memory that the names in a directory take.
const entriesAtOnce = 1000

// remove removes an entry of dir.
func (r *remover) remove(e fs.DirEntry) error {
	name := e.Name()
	if err := r.dir.Remove(name); err == nil || !e.IsDir() {
		return ignoreMissing(err)
	}
	_ = r.dir.Chmod(name, 0o700)
	for {
		list, err := r.list(name)
		if err != nil {
			return ignoreMissing(err)
		}
		if len(list) == 0 {
			return ignoreMissing(r.dir.Remove(name))
		}
		for _, inner := range list {
			at := path.Join(name, inner.Name())
			err := r.dir.Remove(at)
			if err != nil && inner.IsDir() {
				err = r.handUp(at)
			}
			if err := ignoreMissing(err); err != nil {
				return err
			}
		}
	}
}

// handUp makes a directory one of dir's own.
func (r *remover) handUp(at string) error {
	_ = r.dir.Chmod(at, 0o700) // only who may write to a directory may move it
	for {
		r.handed++
		err := r.dir.Rename(at, "handed-up."+strconv.Itoa(r.handed))
		if !errors.Is(err, fs.ErrExist) && !errors.Is(err, syscall.ENOTDIR) {
			return err
		}
	}
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
