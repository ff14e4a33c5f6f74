// Package header edits the header of a message: RFC 5322, 2.2 and 3.6. A [Header] is a whole header as a list
// of fields; an [Editor] edits one that passes through in pieces.
package header

import (
	"bytes"
	"errors"
	"slices"
	"strings"
)

// The reasons for which a message is refused.
var (
	ErrTooLong = errors.New("message header is too long")
	ErrHops    = errors.New("too many Received fields")
)

// ReceivedName is the name of the trace field: RFC 5321, 4.4.
const ReceivedName = "Received"

// field is one field of a message header.
type field struct {
	raw  []byte // the whole field as it came, folds and all, without its last line end
	name int    // length of the name, with which raw begins
	ours bool   // the Received field of this proxy: filters do not count it
}

func (f *field) is(name string) bool { return bytes.EqualFold(f.raw[:f.name], []byte(name)) }

// Header is a message header as a list that can be changed. Changes take effect one after another.
type Header struct {
	fields []field
}

// Split finds the header at the beginning of data, which has line ends of LF or CR LF. body is where the body
// begins, behind the empty line if there is one. A line that is neither a field nor the continuation of one
// ends the header as well: it belongs to the body. more says that data ends before the header does; then body
// is 0.
func Split(data []byte) (h Header, body int, more bool) {
	start := -1 // of the field being read
	name, at := 0, 0
	flush := func(end int) {
		if start >= 0 {
			h.fields = append(h.fields, field{name: name, raw: bytes.TrimRight(data[start:end], "\r\n")})
		}
		start = -1
	}
	for {
		i := bytes.IndexByte(data[at:], '\n')
		if i < 0 {
			return h, 0, true
		}
		text := bytes.TrimSuffix(data[at:at+i], []byte("\r"))
		switch {
		case len(text) == 0:
			flush(at)
			return h, at + i + 1, false
		case (text[0] == ' ' || text[0] == '\t') && start >= 0:
			// a continuation
		default:
			next := fieldName(text)
			if next == 0 {
				flush(at)
				return h, at, false
			}
			flush(at)
			start, name = at, next
		}
		at += i + 1
	}
}

// fieldName returns the length of the name of the field that the line begins, or 0. White space before the
// colon is obsolete but exists: RFC 5322, 4.5.
func fieldName(line []byte) int {
	i := bytes.IndexByte(line, ':')
	if i <= 0 {
		return 0
	}
	name := bytes.TrimRight(line[:i], " \t")
	if !isName(name) {
		return 0
	}
	return len(name)
}

// isName takes printable ASCII without colon and space: RFC 5322, 2.2.
func isName(s []byte) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f || s[i] == ':' {
			return false
		}
	}
	return len(s) > 0 && len(s) <= 256
}

// Count returns the number of fields of that name, the proxy's own Received field left out.
func (h *Header) Count(name string) int {
	n := 0
	for i := range h.fields {
		if !h.fields[i].ours && h.fields[i].is(name) {
			n++
		}
	}
	return n
}

// find returns the place of occurrence number index, from 1, of the message's own fields, or -1.
func (h *Header) find(name string, index int) int {
	for i := range h.fields {
		if h.fields[i].ours || !h.fields[i].is(name) {
			continue
		}
		if index--; index <= 0 {
			return i
		}
	}
	return -1
}

// With returns a copy of the header with the proxy's own Received field, as [Received.AppendTo] writes it, on
// top. Without one it is a plain copy.
func (h *Header) With(received []byte) Header {
	fields := make([]field, 0, len(h.fields)+4)
	if received != nil {
		fields = append(fields, field{name: len(ReceivedName), raw: received, ours: true})
	}
	return Header{fields: append(fields, h.fields...)}
}

// Add appends a field.
func (h *Header) Add(name, value string) {
	h.fields = append(h.fields, makeField(name, value))
}

// Insert makes a field number index, from 0, of the whole header; beyond the end it is appended.
func (h *Header) Insert(name string, index int, value string) {
	index = min(max(index, 0), len(h.fields))
	h.fields = slices.Insert(h.fields, index, makeField(name, value))
}

// Change gives occurrence index of a field a new value; beyond the last occurrence it is added. An
// empty value deletes the field.
func (h *Header) Change(name string, index int, value string) {
	if value == "" {
		h.Remove(name, index)
		return
	}
	if i := h.find(name, max(index, 1)); i >= 0 {
		h.fields[i] = makeField(name, value)
		return
	}
	h.Add(name, value)
}

// Remove deletes occurrence index of a field; beyond the last one it does nothing.
func (h *Header) Remove(name string, index int) {
	if i := h.find(name, max(index, 1)); i >= 0 {
		h.fields = slices.Delete(h.fields, i, i+1)
	}
}

// RemoveAll deletes all fields of that name.
func (h *Header) RemoveAll(name string) {
	h.fields = slices.DeleteFunc(h.fields, func(f field) bool { return f.is(name) })
}

// AppendTo writes the fields and the empty line behind them, with CR LF.
func (h *Header) AppendTo(dst []byte) []byte {
	for i := range h.fields {
		for line := range bytes.Lines(h.fields[i].raw) {
			dst = append(dst, bytes.TrimRight(line, "\r\n")...)
			dst = append(dst, '\r', '\n')
		}
	}
	return append(dst, '\r', '\n')
}

// makeField builds a field from a value that a filter gave. LF in it is a fold: what follows gets a TAB
// in front unless it begins with white space, so that no value can begin another field. Empty folds
// are left out, CR is removed, other control bytes become spaces.
func makeField(name, value string) field {
	raw := make([]byte, 0, len(name)+len(value)+8)
	raw = append(raw, name...)
	raw = append(raw, ':', ' ')
	first := true
	for part := range strings.SplitSeq(value, "\n") {
		part = cleanText(part)
		if !first {
			if strings.Trim(part, " \t") == "" {
				continue
			}
			raw = append(raw, '\r', '\n')
			if part[0] != ' ' && part[0] != '\t' {
				raw = append(raw, '\t')
			}
		}
		raw = append(raw, part...)
		first = false
	}
	return field{name: len(name), raw: raw}
}

// cleanText removes CR and makes control bytes other than TAB spaces.
func cleanText(s string) string {
	clean := true
	for i := range len(s) {
		if s[i] < ' ' && s[i] != '\t' || s[i] == 0x7f {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := range len(s) {
		switch b := s[i]; {
		case b == '\r':
		case b < ' ' && b != '\t' || b == 0x7f:
			out = append(out, ' ')
		default:
			out = append(out, b)
		}
	}
	return string(out)
}
