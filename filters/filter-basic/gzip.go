package main

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/binary"
	"io"
)

// gzipMagic begins a member that is deflated.
const gzipMagic = "\x1f\x8b\x08"

// gzipFile reads the members of a file one after another, as gunzip does (RFC 1952, 2.2). The library's reader would end
// at a name or comment of more than 512 bytes. Sums are not looked at: readers show what they have before they do.
type gzipFile struct {
	name    string // in the first member
	b       []byte // from the present member's content on
	left    *bytes.Reader
	inflate io.ReadCloser
}

func openGzip(b []byte) (io.Reader, error) {
	name, n := gzipHeader(b)
	if n < 0 {
		return nil, gzip.ErrHeader
	}
	g := &gzipFile{name: name, b: b[n:], left: bytes.NewReader(b[n:])}
	g.inflate = flate.NewReader(g.left)
	return g, nil
}

// Read gives io.EOF where no member follows.
func (g *gzipFile) Read(p []byte) (int, error) {
	for {
		n, err := g.inflate.Read(p)
		if n > 0 || err == nil {
			return n, nil
		}
		if err != io.EOF || !g.next() {
			return 0, err
		}
	}
}

// next begins the member behind the present one's sum and length.
func (g *gzipFile) next() bool {
	const trailer = 8
	behind := len(g.b) - g.left.Len() + trailer
	if behind > len(g.b) {
		return false
	}
	_, n := gzipHeader(g.b[behind:])
	if n < 0 {
		return false
	}
	g.b = g.b[behind+n:]
	g.left.Reset(g.b)
	// Reset makes it as new, and has no error to tell.
	_ = g.inflate.(flate.Resetter).Reset(g.left, nil)
	return true
}

// Close gives back what the reader has.
func (g *gzipFile) Close() error { return g.inflate.Close() }

// gzipHeader returns the name in the header of a member and the header's length, -1 if it is none.
func gzipHeader(b []byte) (name string, n int) {
	const fixed, flagsAt = 10, 3
	const hasSum, hasExtra, hasName, hasComment = 1 << 1, 1 << 2, 1 << 3, 1 << 4
	if len(b) < fixed || !bytes.HasPrefix(b, []byte(gzipMagic)) {
		return "", -1
	}
	flags, rest := b[flagsAt], b[fixed:]
	if flags&hasExtra != 0 {
		if len(rest) < 2 || len(rest) < 2+int(binary.LittleEndian.Uint16(rest)) {
			return "", -1
		}
		rest = rest[2+int(binary.LittleEndian.Uint16(rest)):]
	}
	for _, flag := range []byte{hasName, hasComment} {
		if flags&flag == 0 {
			continue
		}
		text, behind, ended := bytes.Cut(rest, []byte{0})
		if !ended {
			return "", -1
		}
		if flag == hasName {
			name = string(text)
		}
		rest = behind
	}
	if flags&hasSum != 0 {
		if len(rest) < 2 {
			return "", -1
		}
		rest = rest[2:]
	}
	return name, len(b) - len(rest)
}
