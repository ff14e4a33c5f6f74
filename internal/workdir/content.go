package workdir

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
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
// The header is written in a normal form, so that all who read it, the filter, the next server and those behind it,
// read the same: see header.go. Bare CR and NUL do not come from smtp-proxy; a bare CR in a header becomes a space,
// in the body both stay, and they are marked as suspicious.
type Content struct {
	dir  *Dir
	out  *[]byte // bound for INPUTMSG
	hdr  []byte  // bound for HEADERS
	head seal    // of the header in INPUTMSG, with the empty line
	rest seal    // and of the body
	err  error   // the first one; it stays

	state          state
	cr             bool   // a CR was read whose meaning the next byte tells
	line           []byte // the present header line, in normal form once its name is known
	spaced         bool   // white space was read behind the name in line
	field          field  // the present field
	headerBytes    int64
	fields         int
	mailboxes      int                 // of them, those that were a mbox line
	seen           [len(onceOnly)]bool // of the fields that count only once
	commands       []byte              // lines for COMMANDS
	suspiciousBody bool
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
	input, err := d.dir.Create(fileInput, d.fileMode)
	if err != nil {
		return nil, classify(fmt.Errorf("write message of %q: %w", d.name, err))
	}
	d.input = input
	d.content = &Content{dir: d, out: pieces.Get().(*[]byte)}
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
	if c.state == inBody {
		c.rest.write(p)
	} else {
		c.head.write(p)
	}
	for len(p) > 0 && c.err == nil {
		if len(*c.out) == 0 && len(p) >= pieceSize {
			c.writeFile(c.dir.input, p)
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
	c.writeFile(c.dir.input, *c.out)
	*c.out = (*c.out)[:0]
}

func (c *Content) flushHeaders() {
	c.writeFile(c.dir.headers, c.hdr)
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
	if err := c.dir.headers.Close(); err != nil && c.err == nil {
		c.err = classify(err)
	}
	c.dir.headers = nil
}
