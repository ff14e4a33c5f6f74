package header

import (
	"bytes"
	"io"
)

// Editor edits the header of a message that passes through it: it counts hops, removes Received fields or
// adds ours, and lets all else pass in the pieces it comes in. It holds nothing back but the beginning of a
// line of which is not known yet what it is, so that a header costs no memory, however slowly it comes; of a
// message that turns out to be refused, Next has got a part.
type Editor struct {
	Next  io.Writer
	Limit int    // of the header, in bytes
	Hops  int    // Received fields at most
	Drop  bool   // remove them all
	Add   []byte // our Received field, without its line end; nil for none

	line     []byte // beginning of a line that may be one of the header
	known    bool   // what the present line is
	skip     bool   // the present field is removed
	size     int    // of the header so far
	received int
	fields   int // that went on
	mbox     int // of them, those that were mbox lines
	out      []byte
	passing  bool // the header is over
}

// Write takes decoded content with CR LF. ErrHops and ErrTooLong are refusals of the message.
func (e *Editor) Write(p []byte) (int, error) {
	rest := p
	for len(rest) > 0 && !e.passing {
		n := e.step(rest)
		e.size += n
		rest = rest[n:]
		if e.size > e.Limit {
			return 0, ErrTooLong
		}
		if e.received > e.Hops {
			return 0, ErrHops
		}
	}
	if err := e.flush(); err != nil {
		return 0, err
	}
	if len(rest) > 0 {
		if _, err := e.Next.Write(rest); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// step takes at least one byte of p and returns how many.
func (e *Editor) step(p []byte) int {
	if e.known {
		n := bytes.IndexByte(p, '\n') + 1
		if e.known = n == 0; e.known {
			n = len(p)
		}
		e.pass(p[:n])
		return n
	}
	e.line = append(e.line, p[0])
	kind, name := lineKind(e.line, e.fields+e.received > 0)
	switch kind {
	case lineField:
		e.begin()
		received := bytes.EqualFold(name, []byte(ReceivedName))
		if e.skip = received && e.Drop; !e.skip {
			e.fields++
		}
		if received {
			e.received++
		}
		e.take()
	case lineFold:
		e.take()
	case lineEnd:
		e.begin()
		e.skip = false
		e.take()
		e.passing = true
	case lineOther:
		e.notHeader()
	}
	return 1
}

// take passes the line that is known now, as far as it came.
func (e *Editor) take() {
	e.known = e.line[len(e.line)-1] != '\n'
	e.pass(e.line)
	e.line = e.line[:0]
}

// pass lets bytes of the header through.
func (e *Editor) pass(p []byte) {
	if !e.skip {
		e.out = append(e.out, p...)
	}
}

// begin adds our field on top.
func (e *Editor) begin() {
	if e.Add != nil {
		e.out = append(append(e.out, e.Add...), '\r', '\n')
		e.Add = nil
	}
}

// notHeader deals with the beginning of a line that is none of the header: it is an mbox line at the very
// beginning, and becomes a field as with Postfix, or begins the body. Where nothing but fields of ours, or
// none any more, are before it, an empty line keeps it from becoming header.
func (e *Editor) notHeader() {
	e.skip = false
	if e.fields == e.mbox && e.received == 0 && bytes.HasPrefix(bytes.TrimLeft(e.line, ">"), []byte("From ")) {
		e.begin()
		e.fields++
		e.mbox++
		e.pass([]byte("X-Mailbox-Line: "))
		e.take()
		return
	}
	if ours := e.Add != nil; e.fields == 0 && (ours || e.received > 0) {
		e.begin()
		e.pass([]byte("\r\n"))
	}
	e.pass(e.line)
	e.line, e.passing = nil, true
}

// Close ends a message whose header may lack the empty line.
func (e *Editor) Close() error {
	if e.passing {
		return nil
	}
	changes := e.Add != nil || e.Drop || e.fields > 0
	if len(e.line) > 0 {
		e.notHeader()
	}
	if !e.passing && changes {
		e.begin()
		e.skip = false
		if e.known {
			e.pass([]byte("\r\n"))
		}
		e.pass([]byte("\r\n"))
	}
	e.passing = true
	return e.flush()
}

func (e *Editor) flush() error {
	if len(e.out) == 0 {
		return nil
	}
	_, err := e.Next.Write(e.out)
	e.out = nil
	return err
}

// What a line at the beginning of a message is.
type kindOfLine int

const (
	lineUnknown kindOfLine = iota // more of it must be seen
	lineField                     // begins a field
	lineFold                      // continues one
	lineEnd                       // is the empty line behind the header
	lineOther                     // belongs to the body
)

// lineKind looks at a line as far as it has come; it is asked again with each byte. within says that there
// was a field before. White space before the colon is obsolete but exists: RFC 5322, 4.5.
func lineKind(line []byte, within bool) (kind kindOfLine, name []byte) {
	last := line[len(line)-1]
	switch {
	case last == '\n' && len(bytes.TrimRight(line, "\r\n")) == 0:
		return lineEnd, nil
	case line[0] == ' ' || line[0] == '\t':
		if within {
			return lineFold, nil
		}
		return lineOther, nil
	case last == ':':
		if name = bytes.TrimRight(line[:len(line)-1], " \t"); isName(name) {
			return lineField, name
		}
		return lineOther, nil
	case len(line) > maxFieldStart:
		return lineOther, nil
	case last == '\r' && len(line) == 1, last == ' ', last == '\t':
		return lineUnknown, nil
	case last < ' ' || last >= 0x7f:
		return lineOther, nil
	case len(line) > 1 && (line[len(line)-2] == ' ' || line[len(line)-2] == '\t'):
		return lineOther, nil // white space within a name
	}
	return lineUnknown, nil
}

// maxFieldStart is how long a name may be with the white space behind it.
const maxFieldStart = 1024
