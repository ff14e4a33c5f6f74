package mime

import (
	"bytes"
	"slices"
	"strings"
)

// kind is which of the fields a line is that matter here.
type kind int

const (
	otherField kind = iota
	contentType
	contentDisposition
	contentEncoding
)

var kinds = map[string]kind{
	"content-type":              contentType,
	"content-disposition":       contentDisposition,
	"content-transfer-encoding": contentEncoding,
}

// longestName bounds the letters of a name that might be one of these.
const longestName = 64

// field is a field that matters, as some reader sees it.
type field struct {
	kind  kind
	value []byte // with its folds, without the last line end
	view  string
}

// end is a place where some reader takes the header to end: the offset of the body.
type end struct {
	at   int
	view string
}

// header is the header of a part, with all its readings.
type header struct {
	fields []field
	ends   []end
	lines  int // fields of all kinds in the standard view
	size   int // bytes of the values of fields
}

// values returns the values of the fields of a kind.
func (h *header) values(k kind) []string {
	var out []string
	for _, f := range h.fields {
		if f.kind == k {
			out = append(out, string(f.value))
		}
	}
	return out
}

// views returns the views by which fields or ends other than the standard ones are seen.
func (h *header) views() []string {
	var out []string
	for _, f := range h.fields {
		if f.view != "" {
			out = append(out, f.view)
		}
	}
	return out
}

// lineAt returns the line at pos, without its line end, and where the next one begins.
func lineAt(b []byte, pos int) (line []byte, next int) {
	line, next = b[pos:], len(b)
	if i := bytes.IndexByte(line, '\n'); i >= 0 {
		line, next = line[:i], pos+i+1
	}
	return bytes.TrimSuffix(line, []byte("\r")), next
}

// headerParser reads one header. The standard reading ends at the first empty line. Others end at a line of white
// space, or at one that is no field.
type headerParser struct {
	b     []byte
	h     header
	start int   // where that value begins
	open  field // the field that is being read, if reading
	read  bool
	late  string // why fields from here on are not seen by all
	bare  kind   // the last line was the name of this field, and nothing else
}

// parseHeader reads the header at the beginning of b; ok is false if it is longer than limit, or has too much in fields
// that matter.
func parseHeader(b []byte, limit int) (h header, ok bool) {
	p := &headerParser{b: b}
	pos := 0
	for pos < len(b) {
		line, next := lineAt(b, pos)
		if p.h.tooMuch() {
			return p.h, false
		}
		if next > limit {
			return p.h, false
		}
		if len(line) == 0 {
			p.finish(pos)
			p.h.ends = append([]end{{next, ""}}, p.h.ends...)
			return p.h, !p.h.tooMuch()
		}
		p.line(line, pos, next)
		pos = next
	}
	p.finish(pos)
	if len(p.h.ends) == 0 {
		p.h.ends = []end{{len(b), ""}}
	}
	return p.h, !p.h.tooMuch()
}

// line takes one line that is not empty.
func (p *headerParser) line(line []byte, pos, next int) {
	bare := p.bare
	p.bare = otherField
	if line[0] == ' ' || line[0] == '\t' {
		if at := bytes.IndexByte(line, ':'); bare != otherField && at >= 0 && len(bytes.TrimSpace(line[:at])) == 0 {
			p.open, p.read, p.start = field{kind: bare, view: "a line end in front of the colon"}, true, pos+at+1
			return
		}
		p.folded(line, pos, next)
		return
	}
	name, colon := fieldName(line)
	if colon < 0 {
		p.finish(pos)
		if pos == 0 && isMbox(line) {
			return
		}
		p.bare, _ = whichField(line)
		p.ends(pos, "a line that is no field ends the header")
		if next < len(p.b) {
			p.ends(next, "a line that is no field is the end of the header")
		}
		return
	}
	p.finish(pos)
	k, odd := whichField(name)
	p.h.lines++
	if k == otherField {
		return
	}
	view := p.late
	if odd != "" {
		view = odd
	}
	p.open, p.read, p.start = field{kind: k, view: view}, true, pos+colon+1
}

// folded takes a line that begins with white space.
func (p *headerParser) folded(line []byte, pos, next int) {
	trimmed := bytes.TrimLeft(line, " \t")
	if len(trimmed) == 0 {
		p.ends(next, "a line of white space ends the header")
		return
	}
	name, colon := fieldName(trimmed)
	if colon < 0 {
		return
	}
	k, _ := whichField(name)
	if k == otherField || !plausible(k, trimmed[colon+1:]) {
		return
	}
	// Such a line continues a field, as DKIM-Signature lists names of fields. Here it has a value of that field.
	value := trimmed[colon+1:]
	for rest := next; rest < len(p.b) && len(value) <= maxFieldBytes; {
		more, after := lineAt(p.b, rest)
		if len(more) == 0 || more[0] != ' ' && more[0] != '\t' {
			break
		}
		value, rest = p.b[pos+len(line)-len(trimmed)+colon+1:after], after
	}
	p.h.add(field{k, value, "a field in a line that continues another"})
}

// maxFields and maxFieldBytes bound the fields that matter in one header, in all its readings. No software makes more than
// one of a kind, and Postfix cuts a field off at 100 KiB.
const (
	maxFields     = 1000
	maxFieldBytes = 256 << 10
)

// add adds a field.
func (h *header) add(f field) {
	h.fields = append(h.fields, f)
	h.size += len(f.value)
}

func (h *header) tooMuch() bool { return len(h.fields) > maxFields || h.size > maxFieldBytes }

// ends notes that the header may end here, if it does not end before in that view.
func (p *headerParser) ends(at int, view string) {
	if slices.ContainsFunc(p.h.ends, func(e end) bool { return e.view == view }) {
		return
	}
	p.h.ends = append(p.h.ends, end{at, view})
	if p.late == "" {
		p.late = view
	}
}

// finish ends the field that is being read.
func (p *headerParser) finish(pos int) {
	if p.read {
		p.open.value = bytes.TrimRight(p.b[p.start:pos], "\r\n")
		p.h.add(p.open)
		p.read = false
	}
}

// behindBlank adds to an empty header the one behind empty lines, which some readers skip; b is where both begin. ok is
// that of parseHeader.
func (h *header) behindBlank(b []byte, limit int) (ok bool) {
	const view = "empty lines in front of the header"
	at, begins := beginsWithField(b)
	if !begins {
		return true
	}
	late, ok := parseHeader(b[at:], limit)
	for _, f := range late.fields {
		f.view = view
		h.add(f)
	}
	for _, e := range late.ends {
		h.ends = append(h.ends, end{at + e.at, view})
	}
	return ok
}

// firstLines is how many lines of a body are looked at for fields that some readers still take for the header.
const firstLines = 5

// lateEncodings looks for a Content-Transfer-Encoding field in the first lines of a body: its value, and where the
// body begins behind it.
func lateEncodings(b []byte) (values []string, ends []int) {
	for pos, n := 0, 0; pos < len(b) && n < firstLines; n++ {
		line, next := lineAt(b, pos)
		name, colon := fieldName(bytes.TrimLeft(line, " \t"))
		if colon > 0 {
			value := bytes.TrimLeft(line, " \t")[colon+1:]
			if k, _ := whichField(name); k == contentEncoding && plausible(k, value) {
				values, ends = append(values, string(value)), append(ends, next)
				if _, after := lineAt(b, next); after < len(b) {
					ends = append(ends, after)
				}
			}
		}
		pos = next
	}
	return values, ends
}

// firstFields is how many lines of what may be a header are looked at for the first field that matters. With more, one is
// taken to follow.
const firstFields = 50

// beginsWithField reports whether a text begins, behind empty lines, with fields of which one matters; at is where they
// begin.
func beginsWithField(b []byte) (at int, ok bool) {
	for at < len(b) {
		line, next := lineAt(b, at)
		if len(bytes.TrimSpace(line)) > 0 {
			return at, fieldThatMatters(b[at:])
		}
		at = next
	}
	return 0, false
}

// fieldThatMatters reports whether there is one in the first lines of a text, all of which are of fields.
func fieldThatMatters(b []byte) bool {
	for pos, n := 0, 0; pos < len(b); n++ {
		line, next := lineAt(b, pos)
		if n == firstFields {
			return true
		}
		if folded := n > 0 && len(line) > 0 && (line[0] == ' ' || line[0] == '\t'); !folded {
			name, colon := fieldName(line)
			if colon < 0 {
				return false
			}
			if k, _ := whichField(name); k != otherField && plausible(k, line[colon+1:]) {
				return true
			}
		}
		pos = next
	}
	return false
}

// fieldName returns the bytes in front of the colon, and where that is; -1 if the line is no field to anybody.
func fieldName(line []byte) (name []byte, colon int) {
	colon = bytes.IndexByte(line, ':')
	if colon < 1 {
		return nil, -1
	}
	name = line[:colon]
	trimmed := bytes.TrimRight(name, " \t")
	if bytes.IndexByte(trimmed, ' ') >= 0 || bytes.IndexByte(trimmed, '\t') >= 0 {
		if k, _ := whichField(name); k == otherField {
			return nil, -1
		}
	}
	return name, colon
}

// whichField recognises a field by its name, also where control bytes, white space, a comment or other bytes stand in
// it that do not belong there; odd says that not every reader would.
func whichField(name []byte) (k kind, odd string) {
	if len(name) < len("content-type") {
		return otherField, ""
	}
	if len(name) <= longestName {
		if k, ok := kinds[strings.ToLower(string(name))]; ok {
			return k, ""
		}
	}
	plain := make([]byte, 0, longestName)
	for _, c := range name {
		if len(plain) == longestName {
			return otherField, ""
		}
		switch {
		case c == '_':
			plain = append(plain, '-')
		case c == '-' || c|0x20 >= 'a' && c|0x20 <= 'z':
			plain = append(plain, c)
		}
	}
	if k, ok := kinds[strings.ToLower(string(plain))]; ok {
		return k, "bytes that do not belong into the name of a field"
	}
	return otherField, ""
}

// plausible reports whether value looks like one of a field of that kind.
func plausible(k kind, value []byte) bool {
	if len(value) > maxFieldBytes {
		return true // and more than is read
	}
	v := strings.ToLower(strings.TrimSpace(string(value)))
	switch k {
	case contentType:
		kind, _, ok := strings.Cut(v, "/")
		return ok && len(kind) > 0 && len(kind) < 30 && !strings.ContainsAny(kind, ":; \t") || strings.Contains(v, "boundary")
	case contentDisposition:
		return strings.HasPrefix(v, "attachment") || strings.HasPrefix(v, "inline") || strings.Contains(v, "filename")
	default:
		_, known := encodingNames[strings.Trim(v, `"' `)]
		return known
	}
}

// isMbox reports whether a line is the separator of a mailbox file, which is not part of a message.
func isMbox(line []byte) bool {
	return bytes.HasPrefix(line, []byte("From ")) || bytes.HasPrefix(line, []byte(">From "))
}
