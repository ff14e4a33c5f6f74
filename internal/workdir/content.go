package workdir

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"

	"postern/internal/safedir"
)

// ErrHeader is wrapped by the error of [Content.Write] for a header that is longer or has more fields than the spool
// allows. It is the client's fault, and for good.
var ErrHeader = errors.New("message header is too large")

// pieceSize is the room that output is gathered in before it is written.
const pieceSize = 64 << 10

// pieces lends output buffers to messages while content arrives.
var pieces = sync.Pool{New: func() any { b := make([]byte, 0, pieceSize); return &b }}

// Content takes the message as it comes from SMTP, decoded, with CR LF line ends, in pieces split anywhere. It writes
// INPUTMSG with LF line ends and HEADERS with a field a line, and gathers the lines that COMMANDS gets at the end.
//
// The header ends at the first empty line, or before the first line that cannot be part of a header; an empty line is
// then put in, so that the filter and the next server see the same header. A mbox "From " line at the very beginning
// becomes an X-Mailbox-Line field. Fields are kept as they came, but a second and later Content-Type is left out.
// Bare CR and NUL do not come from smtp-proxy; a bare CR in a header becomes a space, in the body both stay, and they
// are marked as suspicious.
type Content struct {
	dir     *Dir
	input   *os.File
	headers *os.File
	out     *[]byte // bound for INPUTMSG
	hdr     []byte  // bound for HEADERS
	written int64   // bytes of INPUTMSG that left out
	err     error   // the first one; it stays

	state          state
	cr             bool   // a CR was read whose meaning the next byte tells
	line           []byte // of the present header line, until its name is known
	spaced         bool   // white space was read behind the name in line
	field          field  // the present field
	headerBytes    int64
	fields         int
	types          int    // Content-Type fields so far
	commands       []byte // lines for COMMANDS
	suspiciousBody bool
}

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
	drop       bool   // it is a surplus Content-Type
	letter     byte   // COMMANDS letter, 0 for most fields
	text       []byte // value for COMMANDS
	skipSpace  bool   // the next byte is the first of the value
	suspicious bool   // a bare CR or NUL is in it
}

// Content returns the writer for the message of this directory; it is the same at every call. What is written is
// complete only after Finish.
func (d *Dir) Content() (*Content, error) {
	if d.content != nil {
		return d.content, nil
	}
	if d.removed {
		return nil, fmt.Errorf("write message of %q: %w", d.name, errRemoved)
	}
	input, err := d.create(fileInput)
	if err != nil {
		return nil, classify(fmt.Errorf("write message of %q: %w", d.name, err))
	}
	d.input = input
	headers, err := safedir.OpenFile(d.root, fileHeaders, os.O_WRONLY|os.O_APPEND)
	if err != nil {
		return nil, classify(fmt.Errorf("write HEADERS of %q: %w", d.name, err))
	}
	d.content = &Content{dir: d, input: input, headers: headers, out: pieces.Get().(*[]byte)}
	return d.content, nil
}

// Write takes the next piece. Its error wraps [ErrNoSpace], [ErrHeader], or neither; it comes again at each further
// call and from Finish.
func (c *Content) Write(p []byte) (int, error) {
	if c.err == nil && c.out == nil {
		c.err = errRemoved
	}
	if c.err != nil {
		return 0, c.err
	}
	rest := p
	for len(rest) > 0 && c.state != inBody && c.err == nil {
		n := c.headerRun(rest)
		rest = rest[n:]
	}
	if c.err == nil && len(rest) > 0 {
		c.body(rest)
	}
	if c.err != nil {
		return 0, c.err
	}
	return len(p), nil
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
	white := b == ' ' || b == '\t'
	switch c.state {
	case atLineStart:
		if white && c.field.open {
			c.state = inValue
			c.value([]byte{b})
			return
		}
		c.endField()
		c.state = inName
		c.line, c.spaced = c.line[:0], false
		c.name(b, white)
	case inName:
		c.name(b, white)
	case inValue:
		c.value([]byte{b})
	}
}

// name takes one byte of what may become a field name with its colon. RFC 5322, 2.2: printable ASCII without a
// colon; 4.5.1 allows white space between name and colon.
func (c *Content) name(b byte, white bool) {
	c.line = append(c.line, b)
	switch {
	case b == ':' && len(c.line) > 1:
		c.startField()
	case white && len(c.line) > 1 && len(c.line) <= maxFieldName:
		c.spaced = true
	case b <= ' ' || b > '~' || b == ':' || c.spaced || len(c.line) > maxFieldName:
		c.notHeader()
	}
}

// startField begins the field whose name and colon are in line.
func (c *Content) startField() {
	name := bytes.TrimRight(c.line[:len(c.line)-1], " \t")
	c.openField(name, c.line)
}

// openField begins a field that INPUTMSG shows as raw, colon included.
func (c *Content) openField(name, raw []byte) {
	c.state = inValue
	c.fields++
	if c.fields > c.dir.spool.maxFields() {
		c.err = fmt.Errorf("more than %d fields: %w", c.dir.spool.maxFields(), ErrHeader)
		return
	}
	c.field = field{open: true, skipSpace: true, suspicious: c.field.suspicious, text: c.field.text[:0]}
	switch {
	case bytes.EqualFold(name, []byte("Content-Type")):
		c.types++
		c.field.drop = c.types > 1
	case bytes.EqualFold(name, []byte("Subject")):
		c.field.letter = 'U'
	case bytes.EqualFold(name, []byte("Message-ID")):
		c.field.letter = 'X'
	}
	if c.field.drop {
		return
	}
	c.write(raw)
	c.hdr = append(append(c.hdr, name...), ": "...)
}

// value takes bytes of a field's value, none of them CR or LF.
func (c *Content) value(p []byte) {
	if len(p) == 0 {
		return
	}
	if !c.field.suspicious && bytes.IndexByte(p, 0) >= 0 {
		c.field.suspicious = true
	}
	if c.field.drop {
		return
	}
	c.write(p)
	if c.field.skipSpace && p[0] == ' ' {
		p = p[1:]
	}
	c.field.skipSpace = false
	c.hdr = append(c.hdr, p...)
	if len(c.hdr) >= pieceSize {
		c.flushHeaders()
	}
	if c.field.letter != 0 {
		c.field.text = append(c.field.text, p[:min(len(p), maxCommandText-len(c.field.text))]...)
	}
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
		c.commands = append(c.commands, "!\n"...)
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
		if !c.field.drop {
			c.write([]byte{'\n'})
		}
		c.field.skipSpace = false
		c.state = atLineStart
	}
}

// notHeader deals with a line, or the beginning of one, that is no header field.
func (c *Content) notHeader() {
	if c.fields == 0 && (bytes.HasPrefix(c.line, []byte("From ")) || bytes.HasPrefix(c.line, []byte(">From "))) {
		ended := c.line[len(c.line)-1] == '\n'
		text := bytes.TrimSuffix(c.line, []byte("\n"))
		c.openField([]byte("X-Mailbox-Line"), []byte("X-Mailbox-Line: "))
		c.field.skipSpace = false
		c.value(text)
		if ended {
			c.lineEnd()
		}
		return
	}
	c.endHeader()
	c.body(c.line)
}

// endHeader writes the empty line behind the header.
func (c *Content) endHeader() {
	c.endField()
	c.write([]byte{'\n'})
	c.state = inBody
	c.flushHeaders()
}

// body takes bytes of the body: CR LF becomes LF.
func (c *Content) body(p []byte) {
	if !c.suspiciousBody && bytes.IndexByte(p, 0) >= 0 {
		c.suspiciousBody = true
	}
	if c.cr {
		c.cr = false
		if p[0] != '\n' {
			c.bareCR()
		}
	}
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\r')
		if i < 0 {
			c.write(p)
			return
		}
		c.write(p[:i])
		p = p[i+1:]
		switch {
		case len(p) == 0:
			c.cr = true
		case p[0] != '\n':
			c.bareCR()
		}
	}
}

func (c *Content) bareCR() {
	c.suspiciousBody = true
	c.write([]byte{'\r'})
}

// write gathers bytes for INPUTMSG and writes them by the piece.
func (c *Content) write(p []byte) {
	for len(p) > 0 && c.err == nil {
		if len(*c.out) == 0 && len(p) >= pieceSize {
			c.writeFile(c.input, p)
			c.written += int64(len(p))
			return
		}
		n := min(len(p), pieceSize-len(*c.out))
		*c.out = append(*c.out, p[:n]...)
		p = p[n:]
		if len(*c.out) == pieceSize {
			c.flushInput()
		}
	}
}

func (c *Content) flushInput() {
	c.writeFile(c.input, *c.out)
	c.written += int64(len(*c.out))
	*c.out = (*c.out)[:0]
}

func (c *Content) flushHeaders() {
	c.writeFile(c.headers, c.hdr)
	c.hdr = c.hdr[:0]
}

func (c *Content) writeFile(f *os.File, p []byte) {
	if c.err != nil || len(p) == 0 {
		return
	}
	if _, err := f.Write(p); err != nil {
		c.err = classify(err)
	}
}

// finish ends the message and writes what was held back.
func (c *Content) finish() error {
	if c.err == nil && c.out == nil {
		c.err = errRemoved
	}
	if c.err != nil {
		return c.err
	}
	if c.cr && c.state != inBody {
		// A message that ends in a bare CR; no SMTP client can send one through the proxy.
		c.cr = false
		c.field.suspicious = true
		c.char(' ')
	}
	switch c.state {
	case inName:
		c.notHeader()
		if c.state == inBody {
			break
		}
		fallthrough
	case inValue:
		c.lineEnd()
		fallthrough
	case atLineStart:
		c.endHeader()
	}
	if c.cr {
		c.cr = false
		c.bareCR()
	}
	c.flushInput()
	c.release()
	return c.err
}

// release gives back the buffer and closes HEADERS; Write fails from now on.
func (c *Content) release() {
	if c.out == nil {
		return
	}
	*c.out = (*c.out)[:0]
	pieces.Put(c.out)
	c.out, c.hdr, c.line, c.field.text = nil, nil, nil, nil
	if err := c.headers.Close(); err != nil && c.err == nil {
		c.err = classify(err)
	}
}
