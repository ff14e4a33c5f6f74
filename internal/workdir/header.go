package workdir

import (
	"bytes"
	"fmt"
	"slices"
	"unicode/utf8"
)

// The normal form of a header. The filter judges a message by what its parser makes of the header, and the receiver's
// mail reader makes something of what arrived: where one of two parsers does not know a field, or a server on the way
// mends or breaks one, the filter is shown a harmless text and the receiver gets an attachment. So the header is
// written, shown and sent on only in a form that all read alike:
//
//   - it ends at an empty line, which is put in before the first line that cannot be part of a header;
//   - nothing stands between a name and its colon (RFC 5322, 4.5.1 would allow white space);
//   - no continuation line is of white space alone (RFC 5322, 3.2.2), as some readers take that for the end;
//   - no line is longer than 998 bytes (RFC 5322, 2.1.1): a longer one is folded at white space, or, without any,
//     where the space is full, as Postfix does when it sends it on;
//   - of the fields that say what the content is, the first of each name counts and others are left out; they have
//     no control bytes and a limit of length, beyond which servers cut them off;
//   - mbox lines ("From ") at the very beginning are X-Mailbox-Line fields, as with Postfix.
//
// All other bytes stay as they came, for signatures are made over them. None of these changes matters to a DKIM
// signature of relaxed form, unless a line had to be folded without white space.

// onceOnly are the fields of which a message has one at most (RFC 2045, 3; RFC 2183, 2) and whose readers differ in
// which one counts, if there are more.
var onceOnly = [...]string{"Content-Type", "Content-Transfer-Encoding", "Content-Disposition"}

// state is where in the message the next byte belongs.
type state int

const (
	atLineStart state = iota // of a header line
	inName
	inValue
	inBody
)

// field is the header field that is being read.
type field struct {
	open       bool
	drop       bool   // it is a surplus one
	mime       bool   // its name begins with Content-
	letter     byte   // COMMANDS letter, 0 for most fields
	text       []byte // value for COMMANDS
	head       int    // bytes of name and colon at the beginning of the present line; 0 in a continuation
	size       int    // bytes so far
	suspicious bool   // a bare CR or NUL is in it
}

// headerRun takes at least one byte of p and returns how many. Runs inside a value are taken at once.
func (c *Content) headerRun(p []byte) int {
	n := 1
	b := p[0]
	switch {
	case c.cr:
		c.cr = false
		if b == '\n' {
			c.lineEnd()
			break
		}
		c.field.suspicious = true
		c.char(' ')
		// The white space that a bare CR became may have ended the header.
		if c.state == inBody {
			return 0
		}
		n = 0
	case b == '\r':
		c.cr = true
	case b == '\n':
		c.lineEnd()
	case c.state == inValue:
		if n = bytes.IndexAny(p, "\r\n"); n < 0 {
			n = len(p)
		}
		c.value(p[:n])
	default:
		c.char(b)
	}
	c.headerBytes += int64(n)
	if c.headerBytes > c.dir.spool.maxHeader() && c.err == nil && c.state != inBody {
		c.err = fmt.Errorf("more than %d bytes: %w", c.dir.spool.maxHeader(), ErrHeader)
	}
	return n
}

// char takes one byte of a header line that is not part of its end.
func (c *Content) char(b byte) {
	blank := b == ' ' || b == '\t'
	switch c.state {
	case atLineStart:
		c.line, c.spaced = c.line[:0], false
		if blank && c.field.open {
			c.state = inValue
			c.value([]byte{b})
			return
		}
		c.endField()
		c.state = inName
		c.name(b, blank)
	case inName:
		c.name(b, blank)
	case inValue:
		c.value([]byte{b})
	}
}

// name takes one byte of what may become a field name with its colon. RFC 5322, 2.2: printable ASCII without a
// colon; 4.5.1 allows white space between name and colon.
func (c *Content) name(b byte, blank bool) {
	c.line = append(c.line, b)
	switch {
	case b == ':' && len(c.line) > 1:
		c.openField(bytes.TrimRight(c.line[:len(c.line)-1], " \t"))
	case blank && len(c.line) > 1 && len(c.line) <= maxFieldName:
		c.spaced = true
	case b <= ' ' || b > '~' || b == ':' || c.spaced || len(c.line) > maxFieldName:
		c.notHeader()
	}
}

// openField begins the field of that name, which may be the beginning of line.
func (c *Content) openField(name []byte) {
	c.state = inValue
	c.fields++
	if c.fields > c.dir.spool.maxFields() {
		c.err = fmt.Errorf("more than %d fields: %w", c.dir.spool.maxFields(), ErrHeader)
		return
	}
	c.field = field{open: true, suspicious: c.field.suspicious, text: c.field.text[:0], head: len(name) + 1}
	c.field.mime = len(name) > len("Content-") && bytes.EqualFold(name[:len("Content-")], []byte("Content-"))
	switch {
	case c.field.mime:
		i := slices.IndexFunc(onceOnly[:], func(s string) bool { return bytes.EqualFold(name, []byte(s)) })
		if i >= 0 {
			c.field.drop = c.seen[i]
			c.seen[i] = true
		}
	case bytes.EqualFold(name, []byte("Subject")):
		c.field.letter = CommandSubject
	case bytes.EqualFold(name, []byte("Message-ID")):
		c.field.letter = CommandMessageID
	}
	c.line = append(append(c.line[:0], name...), ':')
}

// value takes bytes of a field's value, none of them CR or LF.
func (c *Content) value(p []byte) {
	if !c.field.suspicious && bytes.IndexByte(p, 0) >= 0 {
		c.field.suspicious = true
	}
	for !c.field.drop && len(p) > 0 {
		n := min(len(p), maxHeaderLine+1-len(c.line))
		c.line = append(c.line, p[:n]...)
		p = p[n:]
		if len(c.line) > maxHeaderLine {
			c.wrap()
		}
	}
}

// wrap folds the present line, which is too long, at its last white space with text before it, or where it is full.
// White space without text is not worth a line: what is too much of it goes.
func (c *Content) wrap() {
	value := bytes.TrimLeft(c.line[c.field.head:], white)
	if len(value) == 0 {
		c.line = c.line[:c.field.head+maxIndent]
		return
	}
	begin := len(c.line) - len(value)
	at := bytes.LastIndexAny(c.line, white)
	if at <= begin {
		at = maxHeaderLine
		for i := at; i > at-utf8.UTFMax; i-- {
			if utf8.RuneStart(c.line[i]) {
				at = i
				break
			}
		}
		c.line = slices.Insert(c.line, at, ' ')
	}
	c.emit(c.line[:at])
	c.line = append(c.line[:0], c.line[at:]...)
}

// emit writes one line of a field. A continuation of white space alone is left out.
func (c *Content) emit(text []byte) {
	if c.field.drop || c.field.head == 0 && len(bytes.Trim(text, white)) == 0 {
		return
	}
	value := text[c.field.head:]
	if c.field.mime {
		for i, b := range value {
			if b < ' ' && b != '\t' || b == 0x7f {
				value[i] = ' '
			}
		}
		if c.field.size += len(text); c.field.size > maxMIMEField && c.err == nil {
			c.err = fmt.Errorf("more than %d bytes in %.40q: %w", maxMIMEField, text[:c.field.head], ErrHeader)
		}
	}
	c.write(text)
	c.write([]byte{'\n'})
	if c.field.head > 0 {
		c.hdr = append(append(c.hdr, text[:c.field.head]...), ' ')
		value = bytes.TrimPrefix(value, []byte(" "))
	}
	c.hdr = append(c.hdr, value...)
	if len(c.hdr) >= headersPiece {
		c.flushHeaders()
	}
	if c.field.letter != 0 {
		c.field.text = append(c.field.text, value[:min(len(value), maxCommandText-len(c.field.text))]...)
	}
	c.field.head = 0
}

// endField writes what is left to write of the present field.
func (c *Content) endField() {
	suspicious := c.field.suspicious
	c.field.suspicious = false
	if !c.field.open {
		return
	}
	c.field.open = false
	if suspicious {
		c.commands = append(c.commands, CommandSuspiciousHead, '\n')
	}
	if c.field.drop {
		return
	}
	c.hdr = append(c.hdr, '\n')
	if c.field.letter != 0 {
		c.commands = line(c.commands, c.field.letter, string(c.field.text))
	}
}

// lineEnd takes the end of a line in the header.
func (c *Content) lineEnd() {
	switch c.state {
	case atLineStart:
		c.endHeader()
	case inName:
		c.line = append(c.line, '\n')
		c.notHeader()
	case inValue:
		c.emit(c.line)
		c.state = atLineStart
	}
}

// notHeader deals with a line, or the beginning of one, that is no header field.
func (c *Content) notHeader() {
	if c.fields > c.mailboxes || !bytes.HasPrefix(bytes.TrimLeft(c.line, ">"), []byte("From ")) {
		c.endHeader()
		c.body(c.line)
		return
	}
	c.mailboxes++
	text, ended := bytes.CutSuffix(bytes.Clone(c.line), []byte("\n"))
	c.openField([]byte("X-Mailbox-Line"))
	c.value([]byte(" "))
	c.value(text)
	if ended {
		c.lineEnd()
	}
}

// endHeader writes the empty line behind the header.
func (c *Content) endHeader() {
	c.endField()
	c.write([]byte{'\n'})
	c.state = inBody
	c.flushHeaders()
}
