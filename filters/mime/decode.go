package mime

import (
	"bytes"
	"io"
)

// base64Values gives the value of each character, of the alphabet for URLs (RFC 4648, 5) too; padChar for the
// padding, and noChar for all that is to be ignored (RFC 2045, 6.8).
var base64Values = func() (t [256]byte) {
	for i := range t {
		t[i] = noChar
	}
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		t[c] = byte(i)
	}
	t['-'], t['_'], t['='] = 62, 63, padChar
	return t
}()

// plainBase64 is base64Values without what is special in any way.
var plainBase64 = func() [256]byte {
	t := base64Values
	t['-'], t['_'], t['='] = noChar, noChar, noChar
	return t
}()

const (
	padChar = 0xfe
	noChar  = 0xff
)

// base64Mode is how base64 is read where readers differ.
type base64Mode int

const (
	base64Restarts  base64Mode = iota // padding ends a group of four, and more may follow
	base64IgnorePad                   // padding inside is ignored
	base64URL                         // the letters of URLs count
	lenientBase64   = base64URL
)

// base64Seen tells what was met that is read in different ways.
type base64Seen struct {
	padInside bool // characters follow the padding
	urlChars  bool
}

// base64Reader decodes base64, whatever stands between its characters.
type base64Reader struct {
	src    []byte
	mode   base64Mode
	acc    uint32
	n      int // characters in acc
	padded bool
	seen   base64Seen
	out    [3]byte // decoded, not yet read
	left   int
}

// Read never fails but at the end.
func (r *base64Reader) Read(p []byte) (int, error) {
	k := 0
	for r.left > 0 && k < len(p) {
		p[k] = r.out[3-r.left]
		r.left--
		k++
	}
	for len(p)-k >= 3 && len(r.src) > 0 {
		if n := r.groups(p[k:]); n > 0 {
			k += n
			continue
		}
		k += r.step(p[k:])
	}
	if k == 0 && len(p) > 0 {
		if len(r.src) > 0 { // less than a group fits
			var group [3]byte
			for n := 0; n == 0 && len(r.src) > 0; {
				if n = r.step(group[:]); n > 0 {
					copy(r.out[3-n:], group[:n])
					r.left = n
				}
			}
		}
		if r.left == 0 {
			if n := r.flush(r.out[:]); n > 0 {
				copy(r.out[3-n:], r.out[:n])
				r.left = n
			}
		}
		if r.left == 0 {
			return 0, io.EOF
		}
		return r.Read(p)
	}
	return k, nil
}

// groups decodes whole groups of four, which is the usual case.
func (r *base64Reader) groups(p []byte) int {
	if r.n != 0 || r.padded {
		return 0
	}
	s, k := r.src, 0
	for len(s) >= 4 && len(p)-k >= 3 {
		a, b, c, d := plainBase64[s[0]], plainBase64[s[1]], plainBase64[s[2]], plainBase64[s[3]]
		if (a | b | c | d) > 63 {
			break
		}
		p[k], p[k+1], p[k+2] = a<<2|b>>4, b<<4|c>>2, c<<6|d
		s, k = s[4:], k+3
	}
	r.src = s
	return k
}

// step takes characters until a group is whole, which it decodes into p, or the source ends.
func (r *base64Reader) step(p []byte) int {
	for i, c := range r.src {
		v := base64Values[c]
		if v == noChar {
			continue
		}
		if c == '-' || c == '_' {
			r.seen.urlChars = true
			if r.mode != base64URL {
				continue
			}
		}
		if v == padChar {
			r.padded = true
			if r.mode == base64IgnorePad {
				continue
			}
			if n := r.flush(p); n > 0 {
				r.src = r.src[i+1:]
				return n
			}
			continue
		}
		if r.padded {
			r.seen.padInside, r.padded = true, false
		}
		r.acc, r.n = r.acc<<6|uint32(v), r.n+1
		if r.n == 4 {
			p[0], p[1], p[2] = byte(r.acc>>16), byte(r.acc>>8), byte(r.acc)
			r.acc, r.n = 0, 0
			r.src = r.src[i+1:]
			return 3
		}
	}
	r.src = nil
	return 0
}

// flush decodes a group that is not whole.
func (r *base64Reader) flush(p []byte) int {
	acc, n := r.acc, r.n
	r.acc, r.n = 0, 0
	switch n {
	case 2:
		p[0] = byte(acc >> 4)
		return 1
	case 3:
		p[0], p[1] = byte(acc>>10), byte(acc>>2)
		return 2
	}
	return 0
}

// decodeBase64 decodes b whole.
func decodeBase64(b []byte, mode base64Mode) ([]byte, base64Seen) {
	r := &base64Reader{src: b, mode: mode}
	out := bytes.NewBuffer(make([]byte, 0, len(b)/4*3+bytes.MinRead+3))
	_, _ = out.ReadFrom(r) // it has no errors
	return out.Bytes(), r.seen
}

// quotedReader decodes quoted-printable (RFC 2045, 6.7).
type quotedReader struct {
	src    []byte
	drop   int  // bytes of a broken escape that are dropped; 0 shows it as it is
	broken bool // there was one
}

func (r *quotedReader) Read(p []byte) (int, error) {
	k := 0
	for k < len(p) && len(r.src) > 0 {
		run := bytes.IndexByte(r.src, '=')
		if run < 0 {
			run = len(r.src)
		}
		n := copy(p[k:], r.src[:run])
		k += n
		r.src = r.src[n:]
		if n < run || k == len(p) || len(r.src) == 0 {
			continue
		}
		k += r.escape(p[k:])
	}
	if k == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return k, nil
}

// escape takes the escape at the beginning of the source. There is room for one byte.
func (r *quotedReader) escape(p []byte) int {
	s := r.src
	if len(s) >= 3 && isHex(s[1]) && isHex(s[2]) {
		p[0] = unhex(s[1])<<4 | unhex(s[2])
		r.src = s[3:]
		return 1
	}
	if n := softBreak(s); n > 0 {
		r.src = s[n:]
		return 0
	}
	r.broken = true
	if r.drop > 0 {
		r.src = s[min(r.drop, len(s)):]
		return 0
	}
	r.src = s[1:]
	p[0] = '='
	return 1
}

// printable is a quoted-printable text as it is to readers that skip all that must not or need not stand in it, line
// ends included.
func printable(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		if n := softBreak(b); n > 0 {
			b = b[n:]
			continue
		}
		if b[0] > ' ' && b[0] < 0x7f {
			out = append(out, b[0])
		}
		b = b[1:]
	}
	return out
}

// softBreak returns the length of the soft line break at the beginning of b, which may have white space in it; 0 if
// there is none.
func softBreak(b []byte) int {
	if len(b) == 0 || b[0] != '=' {
		return 0
	}
	for i := 1; i < len(b); i++ {
		if b[i] == '\n' {
			return i + 1
		}
		if b[i] != ' ' && b[i] != '\t' && b[i] != '\r' {
			return 0
		}
	}
	return 0
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c&7 + 9
}

// decodeQuotedPrintable decodes b whole.
func decodeQuotedPrintable(b []byte, drop int) []byte {
	out := bytes.NewBuffer(make([]byte, 0, len(b)+bytes.MinRead))
	_, _ = out.ReadFrom(&quotedReader{src: b, drop: drop}) // it has no errors
	return out.Bytes()
}
