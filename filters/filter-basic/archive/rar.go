package archive

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// rar looks into a RAR archive, of version 1.5 to 4 or from 5 on, by the headers of its blocks (technote.txt of RAR).
// A library would do, but sets up the decompressor, with the dictionary that a header names, to get to a name.
func rar(b []byte, seen *Seen) error {
	b = b[len("Rar!\x1a\x07"):]
	switch {
	case bytes.HasPrefix(b, []byte{0}):
		return rar4(b[1:], seen)
	case bytes.HasPrefix(b, []byte{1, 0}):
		return rar5(b[2:], seen)
	}
	return ErrUnreadable
}

// Blocks of RAR 4, and their flags.
const (
	rar4Main      = 0x73
	rar4File      = 0x74
	rar4Service   = 0x7a
	rar4End       = 0x7b
	rar4Locked    = 0x0080 // main: the headers are encrypted
	rar4Encrypted = 0x0004 // file
	rar4Large     = 0x0100 // file: sizes of 64 bits
	rar4Unicode   = 0x0200 // file: the name has a second form
	rar4Data      = 0x8000 // any: data follow
)

func rar4(b []byte, seen *Seen) error {
	for n := 0; len(b) >= 7; n++ {
		kind, flags, size := b[2], binary.LittleEndian.Uint16(b[3:]), int(binary.LittleEndian.Uint16(b[5:]))
		if size < 7 || size > len(b) {
			return unreadable(n)
		}
		r := &reader{b: b[7:size]}
		data := uint64(0)
		switch {
		case kind == rar4Main && flags&rar4Locked != 0:
			return seen.Locked()
		case kind == rar4File || kind == rar4Service:
			if flags&rar4Encrypted != 0 && kind == rar4File {
				if err := seen.Locked(); err != nil {
					return err
				}
			}
			name, packed := rar4Name(r, flags)
			data = packed
			if kind == rar4File {
				if err := rar4Names(name, flags, seen); err != nil {
					return err
				}
			}
		case flags&rar4Data != 0:
			data = r.uint32()
		}
		b = b[size:]
		if kind == rar4End || data > uint64(len(b)) {
			return nil // what follows is in the next volume, or missing
		}
		b = b[data:]
	}
	return nil
}

// rar4Name reads the header of a file.
func rar4Name(r *reader, flags uint16) (name []byte, packed uint64) {
	packed = r.uint32()
	r.take(4 + 1 + 4 + 4 + 1 + 1) // size, system, checksum, time, version, method
	length := r.uint16()
	r.take(4) // attributes
	if flags&rar4Large != 0 {
		packed |= r.uint32() << 32
		r.take(4)
	}
	return r.take(min(length, uint64(len(r.b)))), packed
}

// rar4Names tells a name in each of its forms.
func rar4Names(name []byte, flags uint16, seen *Seen) error {
	plain, packed, two := bytes.Cut(name, []byte{0})
	if flags&rar4Unicode != 0 && two {
		return seen.names(string(plain), rar4Unpack(plain, packed))
	}
	return seen.names(string(name), string(plain))
}

// rar4Unpack unpacks the second form of a name, which says how it differs from the first.
func rar4Unpack(plain, packed []byte) string {
	r := &reader{b: packed}
	high := uint16(r.byte()) << 8
	var out []byte
	put := func(u uint16) { out = binary.LittleEndian.AppendUint16(out, u) }
	for len(r.b) > 0 {
		flags := r.byte()
		for bits := 6; bits >= 0 && len(r.b) > 0; bits -= 2 {
			switch flags >> bits & 3 {
			case 0:
				put(uint16(r.byte()))
			case 1:
				put(high | uint16(r.byte()))
			case 2:
				put(uint16(r.uint16()))
			case 3:
				n := r.byte()
				correction, mask := byte(0), uint16(0)
				if n&0x80 != 0 {
					correction, mask = r.byte(), high
				}
				for range int(n&0x7f) + 2 {
					i := len(out) / 2
					if i >= len(plain) {
						break
					}
					put(mask | uint16(plain[i]+correction))
				}
			}
		}
	}
	return utf16Text(out, binary.LittleEndian)
}

// Blocks of RAR 5, and their flags.
const (
	rar5File       = 2
	rar5Service    = 3
	rar5Locked     = 4
	rar5End        = 5
	rar5Extra      = 1
	rar5Data       = 2
	rar5Time       = 2 // of a file
	rar5Checksum   = 4 // likewise
	rar5Encryption = 1 // record in the extra area
)

func rar5(b []byte, seen *Seen) error {
	for n := 0; len(b) > 4; n++ {
		r := &reader{b: b[4:]}
		size := variable(r)
		header := &reader{b: r.take(size)}
		if r.bad || size == 0 {
			return unreadable(n)
		}
		kind, flags := variable(header), variable(header)
		var extra, data uint64
		if flags&rar5Extra != 0 {
			extra = variable(header)
		}
		if flags&rar5Data != 0 {
			data = variable(header)
		}
		switch kind {
		case rar5Locked:
			return seen.Locked()
		case rar5File:
			if err := rar5Names(header, extra, seen); err != nil {
				return err
			}
		}
		b = r.b
		if kind == rar5End || data > uint64(len(b)) {
			return nil
		}
		b = b[data:]
	}
	return nil
}

// rar5Names reads the header of a file.
func rar5Names(r *reader, extra uint64, seen *Seen) error {
	records := &reader{b: r.b[len(r.b)-int(min(extra, uint64(len(r.b)))):]}
	flags := variable(r)
	variable(r) // size
	variable(r) // attributes
	if flags&rar5Time != 0 {
		r.take(4)
	}
	if flags&rar5Checksum != 0 {
		r.take(4)
	}
	variable(r) // compression
	variable(r) // system
	length := variable(r)
	name := string(r.take(min(length, uint64(len(r.b)))))
	before, _, _ := strings.Cut(name, "\x00")
	if err := seen.names(name, before); err != nil {
		return err
	}
	for len(records.b) > 0 {
		record := &reader{b: records.take(variable(records))}
		if len(record.b) > 0 && variable(record) == rar5Encryption {
			return seen.Locked()
		}
	}
	return nil
}

// variable reads a number of RAR 5: seven bits in each byte, the lowest first.
func variable(r *reader) uint64 {
	var value uint64
	for shift := 0; shift < 64; shift += 7 {
		c := r.byte()
		value |= uint64(c&0x7f) << shift
		if c&0x80 == 0 {
			return value
		}
	}
	r.bad = true
	return 0
}

// unreadable is the error for an archive of which n blocks could be read: a damaged end hides nothing.
func unreadable(n int) error {
	if n == 0 {
		return ErrUnreadable
	}
	return nil
}
