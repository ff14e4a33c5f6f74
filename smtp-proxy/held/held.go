// Package held is the Maildir of messages that a filter wants held: what is there, for whom it is, and how it is
// taken away. The proxy may deliver into it meanwhile, a mail reader may look into it, and several commands may be at
// work on it at a time.
package held

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"postern/internal/safedir"
)

// ErrNone is wrapped by the errors about an id that no message has.
var ErrNone = errors.New("no such message is held")

// ErrBusy is wrapped by the error of [Box.Take] while another command is at work on the message.
var ErrBusy = errors.New("another command is at work on it")

// places are the directories of a Maildir that messages are in: those that no mail reader has seen, and the others.
var places = []string{"new", "cur"}

// Box is an open Maildir. It is for one goroutine.
type Box struct {
	root *os.Root
	dirs map[string]*safedir.Dir // the places that were opened
}

// Open opens a Maildir, if it is safe to use.
func Open(dir string) (*Box, error) {
	root, err := safedir.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open Maildir: %w", err)
	}
	return &Box{root, map[string]*safedir.Dir{}}, nil
}

// Close closes it.
func (b *Box) Close() error {
	for _, dir := range b.dirs {
		_ = dir.Close()
	}
	return b.root.Close()
}

// dir returns one of the places; each is opened once.
func (b *Box) dir(place string) (*safedir.Dir, error) {
	if dir := b.dirs[place]; dir != nil {
		return dir, nil
	}
	root, err := b.root.OpenRoot(place)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	dir, err := safedir.OpenDir(root)
	if err == nil {
		b.dirs[place] = dir
	}
	return dir, err
}

// Count returns how many messages there are, and their bytes.
func (b *Box) Count() (n int, bytes int64, err error) {
	err = b.each(func(_, _ string, info fs.FileInfo) { n, bytes = n+1, bytes+info.Size() })
	return n, bytes, err
}

// List returns all messages, in no order.
func (b *Box) List() ([]*Message, error) {
	var all []*Message
	err := b.each(func(place, name string, _ fs.FileInfo) {
		if m, err := b.read(place, name); err == nil {
			_ = m.Close()
			all = append(all, m)
		} // else it was taken away, or is another one's
	})
	return all, err
}

// each calls do for each file. One that goes meanwhile is left out.
func (b *Box) each(do func(place, name string, info fs.FileInfo)) error {
	for _, place := range places {
		names, err := b.names(place)
		if err != nil {
			return err
		}
		for _, name := range names {
			if info, err := b.root.Lstat(path.Join(place, name)); err == nil && info.Mode().IsRegular() {
				do(place, name, info)
			}
		}
	}
	return nil
}

// names returns the names in one of the places; a Maildir that nobody has looked into may have no cur.
func (b *Box) names(place string) ([]string, error) {
	dir, err := b.root.Open(place)
	if errors.Is(err, fs.ErrNotExist) && place == "cur" {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read Maildir: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("read Maildir: %w", err)
	}
	return names, nil
}

// idOf returns the id of the message in a file: its name without the flags that mail readers put behind it.
func idOf(name string) string {
	id, _, _ := strings.Cut(name, ":")
	return id
}

// find returns where the message of an id is. The id is compared, and never part of a path.
func (b *Box) find(id string) (place, name string, err error) {
	for _, place := range places {
		names, err := b.names(place)
		if err != nil {
			return "", "", err
		}
		for _, name := range names {
			if idOf(name) == id {
				return place, name, nil
			}
		}
	}
	return "", "", ErrNone
}

// Show opens the message of an id to be read. Close must follow.
func (b *Box) Show(id string) (*Message, error) {
	place, name, err := b.find(id)
	if err != nil {
		return nil, err
	}
	m, err := b.read(place, name)
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNone
	}
	return m, err
}

// Take is Show for who wants to do something with the message: nobody else can take it until Close.
func (b *Box) Take(id string) (*Message, error) {
	m, err := b.Show(id)
	if err != nil {
		return nil, err
	}
	return m.taken()
}

// Take is Take of the box for a message of its list. It looks through the Maildir only if a mail reader has moved it.
func (m *Message) Take() (*Message, error) {
	again, err := m.box.read(m.place, m.name)
	if errors.Is(err, fs.ErrNotExist) {
		return m.box.Take(m.ID)
	}
	if err != nil {
		return nil, err
	}
	return again.taken()
}

// taken returns the message once nobody else can take it; else it is closed.
func (m *Message) taken() (*Message, error) {
	err := syscall.Flock(int(m.file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = ErrBusy
	}
	if err == nil && !m.there() {
		err = ErrNone // who had taken it before has removed it
	}
	if err != nil {
		_ = m.Close()
		return nil, err
	}
	return m, nil
}

// there reports whether the file that is open still has a name.
func (m *Message) there() bool {
	info, err := m.file.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Nlink > 0
}

// Remove removes a message that was taken, also if a mail reader has given it another name meanwhile.
func (m *Message) Remove() error {
	for try := 0; m.there(); try++ {
		place, name, err := m.place, m.name, error(nil)
		if try > 0 {
			place, name, err = m.box.find(m.ID)
		}
		if err == nil {
			err = m.box.root.Remove(path.Join(place, name))
		}
		switch {
		case err == nil:
			return m.box.sync(place)
		case try == 3 || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrNone):
			return fmt.Errorf("remove: %w", err)
		}
	}
	return nil
}

// sync has a removal survive a crash.
func (b *Box) sync(place string) error {
	dir, err := b.root.Open(place)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
