package workdir

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"postern/internal/safedir"
)

// Dir is the working directory of one message. Its methods are called one after another, in the order Envelope,
// Recipient, Content, Finish, Input and Results; Remove ends it at any point.
type Dir struct {
	spool    *Spool
	in       *place
	name     string
	dir      *safedir.Dir // locked as long as it is open
	fileMode fs.FileMode

	commands *os.File
	headers  *os.File
	queueID  string // as last written to COMMANDS
	content  *Content
	input    *os.File // INPUTMSG, the descriptor it was written through
	deadline time.Time
	finished bool
	removed  bool
	aside    bool
}

// Path returns the directory's absolute path, as it is handed to workers.
func (d *Dir) Path() string { return filepath.Join(d.spool.Dir, d.name) }

// Deadline is told to the worker by Finish: when the front end stops waiting for the scan.
func (d *Dir) Deadline(t time.Time) { d.deadline = t }

// Finish ends the message: what Content held back is written, COMMANDS gets the lines that came from the header,
// and the F line, and all files are complete. Without a call of Content before, the message is an empty one. Only
// then may a worker be asked to scan.
func (d *Dir) Finish() error {
	if d.finished {
		return fmt.Errorf("finish %q: %w", d.name, fs.ErrClosed)
	}
	c, err := d.Content()
	if err != nil {
		return err
	}
	if err := c.finish(); err != nil {
		return classify(fmt.Errorf("finish %q: %w", d.name, err))
	}
	lines := c.commands
	if c.suspiciousBody {
		lines = append(lines, CommandSuspiciousBody, '\n')
	}
	if !d.deadline.IsZero() {
		// A macro, as workers of old note letters that they do not know in their log.
		lines = append(macro(lines, MacroDeadline, strconv.FormatInt(d.deadline.Unix(), 10)), '\n')
	}
	lines = append(lines, CommandEnd, '\n')
	if err := d.command(lines); err != nil {
		return err
	}
	d.finished = true
	err = d.commands.Close()
	d.commands = nil
	if err != nil {
		return classify(fmt.Errorf("finish %q: %w", d.name, err))
	}
	return nil
}

// ErrChanged is wrapped by the errors of [Dir.Header] and [Dir.Body] when INPUTMSG is not what was written to it.
var ErrChanged = errors.New("message was changed in the working directory")

// Header returns the header of the message, in normal form and with the empty line behind it, through the descriptor
// that it was written through: a worker that replaces or removes INPUTMSG does not matter. One that has changed the
// file itself is found out.
func (d *Dir) Header() ([]byte, error) {
	if !d.finished || d.input == nil {
		return nil, fmt.Errorf("read message of %q: not finished: %w", d.name, fs.ErrInvalid)
	}
	head := bytes.NewBuffer(make([]byte, 0, d.content.head.size+bytes.MinRead))
	if _, err := head.ReadFrom(d.content.head.reader(d.input, 0)); err != nil {
		return nil, fmt.Errorf("read header of %q: %w", d.name, err)
	}
	return head.Bytes(), nil
}

// Body returns a reader of the body, as [Dir.Header] reads the header. Its last call of Read gives the error, so nothing
// of what was read may count before io.EOF has come.
func (d *Dir) Body() (io.Reader, error) {
	if !d.finished || d.input == nil {
		return nil, fmt.Errorf("read message of %q: not finished: %w", d.name, fs.ErrInvalid)
	}
	return d.content.rest.reader(d.input, d.content.head.size), nil
}

// HeaderSize returns the bytes of the header, after Finish.
func (d *Dir) HeaderSize() int64 { return d.content.head.size }

// Size returns the bytes of INPUTMSG, with LF line ends, after Finish.
func (d *Dir) Size() int64 { return d.content.head.size + d.content.rest.size }

// NewBody opens the body that a worker left in NEWBODY: a regular file, not a link. It has LF line ends, or any; the
// caller makes it canonical and closes it.
func (d *Dir) NewBody() (*os.File, error) {
	f, err := d.dir.Open(fileNewBody, os.O_RDONLY)
	if err != nil {
		return nil, classify(fmt.Errorf("open new body of %q: %w", d.name, err))
	}
	return f, nil
}

// closeFiles gives the descriptors back.
func (d *Dir) closeFiles() {
	if d.content != nil {
		d.content.release()
	}
	for _, f := range []*os.File{d.commands, d.headers, d.input} {
		if f != nil {
			_ = f.Close()
		}
	}
	d.commands, d.headers, d.input = nil, nil, nil
}

var errRemoved = errors.New("working directory is removed")
