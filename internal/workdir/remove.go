package workdir

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
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
		// Workers of another account can leave what this one cannot remove.
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

// removeTree removes name. A sub-directory whose rights a worker took away gets them back first.
func removeTree(root *os.Root, name string) error {
	err := root.RemoveAll(name)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	openUp(root, name, 0)
	return root.RemoveAll(name)
}

// maxDepth bounds the walk of openUp.
const maxDepth = 64

// openUp gives this account all rights to the directory name and those in it.
func openUp(root *os.Root, name string, depth int) {
	info, err := root.Lstat(name)
	if err != nil || !info.IsDir() || depth > maxDepth {
		return
	}
	_ = root.Chmod(name, 0o700)
	dir, err := entries(root, name)
	if err != nil {
		return
	}
	for _, e := range dir {
		if e.IsDir() {
			openUp(root, path.Join(name, e.Name()), depth+1)
		}
	}
}

func entries(root *os.Root, name string) ([]fs.DirEntry, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.ReadDir(-1)
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

// Sweep removes directories that were put aside longer than AsideAge ago, and, if older is not 0, working
// directories that nothing was made in for longer than older: a crash left them. It returns how many. Kept ones stay.
// Open and Create sweep by themselves; a program need not call it.
func (s *Spool) Sweep(older time.Duration) (int, error) {
	root, err := s.rootDir(false)
	if err != nil {
		return 0, err
	}
	return s.sweep(root, older)
}

func (s *Spool) sweep(root *os.Root, older time.Duration) (int, error) {
	if _, err := root.Lstat(fileKeepAll); err == nil {
		return 0, nil
	}
	var names []string
	now := time.Now()
	collect := func(age time.Duration) func(string, fs.FileInfo) {
		return func(name string, info fs.FileInfo) {
			if now.Sub(info.ModTime()) > age {
				names = append(names, name)
			}
		}
	}
	err := eachDir(root, asidePrefix, collect(s.asideAge()))
	if err == nil && older > 0 {
		err = eachDir(root, dirPrefix, collect(older))
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

// eachDir calls f for the directories in root whose names begin with prefix and that belong to this account.
func eachDir(root *os.Root, prefix string, f func(name string, info fs.FileInfo)) error {
	list, err := entries(root, ".")
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
