package statfile

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"postern/internal/safedir"
)

// Dir is a directory of status files of one program. A nil *Dir makes no files, so that a program whose directory
// was not set need not ask.
type Dir struct {
	Log *slog.Logger // gets one line when files cannot be written any more, and one when they can again; may be nil

	program string
	path    string
	now     func() time.Time

	mu     sync.Mutex
	root   *os.Root
	number uint64
	broken bool
	since  time.Time // since when every file was written, while broken
}

// held is how long every file must have been written until the directory counts as mended: in a full one some can be
// written and some not.
const held = time.Minute

// Open opens the directory, which must exist and be safe, see safedir.Check, and removes the files that dead processes of
// this program and account left there.
func Open(dir, program string) (*Dir, error) {
	root, err := safedir.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open status directory: %w", err)
	}
	if strings.ContainsAny(program, "/\x00") || program == "" {
		_ = root.Close()
		return nil, fmt.Errorf("open status directory %q: program name %q: %w", dir, program, fs.ErrInvalid)
	}
	d := &Dir{program: program, path: dir, root: root, now: time.Now}
	d.removeLeftovers()
	return d, nil
}

// Close closes the directory. Files that are left stay.
func (d *Dir) Close() error {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.root.Close()
}

// Unlocked returns when the lock of the directory has been free. It is never held while a file is waited for.
func (d *Dir) Unlocked() {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
}

// ours reports whether name is a regular file of this account.
func (d *Dir) ours(name string) bool {
	info, err := d.root.Lstat(name)
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	uid, ok := safedir.Owner(info)
	return ok && uid == uint32(os.Geteuid())
}

// File is the status file of one session. A nil *File does nothing. It is not for concurrent use.
type File struct {
	dir      *Dir
	name     string
	fields   Fields
	progress time.Time
	made     bool // this session's file is there
}

// tempPrefix begins the name of a file that is being written.
const tempPrefix = "."

// New makes the file of a new session, named PROGRAM-PID-N.stat. A session goes on without it when that fails: the
// File is valid in any case, and tries again at each Update.
func (d *Dir) New(f Fields) (*File, error) {
	if d == nil {
		return nil, nil
	}
	d.mu.Lock()
	d.number++
	n := d.number
	d.mu.Unlock()
	return d.open(fmt.Sprintf("%s-%05d-%d.stat", d.program, os.Getpid(), n), f)
}

// NewSingle is New for a process that serves one session: the name is PROGRAM-PID.stat, as in smtp.proxy.
func (d *Dir) NewSingle(f Fields) (*File, error) {
	if d == nil {
		return nil, nil
	}
	return d.open(fmt.Sprintf("%s-%05d.stat", d.program, os.Getpid()), f)
}

func (d *Dir) open(name string, fields Fields) (*File, error) {
	fields.Program, fields.PID = d.program, os.Getpid()
	if fields.Start.IsZero() {
		fields.Start = d.now()
	}
	f := &File{dir: d, name: name, fields: fields}
	return f, f.write()
}

// Name returns the name of the file in its directory, "" for a nil File.
func (f *File) Name() string {
	if f == nil {
		return ""
	}
	return f.name
}

// Update writes the file anew with the given status. A reader sees the old line or the new one, never a mixture.
func (f *File) Update(status string) error {
	if f == nil || status == f.fields.Status && f.made {
		return nil
	}
	f.fields.Status = status
	f.progress = time.Time{}
	return f.write()
}

// Change lets change alter any field and writes the file anew.
func (f *File) Change(change func(*Fields)) error {
	if f == nil {
		return nil
	}
	change(&f.fields)
	f.fields.Program, f.fields.PID = f.dir.program, os.Getpid()
	return f.write()
}

// Progress is Update with "WHAT N", at most once a second.
func (f *File) Progress(what string, n int64) error {
	if f == nil {
		return nil
	}
	now := f.dir.now()
	if now.Sub(f.progress) < time.Second {
		return nil
	}
	err := f.Update(what + " " + strconv.FormatInt(n, 10))
	f.progress = now
	return err
}

// Remove removes the file.
func (f *File) Remove() {
	if f == nil || !f.made {
		return
	}
	f.made = false
	_ = f.dir.root.Remove(f.name)
}

func (f *File) write() error {
	err := f.replace(f.fields.Append(nil))
	if err != nil {
		err = fmt.Errorf("write status file %q: %w", f.name, err)
	}
	f.dir.report(err)
	return err
}

// replace writes a new file beside the old one and renames it over. What stands at the name and is not ours, a link
// for one, is left alone.
func (f *File) replace(line []byte) error {
	root := f.dir.root
	if !f.made {
		if _, err := root.Lstat(f.name); err == nil && !f.dir.ours(f.name) {
			return errors.New("a foreign file is in the way")
		}
	}
	temp := tempPrefix + f.name
	w, err := safedir.CreateFile(root, temp, 0o640)
	if errors.Is(err, fs.ErrExist) {
		if f.dir.ours(temp) { // of a process that died while it wrote
			if err = root.Remove(temp); err != nil {
				return err
			}
		} else {
			temp += "." + rand.Text()[:8]
		}
		w, err = safedir.CreateFile(root, temp, 0o640)
	}
	if err != nil {
		return err
	}
	_, err = w.Write(line)
	err = errors.Join(err, w.Close())
	if err == nil {
		err = root.Rename(temp, f.name)
	}
	if err != nil {
		_ = root.Remove(temp)
		return err
	}
	f.made = true
	return nil
}

// report logs a change from working to broken, and back when that has held for a while.
func (d *Dir) report(err error) {
	d.mu.Lock()
	before, now := d.broken, d.now()
	switch {
	case err != nil:
		d.broken, d.since = true, time.Time{}
	case !d.broken:
	case d.since.IsZero():
		d.since = now
	default:
		d.broken = now.Sub(d.since) < held
	}
	changed := d.broken != before
	d.mu.Unlock()
	if !changed || d.Log == nil {
		return
	}
	if err != nil {
		d.Log.Warn("status files cannot be written", "dir", d.path, "error", err)
		return
	}
	d.Log.Info("status files are written again", "dir", d.path)
}
