package main

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"io"
	"strings"
)

const (
	beginning = 4 << 10 // bytes of an entry in which an archive must begin to be looked into
	maxInner  = 20000   // compressed entries of all archives of a message whose beginning is looked at

	maxVersion = 100 // that an entry may need, so that few other bytes are taken for one
)

// The entries of a ZIP archive: signature, offset of the lengths of name and extra field, offset of the name.
// APPNOTE.TXT 4.3.7 and 4.3.12. The entries are looked for in the bytes, in order, so a damaged archive, or one
// behind other data, is no way round; both headers of a file count, since programs differ in which they believe.
var (
	localEntry   = []byte("PK\x03\x04")
	centralEntry = []byte("PK\x01\x02")
	zipEntries   = []struct {
		signature          []byte
		lengthAt, nameAt   int
		versionAt, flagsAt int
	}{
		{localEntry, 26, 30, 4, 6},
		{centralEntry, 28, 46, 6, 8},
	}
)

// zipNames examines the names in the entries of ZIP archives in b.
func (x *examiner) zipNames(b []byte) error {
	for _, e := range zipEntries {
		for rest := b; ; {
			i := bytes.Index(rest, e.signature)
			if i < 0 || len(rest[i:]) < e.nameAt {
				break
			}
			entry := rest[i:]
			rest = entry[len(e.signature):]
			n := int(binary.LittleEndian.Uint16(entry[e.lengthAt:]))
			extra := int(binary.LittleEndian.Uint16(entry[e.lengthAt+2:]))
			if int(entry[e.versionAt]) > maxVersion || len(entry) < e.nameAt+n {
				continue
			}
			if err := x.zipEntry(string(entry[e.nameAt:e.nameAt+n]), entry[e.flagsAt]&1 != 0); err != nil {
				return err
			}
			behind := entry[e.nameAt+n:]
			if err := x.unicodePath(behind[:min(extra, len(behind))]); err != nil {
				return err
			}
		}
	}
	return nil
}

// zipEntry examines one entry.
func (x *examiner) zipEntry(name string, locked bool) error {
	if locked {
		if err := x.found(encrypted, "message has an encrypted archive"); err != nil {
			return err
		}
	}
	if isMacro(name) {
		if err := x.found(macros, "message has a document with macros"); err != nil {
			return err
		}
	}
	return x.name(nil, name)
}

// unicodePath examines the name in the Info-ZIP Unicode Path field, which replaces the other (APPNOTE.TXT 4.6.9).
func (x *examiner) unicodePath(extra []byte) error {
	const id, nameAt = 0x7075, 5
	for len(extra) >= 4 {
		kind, n := binary.LittleEndian.Uint16(extra), int(binary.LittleEndian.Uint16(extra[2:]))
		extra = extra[4:]
		n = min(n, len(extra))
		if kind == id && n > nameAt {
			if err := x.name(nil, string(extra[nameAt:n])); err != nil {
				return err
			}
		}
		extra = extra[n:]
	}
	return nil
}

// The methods of compression (APPNOTE.TXT 4.4.5). Of the others that it names, Deflate64, BZIP2, LZMA, Zstandard, MP3,
// XZ, JPEG, WavPack and PPMd and the old ones, what is compressed cannot be seen; a number that it does not name is none
// that a program reads.
const (
	deflated   = 8
	unreadable = "\x01\x02\x03\x04\x05\x06\x09\x0a\x0c\x0e\x10\x12\x13\x14\x5d\x5e\x5f\x60\x61\x62"
)

// archivesIn looks into ZIP archives that are compressed entries of others. Stored ones show as they are.
func (x *examiner) archivesIn(b []byte) error {
	inflate := flate.NewReader(nil)
	defer inflate.Close()
	begin := make([]byte, beginning)
	for rest := b; ; {
		i := bytes.Index(rest, localEntry)
		if i < 0 || len(rest[i:]) < 30 {
			return nil
		}
		entry := rest[i:]
		rest = entry[len(localEntry):]
		start := 30 + int(binary.LittleEndian.Uint16(entry[26:])) + int(binary.LittleEndian.Uint16(entry[28:]))
		method := binary.LittleEndian.Uint16(entry[8:])
		switch {
		case start > len(entry) || int(entry[4]) > maxVersion:
			continue
		case method < 256 && strings.IndexByte(unreadable, byte(method)) >= 0:
			if err := x.unreadable(); err != nil {
				return err
			}
			continue
		case method != deflated:
			continue
		}
		if x.inner++; x.inner > maxInner {
			return x.found(tooComplex, "message has archives with too many entries")
		}
		// Reset makes it as new, and has no error to tell.
		_ = inflate.(flate.Resetter).Reset(bytes.NewReader(entry[start:]), nil)
		n, _ := io.ReadFull(inflate, begin)
		if !isArchive(begin[:n]) {
			continue
		}
		if err := x.inside(io.MultiReader(bytes.NewReader(begin[:n]), inflate)); err != nil {
			return err
		}
	}
}
