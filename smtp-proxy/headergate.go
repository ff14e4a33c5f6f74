package main

import (
	"bytes"
	"io"
)

// headerGate is the first part of a message on its way through: it counts hops, removes Received fields or adds ours, and
// lets all else pass in the pieces it comes in. It holds nothing back but the beginning of a line of which is not
// known yet what it is, so that a header costs no memory, however slowly it comes; a message that turns out to be
// refused has been begun at the server and is given up there.
type headerGate struct {
	next  io.Writer
	limit int    // of the header, in bytes
	hops  int    // Received fields at most
	drop  bool   // remove them all
	add   []byte // our field, without its line end; nil for none

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

// Write takes decoded content with CR LF. errHops and errHeaderTooLong are refusals of the message.
func (g *headerGate) Write(p []byte) (int, error) {
	rest := p
	for len(rest) > 0 && !g.passing {
		n := g.step(rest)
		g.size += n
		rest = rest[n:]
		if g.size > g.limit {
			return 0, errHeaderTooLong
		}
		if g.received > g.hops {
			return 0, errHops
		}
	}
	if err := g.flush(); err != nil {
		return 0, err
	}
	if len(rest) > 0 {
		if _, err := g.next.Write(rest); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// step takes at least one byte of p and returns how many.
func (g *headerGate) step(p []byte) int {
	if g.known {
		n := bytes.IndexByte(p, '\n') + 1
		if g.known = n == 0; g.known {
			n = len(p)
		}
		g.pass(p[:n])
		return n
	}
	g.line = append(g.line, p[0])
	kind, name := lineKind(g.line, g.fields+g.received > 0)
	switch kind {
	case lineField:
		g.begin()
		received := bytes.EqualFold(name, []byte("Received"))
		if g.skip = received && g.drop; !g.skip {
			g.fields++
		}
		if received {
			g.received++
		}
		g.take()
	case lineFold:
		g.take()
	case lineEnd:
		g.begin()
		g.skip = false
		g.take()
		g.passing = true
	case lineOther:
		g.notHeader()
	}
	return 1
}

// take passes the line that is known now, as far as it came.
func (g *headerGate) take() {
	g.known = g.line[len(g.line)-1] != '\n'
	g.pass(g.line)
	g.line = g.line[:0]
}

// pass lets bytes of the header through.
func (g *headerGate) pass(p []byte) {
	if !g.skip {
		g.out = append(g.out, p...)
	}
}

// begin adds our field on top.
func (g *headerGate) begin() {
	if g.add != nil {
		g.out = append(append(g.out, g.add...), '\r', '\n')
		g.add = nil
	}
}

// notHeader deals with the beginning of a line that is none of the header: it is an mbox line at the very beginning, and
// becomes a field as with Postfix, or begins the body. Where nothing but fields of ours, or none any more, are before
// it, an empty line keeps it from becoming header.
func (g *headerGate) notHeader() {
	g.skip = false
	if g.fields == g.mbox && g.received == 0 && bytes.HasPrefix(bytes.TrimLeft(g.line, ">"), []byte("From ")) {
		g.begin()
		g.fields++
		g.mbox++
		g.pass([]byte("X-Mailbox-Line: "))
		g.take()
		return
	}
	if ours := g.add != nil; g.fields == 0 && (ours || g.received > 0) {
		g.begin()
		g.pass([]byte("\r\n"))
	}
	g.pass(g.line)
	g.line, g.passing = nil, true
}

// Close ends a message whose header may lack the empty line.
func (g *headerGate) Close() error {
	if g.passing {
		return nil
	}
	changes := g.add != nil || g.drop || g.fields > 0
	if len(g.line) > 0 {
		g.notHeader()
	}
	if !g.passing && changes {
		g.begin()
		g.skip = false
		if g.known {
			g.pass([]byte("\r\n"))
		}
		g.pass([]byte("\r\n"))
	}
	g.passing = true
	return g.flush()
}

func (g *headerGate) flush() error {
	if len(g.out) == 0 {
		return nil
	}
	_, err := g.next.Write(g.out)
	g.out = nil
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

// lineKind looks at a line as far as it has come; it is asked again with each byte. within says that there was a field
// before. White space before the colon is obsolete but exists: RFC 5322, 4.5.
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
		if name = bytes.TrimRight(line[:len(line)-1], " \t"); isFieldName(name) {
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
