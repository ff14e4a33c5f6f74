package archive

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// An image of a disc, in ISO 9660 (ECMA-119) with the names of Joliet and Rock Ridge, or in UDF (ECMA-167).
const (
	sector          = 2048
	firstDescriptor = 16 * sector
	maxDescriptors  = 64
)

// isImage reports whether b has the descriptors of an image.
func isImage(b []byte) bool {
	if len(b) < firstDescriptor+6 {
		return false
	}
	id := b[firstDescriptor+1 : firstDescriptor+6]
	return bytes.Equal(id, []byte("CD001")) || bytes.Equal(id, []byte("BEA01"))
}

// image tells the names in an image: those of each of its trees, and of UDF wherever they stand.
func image(b []byte, seen *Seen) error {
	w := &isoWalk{b: b, seen: seen, done: map[uint32]bool{}, left: 4*len(b) + 1<<20}
	for n := range maxDescriptors {
		at := firstDescriptor + n*sector
		if at+sector > len(b) {
			break
		}
		d := b[at : at+sector]
		if !bytes.Equal(d[1:6], []byte("CD001")) {
			continue
		}
		if d[0] == 1 || d[0] == 2 {
			w.block = int(binary.LittleEndian.Uint16(d[128:]))
			if err := w.tree(d[156:190]); err != nil {
				return err
			}
		}
	}
	return udfNames(b, seen)
}

// isoWalk is the walk through the directories of an image.
type isoWalk struct {
	b     []byte
	seen  *Seen
	block int
	done  map[uint32]bool // where directories begin
	left  int             // bytes that may still be looked at
}

// tree walks through all directories from a root on.
func (w *isoWalk) tree(root []byte) error {
	for todo := [][]byte{root}; len(todo) > 0; {
		record := todo[0]
		todo = todo[1:]
		start, size := binary.LittleEndian.Uint32(record[2:]), binary.LittleEndian.Uint32(record[10:])
		at := uint64(start) * uint64(w.block)
		if w.done[start] || at >= uint64(len(w.b)) {
			continue
		}
		w.done[start] = true
		directory := w.b[at:min(at+uint64(size), uint64(len(w.b)))]
		if w.left -= len(directory); w.left < 0 {
			return ErrUnreadable
		}
		more, err := w.directory(directory)
		if err != nil {
			return err
		}
		todo = append(todo, more...)
	}
	return nil
}

// directory tells the names in a directory and returns the records of those in it.
func (w *isoWalk) directory(b []byte) (directories [][]byte, err error) {
	for at := 0; at < len(b); {
		n := int(b[at])
		if n == 0 { // records do not cross sectors
			at = (at/sector + 1) * sector
			continue
		}
		record := b[at:min(at+n, len(b))]
		at += n
		if len(record) < 34 || len(record) < 33+int(record[32]) {
			continue
		}
		name, rest := record[33:33+int(record[32])], record[33+int(record[32]):]
		if record[25]&2 != 0 && len(name) > 0 && !(len(name) == 1 && name[0] <= 1) {
			directories = append(directories, record)
		}
		if err := w.seen.names(isoName(string(name)), isoName(utf16Text(name, binary.BigEndian)), rockRidge(rest)); err != nil {
			return nil, err
		}
	}
	return directories, nil
}

// isoName is a name without its version.
func isoName(name string) string {
	name, _, _ = strings.Cut(name, ";")
	return name
}

// rockRidge returns the name in the entries behind a record (IEEE P1282), "" if there is none.
func rockRidge(b []byte) string {
	var name strings.Builder
	for {
		i := bytes.Index(b, []byte("NM"))
		if i < 0 || len(b)-i < 5 {
			return name.String()
		}
		n := int(b[i+2])
		if n >= 5 && i+n <= len(b) {
			name.Write(b[i+5 : i+n])
			b = b[i+n:]
			continue
		}
		b = b[i+2:]
	}
}

// udfNames tells the names in the file identifiers of UDF (ECMA-167, 4/14.4), which have a tag with a checksum.
func udfNames(b []byte, seen *Seen) error {
	if !bytes.Contains(b[:min(len(b), firstDescriptor+maxDescriptors*sector)], []byte("NSR0")) {
		return nil
	}
	for rest := b; ; {
		i := bytes.Index(rest, []byte{0x01, 0x01})
		if i < 0 || len(rest)-i < 40 {
			return nil
		}
		d := rest[i:]
		rest = rest[i+1:]
		sum := byte(0)
		for j := range 16 {
			if j != 4 {
				sum += d[j]
			}
		}
		n, skip := int(d[19]), 38+int(binary.LittleEndian.Uint16(d[36:]))
		if sum != d[4] || n < 2 || skip+n > len(d) {
			continue
		}
		name := d[skip+1 : skip+n]
		text := string(name)
		if d[skip] == 16 {
			text = utf16Text(name, binary.BigEndian)
		}
		if err := seen.names(text); err != nil {
			return err
		}
	}
}
