package workdir

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"postern/internal/safedir"
)

// Keep has Remove move the directory to the name kept-QID instead, with the reason in a file KEPT, for an
// administrator to look into. It is for faults of ours and of workers, and has no effect unless the spool keeps such
// directories.
func (d *Dir) Keep(reason string) {
	if d.spool.KeepFailed && d.keep == "" {
		d.keep = reason
	}
}

// Abandon has Remove move the directory aside instead of deleting it, because a worker may still be at work in it;
// Spool.Sweep deletes it later.
func (d *Dir) Abandon() { d.aside = true }

// Remove closes the files and removes the directory with all that is in it. Links are removed, not followed. Further
// calls do nothing. If a file SPOOL/DO-NOT-DELETE-WORK-DIRS exists, the directory stays.
func (d *Dir) Remove() error {
	if d.removed {
		return nil
	}
	d.removed = true
	if d.keep != "" && d.root != nil {
		if f, err := d.create(fileKeptNote); err == nil {
			_, _ = f.WriteString(plain(d.keep) + "\n")
			_ = f.Close()
		}
	}
	d.closeFiles()
	err := d.remove()
	if err != nil {
		return fmt.Errorf("remove working directory %q: %w", d.name, err)
	}
	return nil
}

func (d *Dir) remove() error {
	if _, err := d.parent.Lstat(fileKeepAll); err == nil {
		return nil
	}
	switch {
	case d.keep != "":
		if _, err := d.spool.moveAside(d.parent, d.name, keptPrefix); err != nil {
			return err
		}
		return d.spool.pruneKept(d.parent)
	case d.aside:
		d.spool.noteAside()
		_, err := d.spool.moveAside(d.parent, d.name, asidePrefix)
		return err
	}
	err := removeTree(d.parent, d.name)
	if err != nil {
		// Workers of another account can leave what this one cannot remove, and there may be no descriptor now.
		d.spool.noteAside()
		_, _ = d.spool.moveAside(d.parent, d.name, asidePrefix)
	}
	return err
}

// moveAside renames the working directory name to one with another prefix.
func (s *Spool) moveAside(root *os.Root, name, prefix string) (string, error) {
	now := time.Now()
	// The time of the move counts for Sweep and pruneKept, not that of the last file made.
	_ = root.Chtimes(name, now, now)
	to := prefix + strings.TrimPrefix(name, dirPrefix)
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

// pruneKept removes the oldest kept directories when there are too many.
func (s *Spool) pruneKept(root *os.Root) error {
	type kept struct {
		name string
		when time.Time
	}
	var all []kept
	err := eachDir(root, keptPrefix, func(name string, info fs.FileInfo) {
		all = append(all, kept{name, info.ModTime()})
	})
	if err != nil || len(all) <= s.maxKept() {
		return err
	}
	slices.SortFunc(all, func(a, b kept) int { return cmp.Or(a.when.Compare(b.when), strings.Compare(a.name, b.name)) })
	for _, k := range all[:len(all)-s.maxKept()] {
		if err := removeTree(root, k.name); err != nil {
			return err
		}
	}
	return nil
}

// Sweep removes the working directories of front ends that are no more (killed, or ended in the middle of a message),
// and those that were put aside longer than AsideAge ago. It returns how many. Kept ones stay. Open and Create sweep
// by themselves; a program need not call it.
func (s *Spool) Sweep() (int, error) {
	root, err := s.rootDir(false)
	if err != nil {
		return 0, err
	}
	return s.sweep(root)
}

func (s *Spool) sweep(root *os.Root) (int, error) {
	if _, err := root.Lstat(fileKeepAll); err == nil {
		return 0, nil
	}
	var names []string
	now := time.Now()
	err := eachDir(root, asidePrefix, func(name string, info fs.FileInfo) {
		if now.Sub(info.ModTime()) > s.asideAge() {
			names = append(names, name)
		}
	})
	if err == nil {
		err = eachDir(root, dirPrefix, func(name string, info fs.FileInfo) {
			if abandoned(root, name) || now.Sub(info.ModTime()) > crashAge && !inUse(root, name) {
				names = append(names, name)
			}
		})
	}
	n := 0
	for _, name := range names {
		if e := removeTree(root, name); e != nil {
			err = errors.Join(err, e)
			continue
		}
		n++
	}
	if err != nil {
		return n, fmt.Errorf("sweep spool: %w", err)
	}
	return n, nil
}

// claim locks a file of a working directory for as long as it is open: a process that is killed loses the lock.
func claim(f *os.File) error {
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("lock %q: %w", f.Name(), err)
	}
	return nil
}

// abandoned reports whether nobody uses the working directory name any more. One that has no files yet may be
// in the making.
func abandoned(root *os.Root, name string) bool {
	_, err := root.Lstat(path.Join(name, fileCommands))
	return err == nil && !inUse(root, name)
}

// inUse reports whether a front end has the working directory name in use: it holds COMMANDS or, once that is
// complete, INPUTMSG.
func inUse(root *os.Root, name string) bool {
	dir, err := root.OpenRoot(name)
	if err != nil {
		return true // not for us to say
	}
	defer dir.Close()
	for _, file := range []string{fileCommands, fileInput} {
		f, err := safedir.OpenFile(dir, file, os.O_RDONLY)
		if err != nil {
			continue // a worker may have put anything there
		}
		err = claim(f)
		_ = f.Close()
		if err != nil {
			return true
		}
	}
	return false
}

// eachDir calls f for the directories in root whose names begin with prefix and that belong to this account.
func eachDir(root *os.Root, prefix string, f func(name string, info fs.FileInfo)) error {
	dir, err := root.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	list, err := dir.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range list {
		if !strings.HasPrefix(e.Name(), prefix) {
			continue
		}
		info, err := root.Lstat(e.Name())
		if err != nil || !info.IsDir() {
			continue
		}
		if uid, ok := safedir.Owner(info); ok && uid == uint32(os.Geteuid()) {
			f(e.Name(), info)
		}
	}
	return nil
}
