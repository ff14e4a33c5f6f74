package archive

import (
	"bytes"
	"strconv"
	"strings"
)

const tarBlock = 512

// IsTar reports whether b, the first bytes of a content, are those of a tar archive, which Tar can look into piece by
// piece: pieces begin at a multiple of 512 bytes, and overlap by 66 KiB at least.
func IsTar(b []byte) bool { return len(b) >= tarBlock && isTarHeader(b[:tarBlock]) }

// isTarHeader tells a header by its magic or, in the oldest form, by its checksum.
func isTarHeader(b []byte) bool {
	if bytes.HasPrefix(b[257:], []byte("ustar")) {
		return true
	}
	sum, ok := octal(b[148:156])
	if !ok || b[0] == 0 {
		return false
	}
	plain := int64(8 * ' ')
	for i, c := range b {
		if i < 148 || i >= 156 {
			plain += int64(c)
		}
	}
	return sum == plain
}

func octal(b []byte) (int64, bool) {
	n, err := strconv.ParseInt(strings.Trim(string(b), " \x00"), 8, 64)
	return n, err == nil && n >= 0
}

// Tar looks into a tar archive, or a piece of one. Every block that is a header counts, wherever it stands: programs differ in what they
// do behind a damaged one.
func Tar(b []byte, seen *Seen) error {
	for ; len(b) >= tarBlock; b = b[tarBlock:] {
		header, data := b[:tarBlock], b[tarBlock:]
		if !isTarHeader(header) {
			continue
		}
		size, _ := octal(header[124:136])
		data = data[:min(size, int64(len(data)))]
		var err error
		switch header[156] {
		case 'L': // GNU: the name of the next file
			err = seen.names(string(data[:min(len(data), maxTarName)]))
		case 'x', 'X', 'g': // POSIX: attributes of the next file
			err = paxNames(data[:min(len(data), maxTarName)], seen)
		}
		if err == nil {
			name, prefix := field(header[:100]), field(header[345:500])
			if err = seen.names(name); err == nil && prefix != "" {
				err = seen.names(prefix + "/" + name)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// maxTarName bounds what stands for a name.
const maxTarName = 64 << 10

func field(b []byte) string {
	name, _, _ := bytes.Cut(b, []byte{0})
	return string(name)
}

// paxNames tells the paths among attributes: lines of a length, a space, a key, = and a value.
func paxNames(b []byte, seen *Seen) error {
	for {
		i := bytes.Index(b, []byte("path="))
		if i < 0 {
			return nil
		}
		b = b[i+len("path="):]
		value, _, _ := bytes.Cut(b, []byte("\n"))
		if err := seen.names(string(value)); err != nil {
			return err
		}
	}
}
