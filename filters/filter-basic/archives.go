package main

import (
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"postern/filters/filter-basic/archive"
)

// Bounds of looking into archives in archives.
const (
	maxArchive = 64 << 20 // bytes of an archive whose names do not stand in the clear
	maxLevel   = 4        // of archives in archives
)

// packer is a format that packs one stream.
type packer struct {
	magic string
	open  func(b []byte) (io.Reader, error)
}

var packers = []packer{
	{gzipMagic, openGzip},
	{"\x28\xb5\x2f\xfd", openZstandard},
	{"\xfd7zXZ\x00", openXZ},
	{"BZh", func(b []byte) (io.Reader, error) { return bzip2.NewReader(bytes.NewReader(b)), nil }},
}

// packerOf returns the format in which b is packed, nil if it is in none. Frames that are to be skipped may stand in
// front of a Zstandard stream (RFC 8878, 3.1.2).
func packerOf(b []byte) *packer {
	for i := range packers {
		if bytes.HasPrefix(b, []byte(packers[i].magic)) {
			return &packers[i]
		}
	}
	if len(b) > 8 && b[0]&0xf0 == 0x50 && bytes.HasPrefix(b[1:], []byte("\x2a\x4d\x18")) {
		return &packers[1]
	}
	return nil
}

// openZstandard opens a stream in one thread, with a window of at most 64 MiB.
func openZstandard(b []byte) (io.Reader, error) {
	r, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(64<<20))
	if err != nil {
		return nil, err
	}
	return r.IOReadCloser(), nil
}

// openXZ opens a stream whose dictionaries have at most 64 MiB: the library makes them as large as the stream says.
func openXZ(b []byte) (io.Reader, error) {
	if hasLargeDictionary(b) {
		return nil, archive.ErrUnreadable
	}
	return xz.NewReader(bytes.NewReader(b))
}

// maxTried is how much hasLargeDictionary may try: 16 for each place, and the bytes of the sum. A whole file of 64 MiB
// needs a third of that, as "!\x01" stands where no filter is once in 64 KiB.
const maxTried = 32 << 20

// hasLargeDictionary reports whether a block in b has a dictionary of more than 64 MiB: a header of a block, which has
// a checksum, with such a property of the filter LZMA2 (the .xz file format, 3.1 and 5.3.1). Where more would have to be
// tried than a file needs that was not made for that, it is as if there was one.
func hasLargeDictionary(b []byte) bool {
	const sizes, largest = 18, 28 // bytes of optional fields; the property
	tried := 0
	for at := 0; ; at++ {
		i := bytes.Index(b[at:], []byte{0x21, 0x01})
		if i < 0 || at+i+3 > len(b) {
			return false
		}
		at += i
		if b[at+2] <= largest {
			continue
		}
		for start := at - 2; start >= max(0, at-2-sizes); start-- {
			tried += 16
			n := (int(b[start]) + 1) * 4
			if end := start + n; n >= 8 && end <= len(b) && end > at+3 {
				tried += n
				sum := crc32.ChecksumIEEE(b[start : end-4])
				if binary.LittleEndian.Uint32(b[end-4:]) == sum {
					return true
				}
			}
		}
		if tried > maxTried {
			return true
		}
	}
}

// isArchive reports whether b, the beginning of a content, is that of an archive.
func isArchive(b []byte) bool {
	return bytes.Contains(b, localEntry) || archive.Known(b) || packerOf(b) != nil
}

// lookInside looks into archives in a content. Less than all of a large one may be there.
func (x *examiner) lookInside(b []byte, whole bool) error {
	if err := x.archivesIn(b); err != nil {
		return err
	}
	if !whole && (archive.Known(b) || packerOf(b) != nil) {
		if err := x.found(tooComplex, "message has an archive that is too large to look into"); err != nil {
			return err
		}
	}
	err := archive.Walk(b, x.seen())
	if errors.Is(err, archive.ErrUnreadable) {
		err = x.unreadable()
	}
	if err != nil {
		return err
	}
	return x.unpack(b)
}

// seen has the archives' package tell what it finds.
func (x *examiner) seen() *archive.Seen {
	return &archive.Seen{
		Name:    func(name string) error { return x.name(nil, name) },
		Locked:  func() error { return x.found(encrypted, "message has an encrypted archive") },
		Content: func(b []byte) error { return x.inside(bytes.NewReader(b)) },
	}
}

func (x *examiner) unreadable() error {
	return x.found(encrypted, "message has an archive that cannot be looked into")
}

// unpack looks into a packed stream if an archive is what is packed.
func (x *examiner) unpack(b []byte) error {
	p := packerOf(b)
	if p == nil {
		return nil
	}
	r, err := p.open(b)
	if err != nil {
		return x.unreadable()
	}
	if c, ok := r.(io.Closer); ok {
		defer c.Close()
	}
	if z, ok := r.(*gzipFile); ok && z.name != "" {
		if err := x.name(nil, z.name); err != nil {
			return err
		}
	}
	begin := make([]byte, archive.Beginning)
	n, err := io.ReadFull(&inflated{r, x}, begin)
	if f := (*finding)(nil); errors.As(err, &f) {
		return err
	}
	if !isArchive(begin[:n]) {
		return nil
	}
	return x.inside(io.MultiReader(bytes.NewReader(begin[:n]), r))
}

// inside reads what is in an archive.
func (x *examiner) inside(r io.Reader) error {
	if x.level == maxLevel {
		return x.found(tooComplex, "message has archives that are nested too deep")
	}
	x.level++
	defer func() { x.level-- }()
	return x.read(&inflated{r, x}, true)
}

// inflated is decompressed data, to its end or where it is damaged. More than is allowed is a finding, and an end.
type inflated struct {
	r io.Reader
	x *examiner
}

func (i *inflated) Read(p []byte) (int, error) {
	if i.x.inflated > int(i.x.MaxUnpacked) {
		if err := i.x.found(tooComplex, "message has an archive that grows too large"); err != nil {
			return 0, err
		}
		return 0, io.EOF
	}
	n, err := i.r.Read(p)
	i.x.inflated += n
	if err != nil {
		err = io.EOF
	}
	return n, err
}

// isMacro reports whether a file of that name in a document holds macros (ECMA-376; OpenDocument 1.3, 3).
func isMacro(name string) bool {
	name = strings.ToLower(strings.ReplaceAll(name, `\`, "/"))
	return strings.HasSuffix(name, "vbaproject.bin") || strings.Contains(name, "/macrosheets/") ||
		strings.HasPrefix(name, "basic/") && strings.HasSuffix(name, "script-lb.xml")
}

// A document in a compound file (MS-CFB) has macros (MS-OVBA, 2.2.1) if it has an entry of this name, in UTF-16.
var (
	compoundFile = []byte("\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
	vbaProject   = []byte("_\x00V\x00B\x00A\x00_\x00P\x00R\x00O\x00J\x00E\x00C\x00T\x00")
)
