package archive

import (
	"bytes"
	"encoding/binary"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// Properties and coders of 7z (7zFormat.txt and Methods.txt of the LZMA SDK).
const (
	propEnd          = 0x00
	propHeader       = 0x01
	propPackInfo     = 0x06
	propUnpackInfo   = 0x07
	propSize         = 0x09
	propFolder       = 0x0b
	propUnpackSize   = 0x0c
	propNames        = 0x11
	propPackedHeader = 0x17

	sevenZipStart = 32       // bytes in front of the first stream
	maxHeader     = 16 << 20 // bytes of the list of files
)

var (
	coderCopy  = []byte{0x00}
	coderLZMA  = []byte{0x03, 0x01, 0x01}
	coderLZMA2 = []byte{0x21}
	coderAES   = []byte{0x06, 0xf1, 0x07, 0x01}
)

// sevenZip looks into a 7z archive. Of its list of files, which is packed as a rule, all that looks like a name is
// one: what describes the streams is not needed, and so cannot be used to hide names.
func sevenZip(b []byte, seen *Seen) error {
	if len(b) < sevenZipStart {
		return ErrUnreadable
	}
	offset, size := binary.LittleEndian.Uint64(b[12:]), binary.LittleEndian.Uint64(b[20:])
	streams := b[sevenZipStart:]
	if offset == 0 && size == 0 {
		return nil // an archive without files
	}
	if offset > uint64(len(streams)) || size > uint64(len(streams))-offset {
		return ErrUnreadable
	}
	header := streams[offset : offset+size]
	for level := 0; len(header) > 0 && header[0] == propPackedHeader; level++ {
		if level == 4 {
			return ErrUnreadable
		}
		var locked bool
		if header, locked = unpackHeader(header[1:], streams); locked {
			return seen.Locked()
		}
	}
	if len(header) == 0 || header[0] != propHeader {
		return ErrUnreadable
	}
	if bytes.Contains(header, coderAES) {
		if err := seen.Locked(); err != nil {
			return err
		}
	}
	return sevenZipNames(header, seen)
}

// sevenZipNames tells the names in a list of files: those in the property of names, and whatever else stands between
// NULs.
func sevenZipNames(header []byte, seen *Seen) error {
	for rest := header; ; {
		i := bytes.IndexByte(rest, propNames)
		if i < 0 {
			break
		}
		r := &reader{b: rest[i+1:]}
		size := number(r)
		external := r.byte()
		if list := r.take(size - 1); size > 2 && size%2 == 1 && external == 0 && !r.bad {
			if err := nulNames(list, seen); err != nil {
				return err
			}
			rest = r.b
			continue
		}
		rest = rest[i+1:]
	}
	for odd := range 2 {
		if err := nulNames(header[min(odd, len(header)):], seen); err != nil {
			return err
		}
	}
	return nil
}

// nulNames tells names in UTF-16, each with a NUL behind it.
func nulNames(list []byte, seen *Seen) error {
	start := 0
	for i := 0; i+1 < len(list); i += 2 {
		if list[i] != 0 || list[i+1] != 0 {
			continue
		}
		if i > start+2 {
			if err := seen.names(utf16Text(list[start:i], binary.LittleEndian)); err != nil {
				return err
			}
		}
		start = i + 2
	}
	return nil
}

// number reads a number of 7z: the leading ones of the first byte say how many bytes follow.
func number(r *reader) uint64 {
	first := r.byte()
	var value uint64
	for i, mask := 0, byte(0x80); i < 8; i, mask = i+1, mask>>1 {
		if first&mask == 0 {
			return value | uint64(first&(mask-1))<<(8*i)
		}
		value |= uint64(r.byte()) << (8 * i)
	}
	return value
}

// unpackHeader unpacks a list of files, which is described by b; nil if that cannot be done.
func unpackHeader(b, streams []byte) (header []byte, locked bool) {
	r := &reader{b: b}
	if r.byte() != propPackInfo {
		return nil, false
	}
	position, count := number(r), number(r)
	if r.byte() != propSize || count != 1 {
		return nil, false
	}
	packed := number(r)
	skipTo(r, propUnpackInfo)
	if r.byte() != propFolder || number(r) != 1 || r.byte() != 0 {
		return nil, false
	}
	coder, properties, locked := folder(r)
	if locked || coder == nil {
		return nil, locked
	}
	skipTo(r, propUnpackSize)
	size := number(r)
	if r.bad || size == 0 || size > maxHeader || position > uint64(len(streams)) || packed > uint64(len(streams))-position {
		return nil, false
	}
	return unpack(coder, properties, streams[position:position+packed], size), false
}

// skipTo skips properties until one of that kind begins. Only digests stand between those that matter, and it is not
// their first bytes that do harm: a list that is read wrongly is unreadable.
func skipTo(r *reader, property byte) {
	for !r.bad && r.byte() != property {
	}
}

// folder reads how a stream is packed. The coder is nil if it is none of those that programs use for lists.
func folder(r *reader) (coder, properties []byte, locked bool) {
	count := number(r)
	if count == 0 || count > 4 {
		return nil, nil, false
	}
	for range count {
		flags := r.byte()
		id := r.take(uint64(flags & 0x0f))
		if flags&0x10 != 0 {
			number(r)
			number(r)
		}
		var props []byte
		if flags&0x20 != 0 {
			props = r.take(number(r))
		}
		if bytes.Equal(id, coderAES) {
			return nil, nil, true
		}
		coder, properties = id, props
	}
	if count != 1 {
		return nil, nil, false
	}
	return coder, properties, false
}

// unpack unpacks size bytes; nil if that cannot be done. The dictionary need not be larger than what is unpacked.
func unpack(coder, properties, packed []byte, size uint64) []byte {
	var r io.Reader
	var err error
	switch {
	case bytes.Equal(coder, coderCopy):
		r = bytes.NewReader(packed)
	case bytes.Equal(coder, coderLZMA) && len(properties) == 5:
		dictionary := min(uint64(binary.LittleEndian.Uint32(properties[1:])), size)
		start := []byte{properties[0]}
		start = binary.LittleEndian.AppendUint32(start, uint32(dictionary))
		start = binary.LittleEndian.AppendUint64(start, size)
		r, err = lzma.ReaderConfig{DictCap: max(int(size), lzma.MinDictCap)}.NewReader(io.MultiReader(bytes.NewReader(start), bytes.NewReader(packed)))
	case bytes.Equal(coder, coderLZMA2):
		r, err = lzma.Reader2Config{DictCap: max(int(size), lzma.MinDictCap)}.NewReader2(bytes.NewReader(packed))
	default:
		return nil
	}
	if err != nil {
		return nil
	}
	out, _ := io.ReadAll(io.LimitReader(r, int64(size))) // what was unpacked counts, damaged or not
	return out
}
