package stamp

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"postern/internal/percent"
	"postern/internal/safedir"
)

// Dir is a store in a directory. Set the exported fields before the first call.
type Dir struct {
	Path   string
	MaxAge time.Duration    // 0 = DefaultMaxAge
	Owner  int              // only files of this user id count; -1 = any owner
	Now    func() time.Time // nil = time.Now

	mu sync.Mutex // held by a sweep
}

// OpenDir returns the store in the directory path. maxAge 0 means DefaultMaxAge. With owner, a name or number, only
// files of that user count. A directory that others may write to, or that is reached by a way that they may change, is
// an error, see safedir.Check. A missing one is not: it may come later, and until then every question gets an error.
func OpenDir(path string, maxAge time.Duration, owner string) (Store, error) {
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

// open opens the directory, which is looked at each time: it may have come since.
func (d *Dir) open() (*os.Root, error) { return safedir.Open(d.Path, d.trusted()) }

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

// fileName is Name for an address that there is.
func fileName(addr netip.Addr) (string, error) {
	if !addr.IsValid() {
		return "", fmt.Errorf("stamp for no address: %w", fs.ErrInvalid)
	}
	return Name(addr), nil
}

// maxText bounds user and server in a stamp, in bytes before encoding.
const maxText = 256

// word makes s one word of a stamp.
func word(s string) string {
	if s == "" {
		return "-"
	}
	return percent.EncodeCommand(s[:min(len(s), maxText)])
}

// Touch writes the stamp to a temporary file, whose name begins with a dot, and renames it: a reader never sees an
// empty one. The line is "UNIXTIME ADDRESS USER SERVER", as pop3.proxy wrote it, with the last two percent-encoded.
func (d *Dir) Touch(_ context.Context, addr netip.Addr, user, server string) error {
	name, err := fileName(addr)
	if err != nil {
		return err
	}
	line := fmt.Sprintf("%d %s %s %s\n", d.now().Unix(), Name(addr), word(user), word(server))
	if err := d.touch(name, line); err != nil {
		return fmt.Errorf("write stamp %q: %w", name, err)
	}
	return nil
}

// tempPrefix begins the names of files that are no stamps.
const tempPrefix = ".stamp-"

func (d *Dir) touch(name, line string) error {
	root, err := d.open()
	if err != nil {
		return err
	}
	defer root.Close()
	temp := tempPrefix + rand.Text()
	f, err := safedir.CreateFile(root, temp, 0o640)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line)
	err = errors.Join(err, f.Close())
	if err == nil && d.Now != nil {
		err = root.Chtimes(temp, d.now(), d.now())
	}
	if err == nil {
		err = root.Rename(temp, name)
	}
	if err != nil {
		_ = root.Remove(temp)
	}
	return err
}

// Fresh costs one lstat. Links, directories, FIFOs and the like, and files of another owner, are no stamps.
func (d *Dir) Fresh(_ context.Context, addr netip.Addr) (bool, error) {
	name, err := fileName(addr)
	if err != nil {
		return false, err
	}
	info, err := os.Lstat(filepath.Join(d.Path, name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// No stamp, or no directory? The difference is worth a log line.
		if _, err := os.Stat(d.Path); err != nil {
			return false, fmt.Errorf("look for stamp: %w", err)
		}
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look for stamp: %w", err)
	case !d.counts(info):
		return false, nil
	}
	age := d.now().Sub(info.ModTime())
	if age < -maxFuture {
		return false, fmt.Errorf("stamp %q: %v ahead: %w", name, -age, ErrFuture)
	}
	return age <= d.maxAge(), nil
}

// counts tells whether the file can be a stamp at all.
func (d *Dir) counts(info fs.FileInfo) bool {
	if !info.Mode().IsRegular() {
		return false
	}
	uid, ok := safedir.Owner(info)
	return d.Owner < 0 || ok && int64(uid) == int64(d.Owner)
}

// Remove removes the stamp of addr.
func (d *Dir) Remove(_ context.Context, addr netip.Addr) error {
	_, err := d.Revoke(addr)
	return err
}

// Revoke is Remove and tells whether there was one.
func (d *Dir) Revoke(addr netip.Addr) (bool, error) {
	name, err := fileName(addr)
	if err != nil {
		return false, err
	}
	root, err := d.open()
	if err != nil {
		return false, fmt.Errorf("remove stamp %q: %w", name, err)
	}
	defer root.Close()
	if info, err := root.Lstat(name); err != nil || !d.counts(info) {
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return false, fmt.Errorf("remove stamp %q: %w", name, err)
	}
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("remove stamp %q: %w", name, err)
	}
	return true, nil
}

// Sweep removes stamps older than twice the maximum age.
func (d *Dir) Sweep(ctx context.Context) (int, error) {
	n := 0
	err := d.Expire(ctx, 2*d.maxAge(), func(netip.Addr) { n++ })
	return n, err
}

// sweepBatch is how many directory entries are held in memory at a time.
const sweepBatch = 1024

// Expire removes stamps that are older than age and calls removed for each. Files whose name is no address are left
// alone, but for our own temporary files of that age.
func (d *Dir) Expire(ctx context.Context, age time.Duration, removed func(netip.Addr)) error {
	d.mu.Lock() // one sweep at a time
	defer d.mu.Unlock()
	root, err := d.open()
	if err != nil {
		return fmt.Errorf("sweep stamps: %w", err)
	}
	defer root.Close()
	dir, err := root.Open(".")
	if err != nil {
		return fmt.Errorf("sweep stamps: %w", err)
	}
	defer dir.Close()
	for {
		entries, readErr := dir.ReadDir(sweepBatch)
		for _, e := range entries {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			err = errors.Join(err, d.expire(root, e.Name(), age, removed))
		}
		if readErr != nil || len(entries) == 0 {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("sweep stamps: %w", err)
	}
	return nil
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
	temp := tempPrefix + rand.Text()
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
