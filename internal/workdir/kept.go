package workdir

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"postern/internal/safedir"
)

// Kept is a directory where copies of working directories are kept for an administrator, each under its queue id, with a
// file KEPT that says why. It is bounded: the oldest go. Nothing waits for it, and it does no harm to a message. Set the
// exported fields before the first call.
type Kept struct {
	Dir      string            // absolute path; made if it is missing
	Trusted  []safedir.Account // who else may write above it
	Max      int               // directories at most
	MaxBytes int64             // of their files at most
	Log      *slog.Logger

	waiting Backlog
	sizes   map[string]int64 // of the directories, by name
	counts  KeptCounts
}

// KeptCounts are what became of what was to be kept.
type KeptCounts struct {
	Kept    atomic.Uint64
	Dropped atomic.Uint64 // too many were waiting
	Failed  atomic.Uint64 // could not be copied, or is too large
}

// maxKeeping is how many messages wait to be copied at most.
const maxKeeping = 16

const (
	fileKeptNote = "KEPT" // in a kept directory: why
	newPrefix    = ".new-"
)

// NewKept makes it ready, for 100 directories of 100 MiB in all.
func NewKept(dir string, log *slog.Logger) *Kept {
	return &Kept{
		Dir: dir, Max: 100, MaxBytes: 100 << 20, Log: log,
		waiting: Backlog{C: make(chan Waiting, maxKeeping)}, sizes: map[string]int64{},
	}
}

// Counts returns what became of what was to be kept so far.
func (k *Kept) Counts() *KeptCounts { return &k.counts }

// ErrKeptBusy is the error of [Kept.Put] while too many messages, or bytes, are waiting.
var ErrKeptBusy = errors.New("too many are waiting")

// Put has a message kept; its files are closed once that is done. It never waits: an error says why the message is not
// kept.
func (k *Kept) Put(files *Snapshot, qid, reason string) error {
	if size := files.Size(); size > k.MaxBytes {
		files.Close()
		k.counts.Failed.Add(1)
		return fmt.Errorf("its %d bytes are more than may be kept at all", size)
	}
	if !k.waiting.Offer(Waiting{QID: qid, Why: reason, Files: files}, k.MaxBytes) {
		k.counts.Dropped.Add(1)
		return ErrKeptBusy
	}
	return nil
}

// Run keeps what comes until ctx ends, and then what is waiting. One goroutine runs it.
func (k *Kept) Run(ctx context.Context) {
	for {
		select {
		case m := <-k.waiting.C:
			k.keep(m)
		case <-ctx.Done():
			for len(k.waiting.C) > 0 {
				k.keep(<-k.waiting.C)
			}
			return
		}
	}
}

// keep copies one message.
func (k *Kept) keep(m Waiting) {
	defer k.waiting.Done(m)
	name, err := k.copy(m)
	if err != nil {
		k.counts.Failed.Add(1)
		k.Log.Warn("message is not kept", "qid", m.QID, "reason", m.Why, "error", err)
		return
	}
	k.counts.Kept.Add(1)
	k.Log.Info("message is kept", "qid", m.QID, "reason", m.Why, "directory", filepath.Join(k.Dir, name))
}

// Check returns what is wrong with the directory, or where it is not there yet with the one that it is to be made in.
func (k *Kept) Check(also ...safedir.Account) error {
	err := safedir.Check(k.Dir, append(also, k.Trusted...)...)
	if above := filepath.Dir(k.Dir); errors.Is(err, fs.ErrNotExist) {
		return safedir.Check(above, append(also, k.Trusted...)...) // it is made when there is something to be kept
	}
	return err
}

func (k *Kept) open() (*os.Root, error) {
	root, err := safedir.Open(k.Dir, k.Trusted...)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.Mkdir(k.Dir, 0o700); err == nil || errors.Is(err, fs.ErrExist) {
			root, err = safedir.Open(k.Dir, k.Trusted...)
		}
	}
	return root, err
}

// copy copies a message to a new directory and returns its name.
func (k *Kept) copy(m Waiting) (name string, err error) {
	root, err := k.open()
	if err != nil {
		return "", err
	}
	defer root.Close()
	if err := k.prune(root, m.size); err != nil {
		return "", err
	}
	unfinished := newPrefix + strings.ToLower(rand.Text())
	defer func() {
		if err != nil {
			_ = removeTree(root, unfinished)
		}
	}()
	if err := m.writeTo(root, unfinished); err != nil {
		return "", err
	}
	name = m.QID
	if _, err := root.Lstat(name); err == nil {
		name += "." + strings.ToLower(rand.Text()[:6])
	}
	return name, root.Rename(unfinished, name)
}

// writeTo writes the files of a message, which nobody else may read.
func (m Waiting) writeTo(root *os.Root, name string) error {
	if err := root.Mkdir(name, 0o700); err != nil {
		return err
	}
	dir, err := root.OpenRoot(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	write := func(name string, copy func(w io.Writer) error) error {
		f, err := safedir.CreateFile(dir, name, 0o600)
		if err != nil {
			return err
		}
		return errors.Join(copy(f), f.Close())
	}
	for i, name := range snapshotFiles {
		if m.Files.files[i] == nil {
			continue
		}
		if err := write(name, func(w io.Writer) error { return m.Files.copyTo(w, i) }); err != nil {
			return err
		}
	}
	return write(fileKeptNote, func(w io.Writer) error {
		_, err := io.WriteString(w, plain(m.Why)+"\n")
		return err
	})
}

// keptAge is how old a directory is that somebody who was killed did not finish.
const keptAge = time.Hour

// prune removes the oldest directories, so that there is room for one more of that size. What was not kept by us is not
// counted, and stays.
func (k *Kept) prune(root *os.Root, size int64) error {
	type kept struct {
		name string
		when time.Time
		size int64
	}
	var all []kept
	n, bytes, sizes := 0, int64(0), map[string]int64{}
	err := eachDir(root, "", func(name string, info fs.FileInfo) {
		if strings.HasPrefix(name, newPrefix) {
			if time.Since(info.ModTime()) > keptAge {
				_ = removeTree(root, name)
			}
			return
		}
		size, known := k.sizes[name]
		if !known {
			if size, known = keptSize(root, name); !known {
				return
			}
		}
		sizes[name] = size
		all = append(all, kept{name, info.ModTime(), size})
		n, bytes = n+1, bytes+size
	})
	k.sizes = sizes
	slices.SortFunc(all, func(a, b kept) int { return cmp.Or(a.when.Compare(b.when), strings.Compare(a.name, b.name)) })
	if err != nil {
		return err
	}
	room := func() bool { return n < k.Max && bytes+size <= k.MaxBytes }
	var failed error // of one that stays; the next oldest go instead
	for _, old := range all {
		if room() {
			break
		}
		if err := removeTree(root, old.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = err
			continue
		}
		n, bytes = n-1, bytes-old.size
	}
	if !room() {
		return fmt.Errorf("there is no room: %w", failed)
	}
	return nil
}

// keptSize returns the bytes of the files in a directory; ok is false if it is not one that was kept.
func keptSize(root *os.Root, name string) (n int64, ok bool) {
	if info, err := root.Lstat(path.Join(name, fileKeptNote)); err != nil || !info.Mode().IsRegular() {
		return 0, false
	}
	for _, file := range snapshotFiles {
		if info, err := root.Lstat(path.Join(name, file)); err == nil {
			n += info.Size()
		}
	}
	return n, true
}
