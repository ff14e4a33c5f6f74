// Package archive finds the names of files in archives, as programs that open them may read them: all that is found
// counts, in damaged archives too. Nothing is unpacked but what names are packed in. The work is bounded by a
// multiple of the size of what is looked into.
package archive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"unicode/utf16"
)

// Seen is told what an archive has in it. An error that one of its functions returns ends the walk.
type Seen struct {
	Name    func(name string) error
	Locked  func() error         // names or contents are encrypted
	Content func(b []byte) error // what a container of other things has in it
}

// ErrUnreadable is the error for an archive whose list of names cannot be read.
var ErrUnreadable = errors.New("archive whose names cannot be read")

// kind is a format.
type kind struct {
	magic   []byte // what it begins with; nil for formats that are known by more
	inside  bool   // programs find it behind other data too
	matches func(b []byte) bool
	walk    func(b []byte, seen *Seen) error
}

// kinds are the formats that this package knows.
var kinds = []*kind{
	{magic: []byte("7z\xbc\xaf\x27\x1c"), inside: true, walk: sevenZip},
	{magic: []byte("Rar!\x1a\x07"), inside: true, walk: rar},
	{magic: []byte("\x78\x9f\x3e\x22"), walk: tnef},
	tarKind,
	{matches: isImage, walk: image},
}

var tarKind = &kind{matches: IsTar, walk: Tar}

// begins reports whether b is of the kind from its first byte on.
func (k *kind) begins(b []byte) bool {
	if k.magic != nil {
		return bytes.HasPrefix(b, k.magic)
	}
	return k.matches(b)
}

// Beginning is how many bytes of a content Known needs.
const Beginning = 36 << 10

// Known reports whether an archive begins in b, the first bytes of a content.
func Known(b []byte) bool {
	for _, k := range kinds {
		if k.begins(b) || k.inside && bytes.Contains(b, k.magic) {
			return true
		}
	}
	return false
}

// Inside reports whether an archive that may stand behind other data begins in b.
func Inside(b []byte) bool {
	for _, k := range kinds {
		if k.inside && bytes.Contains(b, k.magic) {
			return true
		}
	}
	return false
}

// OtherThanTar reports whether b, the first bytes of a content, are those of an archive of another kind, too.
func OtherThanTar(b []byte) bool {
	for _, k := range kinds {
		if k != tarKind && k.begins(b) {
			return true
		}
	}
	return false
}

// maxPlaces bounds the places of a content at which an archive seems to begin.
const maxPlaces = 64

// Walk looks into all archives in b.
func Walk(b []byte, seen *Seen) error {
	for _, k := range kinds {
		if err := k.all(b, seen); err != nil {
			return err
		}
	}
	return nil
}

// all looks into all archives of the kind in b. One that cannot be read is other data if another one can; but not where
// b begins with it, as that is the one that programs open.
func (k *kind) all(b []byte, seen *Seen) error {
	if !k.inside {
		if k.begins(b) {
			return k.walk(b, seen)
		}
		return nil
	}
	var unreadable, first error
	read := false
	for n := 0; ; n++ {
		i := bytes.Index(b, k.magic)
		if i < 0 {
			break
		}
		if n == maxPlaces {
			return ErrUnreadable
		}
		err := k.walk(b[i:], seen)
		switch {
		case err == nil:
			read = true
		case errors.Is(err, ErrUnreadable):
			unreadable = err
			if n == 0 && i == 0 {
				first = err
			}
		default:
			return err
		}
		b = b[i+len(k.magic):]
	}
	if read {
		return first
	}
	return unreadable
}

// reader reads numbers from bytes. Behind their end there are zeros, and bad is set.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() uint64 {
	if b := r.take(2); b != nil {
		return uint64(binary.LittleEndian.Uint16(b))
	}
	return 0
}

func (r *reader) uint32() uint64 {
	if b := r.take(4); b != nil {
		return uint64(binary.LittleEndian.Uint32(b))
	}
	return 0
}

// utf16Text decodes UTF-16 in the given order of bytes.
func utf16Text(b []byte, order binary.ByteOrder) string {
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = order.Uint16(b[2*i:])
	}
	return string(utf16.Decode(units))
}

// names tells each of some names that is not empty.
func (s *Seen) names(names ...string) error {
	for _, n := range names {
		if n = strings.TrimRight(n, "\x00"); n != "" {
			if err := s.Name(n); err != nil {
				return err
			}
		}
	}
	return nil
}
