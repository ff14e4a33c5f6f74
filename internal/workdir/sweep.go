package workdir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"postern/internal/safedir"
)

// ErrNobody is wrapped by the error of Spool.Empty when there is nobody who could empty directories now.
var ErrNobody = errors.New("nobody empties directories for the proxy")

// leftovers are directories that this account could not remove, for Tend.
func (s *Spool) leftovers() chan string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left == nil {
		s.left = make(chan string, 1000)
	}
	return s.left
}

// crashAge is how old a working directory is in which nobody will put files any more.
const crashAge = 24 * time.Hour

// sweepEvery is how often what others left is looked for, and how seldom at most what cannot be removed is tried again.
const sweepEvery = time.Hour

// Tend removes, until ctx ends, what is not removed with its message: at once what front ends left that are no more, soon
// what belongs to the workers' account, and after AsideAge what was put aside. What stays for whatever reason is tried
// again, ever more seldom, and logged. One goroutine of a program runs it while the spool is open.
func (s *Spool) Tend(ctx context.Context, log *slog.Logger) {
	t := tender{spool: s, log: log}
	tick := time.NewTicker(max(s.asideAge()/10, time.Millisecond))
	defer tick.Stop()
	left := s.leftovers()
	t.sweep(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case name := <-left:
			t.remove(ctx, name)
		case <-tick.C:
			if !time.Now().Before(t.again) {
				t.sweep(ctx)
			}
		}
	}
}

// tender is what Tend remembers.
type tender struct {
	spool  *Spool
	log    *slog.Logger
	all    time.Time     // of the next sweep for directories of the dead
	again  time.Time     // no sweep before
	pause  time.Duration // after the last one
	nobody bool          // it is no use to ask for help before the next sweep
}

// remove removes a directory that was put aside because only the workers' account can empty it.
func (t *tender) remove(ctx context.Context, name string) {
	if t.nobody {
		return
	}
	in, err := t.spool.place(nil)
	if err != nil {
		return
	}
	err = t.spool.helped(ctx, in.root, name)
	t.nobody = errors.Is(err, ErrNobody)
}

// sweep is one sweep; when something stays, the next one comes later than usual.
func (t *tender) sweep(ctx context.Context) {
	now := time.Now()
	dead := !now.Before(t.all)
	if dead {
		t.all = now.Add(sweepEvery)
	}
	t.nobody = false
	n, err := t.spool.sweep(ctx, dead)
	if n > 0 {
		t.log.Debug("spool swept", "removed", n)
	}
	if err == nil || ctx.Err() != nil {
		t.pause, t.again = 0, time.Time{}
		return
	}
	t.nobody = errors.Is(err, ErrNobody)
	t.pause = min(max(2*t.pause, t.spool.asideAge()/10), sweepEvery)
	t.again = now.Add(t.pause)
	t.log.Warn("working directories stay in the spool", "again_in", t.pause.String(), "error", err)
}

// Sweep removes the working directories of front ends that are no more (killed, or ended in the middle of a message),
// and those that were put aside longer than AsideAge ago. It returns how many; none while SPOOL/DO-NOT-DELETE-WORK-DIRS
// exists. Tend sweeps by itself.
func (s *Spool) Sweep(ctx context.Context) (int, error) { return s.sweep(ctx, true) }

// sweep does that, for directories of the dead only if that is asked for.
func (s *Spool) sweep(ctx context.Context, dead bool) (removed int, err error) {
	in, err := s.place(nil)
	if err != nil {
		return 0, err
	}
	root := in.root
	if _, err := root.Lstat(fileKeepAll); err == nil {
		return 0, nil
	}
	names, err := s.sweepable(root, dead)
	if err != nil {
		return 0, fmt.Errorf("sweep spool: %w", err)
	}
	left, nobody := 0, error(nil)
	for _, name := range names {
		e := removeTree(root, name)
		if e != nil && s.Empty != nil && nobody == nil && ctx.Err() == nil {
			if e = s.helped(ctx, root, name); errors.Is(e, ErrNobody) {
				nobody = e
			}
		}
		if e == nil {
			removed++
			continue
		}
		left++
		if err == nil {
			err = e
		}
	}
	if nobody != nil {
		err = nobody
	}
	if err != nil {
		return removed, fmt.Errorf("sweep spool: %d of %d directories stay, one of them: %w", left, len(names), err)
	}
	return removed, nil
}

// sweepable returns the directories that a sweep removes.
func (s *Spool) sweepable(root *os.Root, dead bool) (names []string, err error) {
	now := time.Now()
	err = eachDir(root, asidePrefix, func(name string, info fs.FileInfo) {
		if now.Sub(info.ModTime()) >= s.asideAge() {
			names = append(names, name)
		}
	})
	if err != nil || !dead {
		return names, err
	}
	err = eachDir(root, dirPrefix, func(name string, info fs.FileInfo) {
		if abandoned(root, name) || now.Sub(info.ModTime()) > crashAge && !inUse(root, name) {
			names = append(names, name)
		}
	})
	return names, err
}

// helped removes a directory that only the workers' account can empty.
func (s *Spool) helped(ctx context.Context, root *os.Root, name string) error {
	if !strings.HasPrefix(name, asidePrefix) {
		to, err := s.moveAside(root, name)
		if err != nil {
			return err
		}
		name = to
	}
	err := s.Empty(ctx, name)
	if err == nil {
		return removeTree(root, name)
	}
	// It is tried again at the next sweep.
	done := time.Now().Add(-s.asideAge())
	_ = root.Chtimes(name, done, done)
	return err
}

// Empty removes what is in a directory that a front end of another account has put aside in the spool: that one removes
// the directory itself. This account need not be able to list the spool. No link is followed. Names of other
// directories, and of links to some, are refused.
func Empty(spool, name string) error {
	if !strings.HasPrefix(name, asidePrefix) || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("empty %.80q: not a directory that was put aside: %w", name, fs.ErrInvalid)
	}
	at := filepath.Join(spool, name)
	info, err := os.Lstat(at)
	if err == nil && !info.IsDir() {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return fmt.Errorf("empty %.80q: %w", name, err)
	}
	dir, err := os.OpenRoot(at)
	if err == nil {
		dir, err = sameDir(info, dir)
	}
	if err != nil {
		return fmt.Errorf("empty %.80q: %w", name, err)
	}
	defer dir.Close()
	if err := (&remover{dir: dir}).empty(); err != nil {
		return fmt.Errorf("empty %.80q: %w", name, err)
	}
	return nil
}

// claim locks a working directory for as long as it is open: a process that is killed loses the lock.
func claim(dir *os.File) error {
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("lock %q: %w", dir.Name(), err)
	}
	return nil
}

// abandoned reports whether nobody uses the working directory name any more. One that has no files yet may be
// in the making.
func abandoned(root *os.Root, name string) bool {
	_, err := root.Lstat(path.Join(name, fileCommands))
	return err == nil && !inUse(root, name)
}

// inUse reports whether a front end has the working directory name in use.
func inUse(root *os.Root, name string) bool {
	dir, err := root.Open(name)
	if err != nil {
		return true // not for us to say
	}
	defer dir.Close()
	return claim(dir) != nil
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
