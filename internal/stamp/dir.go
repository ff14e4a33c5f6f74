package stamp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"postern/internal/safedir"
)

// Dir is a store in a directory. Set the exported fields before the first call.
type Dir struct {
	Path   string
	MaxAge time.Duration    // 0 = DefaultMaxAge
	Owner  int              // only files of this user id count; -1 = any owner
	IPv6   int              // bits of an IPv6 address that count; 0 = all
	Now    func() time.Time // nil = time.Now

	mu sync.Mutex // held by a sweep

	opened atomic.Pointer[openDir]
}

// openDir is the directory as it was opened last.
type openDir struct {
	root  *os.Root
	files *safedir.Dir // the same, for what each login does
	seen  fs.FileInfo  // what it was then
}

// OpenDir returns the store in the directory path. maxAge 0 means DefaultMaxAge. With owner, a name or number, only
// files of that user count. A directory that others may write to, or that is reached by a way that they may change, is
// an error, see safedir.Check. A missing one is not: it may come later, and until then every question gets an error.
func OpenDir(path string, maxAge time.Duration, owner string) (*Dir, error) {
	if maxAge < 0 {
		return nil, fmt.Errorf("open stamp directory %q: maximum age %v: %w", path, maxAge, fs.ErrInvalid)
	}
	d, err := newDir(path, owner)
	if err != nil {
		return nil, fmt.Errorf("open stamp directory %q: %w", path, err)
	}
	d.MaxAge = maxAge
	if err := safedir.Check(path, d.trusted()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open stamp directory: %w", err)
	}
	return d, nil
}

// CheckDir returns what OpenDir would say of the directory, or an error that wraps fs.ErrNotExist; also are accounts that
// it may belong to, beside root, this process and the owner.
func CheckDir(path, owner string, also ...safedir.Account) error {
	d, err := newDir(path, owner)
	if err != nil {
		return err
	}
	return safedir.Check(path, append(also, d.trusted())...)
}

func newDir(path, owner string) (*Dir, error) {
	d := &Dir{Path: path, Owner: -1}
	if owner == "" {
		return d, nil
	}
	var err error
	d.Owner, err = lookupUser(owner)
	return d, err
}

// trusted is who the directory may belong to: who may write stamps.
func (d *Dir) trusted() safedir.Account { return safedir.Account{UID: d.Owner, GID: -1} }

// open returns the directory, which stays open: a stamp would cost three times as much if the way to it was walked each
// time. The way is walked when another directory is there than the last time, or its owner or rights are others. One that
// was put aside is closed when nobody uses it any more.
func (d *Dir) open() (*openDir, error) {
	now, err := os.Stat(d.Path)
	if o := d.opened.Load(); err == nil && o != nil && safedir.Unchanged(o.seen, now) {
		return o, nil
	}
	root, err := safedir.Open(d.Path, d.trusted())
	if err != nil {
		return nil, err
	}
	seen, err := root.Stat(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	files, err := safedir.OpenDir(root)
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	o := &openDir{root, files, seen}
	d.opened.Store(o)
	return o, nil
}

func lookupUser(name string) (int, error) {
	if n, err := strconv.Atoi(name); err == nil && n >= 0 {
		return n, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(u.Uid)
}

func (d *Dir) maxAge() time.Duration {
	if d.MaxAge > 0 {
		return d.MaxAge
	}
	return DefaultMaxAge
}

func (d *Dir) now() time.Time {
	if d.Now != nil {
		return d.Now()
	}
	return time.Now()
}

// Name is the name of the file.
func (d *Dir) Name(addr netip.Addr) string { return nameWithin(addr, d.IPv6) }

// Touch writes the stamp to a temporary file, whose name begins with a dot, and renames it: a reader never sees an
// empty one.
func (d *Dir) Touch(_ context.Context, addr netip.Addr, user, server string) error {
	name, err := keyOf(addr, d.IPv6)
	if err != nil {
		return err
	}
	if err := d.touch(name, line(d.now().Unix(), name, user, server)+"\n"); err != nil {
		return fmt.Errorf("write stamp %q: %w", name, err)
	}
	return nil
}

// tempPrefix begins the names of files that are no stamps.
const tempPrefix = ".stamp-"

func (d *Dir) touch(name, line string) error {
	o, err := d.open()
	if err != nil {
		return err
	}
	err = o.files.Replace(name, tempName(), line, 0o640)
	if err == nil && d.Now != nil {
		err = o.root.Chtimes(name, d.now(), d.now())
	}
	return err
}

// tempName is one that nobody else has. It need not be a secret: what has the name already is not written to.
func tempName() string { return tempPrefix + strconv.FormatUint(rand.Uint64(), 36) }

// Look costs one lstat, and the reading of a stamp that is fresh. Links, directories, FIFOs and the like, and files of
// another owner, are no stamps.
func (d *Dir) Look(_ context.Context, addr netip.Addr) (Stamp, bool, error) {
	path, info, err := d.find(addr)
	if err != nil || info == nil {
		return Stamp{}, false, err
	}
	return d.read(path, info), true, nil
}

// find returns the file of a fresh stamp; info is nil if there is none.
func (d *Dir) find(addr netip.Addr) (path string, info fs.FileInfo, err error) {
	name, err := keyOf(addr, d.IPv6)
	if err != nil {
		return "", nil, err
	}
	path = filepath.Join(d.Path, name)
	info, err = os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// No stamp, or no directory? The difference is worth a log line.
		if _, err := os.Stat(d.Path); err != nil {
			return "", nil, fmt.Errorf("look for stamp: %w", err)
		}
		return "", nil, nil
	case err != nil:
		return "", nil, fmt.Errorf("look for stamp: %w", err)
	case !d.counts(info):
		return "", nil, nil
	}
	age := d.now().Sub(info.ModTime())
	if age < -maxFuture {
		return "", nil, fmt.Errorf("stamp %q: %v ahead: %w", name, -age, ErrFuture)
	}
	if age > d.maxAge() {
		return "", nil, nil
	}
	return path, info, nil
}

// maxStamp bounds what is read of a stamp, in bytes: all that Touch writes.
const maxStamp = 2048

// read reads what stands in a stamp. It is not needed to admit: without it the user is not known.
func (d *Dir) read(path string, info fs.FileInfo) Stamp {
	s := Stamp{Written: info.ModTime()}
	s.Addr, _ = netip.ParseAddr(filepath.Base(path))
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return s
	}
	defer f.Close()
	// It may be another file by now, and of somebody else.
	if info, err := f.Stat(); err != nil || !d.counts(info) {
		return s
	}
	text := make([]byte, maxStamp)
	n, _ := f.Read(text)
	s.parse(string(text[:n]))
	return s
}

// counts reports whether the file can be a stamp at all.
func (d *Dir) counts(info fs.FileInfo) bool {
	if !info.Mode().IsRegular() {
		return false
	}
	uid, ok := safedir.Owner(info)
	return d.Owner < 0 || ok && int64(uid) == int64(d.Owner)
}

// Remove removes the stamp of addr.
func (d *Dir) Remove(_ context.Context, addr netip.Addr) (bool, error) {
	name, err := keyOf(addr, d.IPv6)
	if err != nil {
		return false, err
	}
	o, err := d.open()
	if err != nil {
		return false, fmt.Errorf("remove stamp %q: %w", name, err)
	}
	if info, err := o.root.Lstat(name); err != nil || !d.counts(info) {
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return false, fmt.Errorf("remove stamp %q: %w", name, err)
	}
	if err := o.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("remove stamp %q: %w", name, err)
	}
	return true, nil
}

// sweepBatch is how many directory entries are held in memory at a time.
const sweepBatch = 1024

// Expire removes stamps that are older than age and calls removed for each. Files whose name is no address are left
// alone, but for our own temporary files of that age.
func (d *Dir) Expire(ctx context.Context, age time.Duration, removed func(netip.Addr)) error {
	d.mu.Lock() // one sweep at a time
	defer d.mu.Unlock()
	var faults error
	err := d.walk(ctx, func(root *os.Root, name string) bool {
		faults = errors.Join(faults, d.expire(root, name, age, removed))
		return true
	})
	if err = errors.Join(err, faults); err != nil {
		return fmt.Errorf("sweep stamps: %w", err)
	}
	return nil
}

// List calls each for every fresh stamp.
func (d *Dir) List(ctx context.Context, each func(Stamp) bool) error {
	err := d.walk(ctx, func(root *os.Root, name string) bool {
		if _, ok := parseName(name); !ok {
			return true
		}
		info, err := root.Lstat(name)
		if err != nil || !d.counts(info) || d.old(info, d.maxAge()) || d.now().Sub(info.ModTime()) < -maxFuture {
			return true
		}
		return each(d.read(filepath.Join(d.Path, name), info))
	})
	if err != nil {
		return fmt.Errorf("list stamps: %w", err)
	}
	return nil
}

// walk calls each for every name in the directory until it returns false, with a few of them in memory at a time.
func (d *Dir) walk(ctx context.Context, each func(root *os.Root, name string) bool) error {
	o, err := d.open()
	if err != nil {
		return err
	}
	dir, err := o.root.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	for {
		entries, readErr := dir.ReadDir(sweepBatch)
		for _, e := range entries {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if !each(o.root, e.Name()) {
				return nil
			}
		}
		if readErr == io.EOF || readErr == nil && len(entries) == 0 {
			return nil
		}
		if readErr != nil {
			return readErr
		}
	}
}

func (d *Dir) old(info fs.FileInfo, age time.Duration) bool {
	return d.counts(info) && d.now().Sub(info.ModTime()) > age
}

// expire removes the stamp name if it is older than age. A login may renew it at the same moment: so it is moved
// away first, looked at again, and put back if it is a new one.
func (d *Dir) expire(root *os.Root, name string, age time.Duration, removed func(netip.Addr)) error {
	addr, ok := parseName(name)
	if !ok && !strings.HasPrefix(name, tempPrefix) {
		return nil
	}
	info, err := root.Lstat(name)
	if err != nil || !d.old(info, age) {
		return ignoreMissing(err)
	}
	if !ok {
		return ignoreMissing(root.Remove(name))
	}
	temp := tempName()
	if err := root.Rename(name, temp); err != nil {
		return ignoreMissing(err)
	}
	if info, err = root.Lstat(temp); err == nil && !d.old(info, age) {
		// Link does not replace a stamp that is newer still.
		if err := root.Link(temp, name); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return root.Remove(temp)
	}
	if err := root.Remove(temp); err != nil {
		return ignoreMissing(err)
	}
	removed(addr)
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
