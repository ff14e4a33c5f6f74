// Package percent is the percent-encoding of the filter protocols: a byte that
// could end a word or a line, or confuse a worker written in a scripting
// language, is written as '%' and two hexadecimal digits.
//
// There are two sets. Requests to the multiplexor encode more than the COMMANDS
// file of a working directory does; both are decoded the same way.
package percent

import (
	"fmt"
	"strings"
)

// Set says which bytes are encoded.
type Set uint8

const (
	// Request is the set for requests to the multiplexor and its workers: bytes up
	// to 0x20, above 0x7e, and % \ ' ".
	Request Set = iota
	// Command is the set for the COMMANDS file: bytes up to 0x20, above 0x7e, and %.
	Command
)

const upperHex = "0123456789ABCDEF"

func (set Set) encodes(c byte) bool {
	if c <= ' ' || c > '~' || c == '%' {
		return true
	}
	return set == Request && (c == '\\' || c == '\'' || c == '"')
}

// Append appends the encoding of s to dst.
func Append(dst []byte, s string, set Set) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; set.encodes(c) {
			dst = append(dst, '%', upperHex[c>>4], upperHex[c&15])
		} else {
			dst = append(dst, c)
		}
	}
	return dst
}

// Encode encodes s as one word of a request. The encoding of an empty string is
// empty; callers use a placeholder, because workers split at runs of spaces.
func Encode(s string) string { return encode(s, Request) }

// EncodeCommand encodes s as one word of a COMMANDS file.
func EncodeCommand(s string) string { return encode(s, Command) }

func encode(s string, set Set) string {
	for i := 0; i < len(s); i++ {
		if set.encodes(s[i]) {
			return string(Append(make([]byte, 0, len(s)+16), s, set))
		}
	}
	return s
}

// Join encodes each word for a request and puts one space between them.
func Join(words ...string) string {
	size := 16 // for what is encoded; more is seldom
	for _, w := range words {
		size += len(w) + 1
	}
	b := make([]byte, 0, size)
	for i, w := range words {
		if i > 0 {
			b = append(b, ' ')
		}
		b = Append(b, w, Request)
	}
	return string(b)
}

// Decode replaces each '%' that two hexadecimal digits of either case follow by
// the byte they name. Any other '%' stays as it is, as in the original programs.
// Decoding happens once: "%250A" becomes "%0A".
func Decode(s string) string {
	i := strings.IndexByte(s, '%')
	if i < 0 {
		return s
	}
	b := append(make([]byte, 0, len(s)), s[:i]...)
	for ; i < len(s); i++ {
		if c, ok := escape(s, i); ok {
			b = append(b, c)
			i += 2
		} else {
			b = append(b, s[i])
		}
	}
	return string(b)
}

// BadEscape is the error of DecodeStrict: the text in which a '%' was not
// followed by two hexadecimal digits, and where.
type BadEscape struct {
	Text   string
	Offset int
}

func (e *BadEscape) Error() string {
	return fmt.Sprintf("percent-decode %.80q: no two hexadecimal digits after %% at offset %d", e.Text, e.Offset)
}

// DecodeStrict is Decode for text in which a '%' without two hexadecimal digits
// is a protocol error; that error is a *BadEscape.
func DecodeStrict(s string) (string, error) {
	i := strings.IndexByte(s, '%')
	if i < 0 {
		return s, nil
	}
	b := append(make([]byte, 0, len(s)), s[:i]...)
	for ; i < len(s); i++ {
		if s[i] != '%' {
			b = append(b, s[i])
			continue
		}
		c, ok := escape(s, i)
		if !ok {
			return "", &BadEscape{Text: s, Offset: i}
		}
		b = append(b, c)
		i += 2
	}
	return string(b), nil
}

// escape decodes the escape that starts at s[i], if there is one.
func escape(s string, i int) (c byte, ok bool) {
	if s[i] != '%' || i+2 >= len(s) {
		return 0, false
	}
	hi, ok1 := digit(s[i+1])
	lo, ok2 := digit(s[i+2])
	return hi<<4 | lo, ok1 && ok2
}

func digit(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
