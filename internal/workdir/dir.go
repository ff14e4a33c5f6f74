package workdir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"postern/internal/safedir"
)

// Dir is the working directory of one message. Its methods are called one after another, in the order Envelope,
// Recipient, Content, Finish, Input and Results; Remove ends it at any point.
type Dir struct {
	spool    *Spool
	parent   *os.Root
	name     string
	root     *os.Root
	fileMode fs.FileMode

	commands *os.File
	queueID  string // as last written to COMMANDS
	content  *Content
	input    *os.File // INPUTMSG, the descriptor it was written through
	size     int64
	finished bool
	removed  bool
	aside    bool
	keep     string
}

// Path returns the directory's absolute path, as it is handed to workers.
func (d *Dir) Path() string { return filepath.Join(d.spool.Dir, d.name) }

func (d *Dir) create(name string) (*os.File, error) {
	return safedir.CreateFile(d.root, name, d.fileMode)
}

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
		lines = append(lines, "?\n"...)
	}
	lines = append(lines, "F\n"...)
	if err := d.command(lines); err != nil {
		return err
	}
	d.finished = true
	d.size = c.written
	err = d.commands.Close()
	d.commands = nil
	if err != nil {
		return classify(fmt.Errorf("finish %q: %w", d.name, err))
	}
	return nil
}

// Input returns a reader of the message as it was written, through the descriptor that wrote it: a worker that
// replaces or removes INPUTMSG does not matter. Several readers may be used at once; they are valid until Remove.
func (d *Dir) Input() (io.ReadSeekCloser, error) {
	if !d.finished || d.input == nil {
		return nil, fmt.Errorf("read message of %q: not finished: %w", d.name, fs.ErrInvalid)
	}
	return reader{io.NewSectionReader(d.input, 0, d.size)}, nil
}

// Size returns the bytes of INPUTMSG, with LF line ends, after Finish.
func (d *Dir) Size() int64 { return d.size }

// reader is a section of a file that someone else closes.
type reader struct{ *io.SectionReader }

func (reader) Close() error { return nil }

// NewBody opens the body that a worker left in NEWBODY: a regular file, not a link. It has LF line ends, or any; the
// caller makes it canonical and closes it.
func (d *Dir) NewBody() (*os.File, error) {
	f, err := safedir.OpenFile(d.root, fileNewBody, os.O_RDONLY)
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
	for _, f := range []*os.File{d.commands, d.input} {
		if f != nil {
			_ = f.Close()
		}
	}
	d.commands, d.input = nil, nil
	if d.root != nil {
		_ = d.root.Close()
	}
}

var errRemoved = errors.New("working directory is removed")
