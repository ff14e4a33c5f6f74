package workdir

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"postern/internal/percent"
	"postern/internal/safedir"
)

// Snapshot is the files of a working directory whose message is complete, open to be read: they can be copied when the
// directory is no more. Files that are not regular are not there. It has five descriptors at most.
type Snapshot struct {
	files [len(snapshotFiles)]*os.File // nil: not there
}

// snapshotFiles are the files that are copied. All else in a working directory is the worker's own.
var snapshotFiles = [...]string{fileCommands, fileHeaders, fileInput, fileResults, fileNewBody}

// Where they are in a Snapshot.
const (
	snapCommands = iota
	snapHeaders
	snapInput
	snapResults
	snapNewBody
)

// maxCommands bounds what is read of COMMANDS, in bytes: the client's envelope is in there.
const maxCommands = 16 << 20

// Snapshot opens the files, after Finish. Close must follow.
func (d *Dir) Snapshot() (*Snapshot, error) {
	if !d.finished || d.removed {
		return nil, fmt.Errorf("open files of %q: not finished: %w", d.name, fs.ErrInvalid)
	}
	return snapshot(d.dir)
}

// OpenSnapshot opens the files of a directory that was kept, or of another one of the kind.
func OpenSnapshot(dir string) (*Snapshot, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	opened, err := safedir.OpenDir(root)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	s, err := snapshot(opened)
	if err != nil {
		return nil, err
	}
	if !s.complete() {
		s.Close()
		return nil, fmt.Errorf("%s of %q does not end with %c: its message is not complete", fileCommands, dir, CommandEnd)
	}
	return s, nil
}

func snapshot(dir *safedir.Dir) (*Snapshot, error) {
	s := &Snapshot{}
	for i, name := range snapshotFiles {
		f, err := dir.Open(name, os.O_RDONLY)
		missing := errors.Is(err, fs.ErrNotExist) || errors.Is(err, safedir.ErrNotRegular)
		if err != nil && !(missing && i >= snapResults) {
			s.Close()
			return nil, classify(fmt.Errorf("open files of a working directory: %w", err))
		}
		if err == nil {
			s.files[i] = f
		}
	}
	return s, nil
}

// Close closes the files.
func (s *Snapshot) Close() {
	for _, f := range s.files {
		if f != nil {
			_ = f.Close()
		}
	}
}

// Size returns the bytes of all files.
func (s *Snapshot) Size() (n int64) {
	for i := range s.files {
		n += s.size(i)
	}
	return n
}

func (s *Snapshot) size(i int) int64 {
	if s.files[i] == nil {
		return 0
	}
	info, err := s.files[i].Stat()
	if err != nil {
		return 0
	}
	return info.Size()
}

// reader reads one of the files from its beginning, as far as it goes now.
func (s *Snapshot) reader(i int) io.Reader { return io.NewSectionReader(s.files[i], 0, s.size(i)) }

// commands calls do for each line of COMMANDS, as far as these are read.
func (s *Snapshot) commands(do func(letter byte, text string)) {
	data, err := io.ReadAll(io.LimitReader(s.reader(snapCommands), maxCommands))
	if err != nil {
		return
	}
	for line := range bytes.Lines(data) {
		do(line[0], string(bytes.TrimSuffix(line[1:], []byte{'\n'})))
	}
}

// complete reports whether COMMANDS ends as it should.
func (s *Snapshot) complete() (ok bool) {
	s.commands(func(letter byte, _ string) { ok = letter == CommandEnd })
	return ok
}

// QueueID returns the queue id that COMMANDS has, or "".
func (s *Snapshot) QueueID() (id string) {
	s.commands(func(letter byte, text string) {
		if letter == CommandQueueID {
			id = percent.Decode(text)
		}
	})
	if checkQueueID(id) != nil {
		return ""
	}
	return id
}

// Results reads RESULTS as [Dir.Results] does.
func (s *Snapshot) Results() (*Results, error) {
	if s.files[snapResults] == nil {
		return nil, fmt.Errorf("read RESULTS: %w: %w", fs.ErrNotExist, ErrResults)
	}
	data, err := io.ReadAll(io.LimitReader(s.reader(snapResults), maxResults+1))
	if err != nil {
		return nil, fmt.Errorf("read RESULTS: %w", err)
	}
	return ParseResults(data)
}

// NewBody returns a reader of NEWBODY; nil if there is none.
func (s *Snapshot) NewBody() io.Reader {
	if s.files[snapNewBody] == nil {
		return nil
	}
	return s.reader(snapNewBody)
}

// copyTo copies one of the files, if it is there.
func (s *Snapshot) copyTo(w io.Writer, i int) error {
	if s.files[i] == nil {
		return nil
	}
	_, err := io.Copy(w, s.reader(i))
	return err
}

// deadlineLine begins the line of COMMANDS that says when the front end stops waiting for the scan, in seconds since 1970.
const deadlineLine = string(CommandMacro) + MacroDeadline + " "

// commandsUntil returns COMMANDS with another deadline, if it has one.
func (s *Snapshot) commandsUntil(deadline time.Time) (b []byte) {
	s.commands(func(letter byte, text string) {
		line := string(letter) + text
		if strings.HasPrefix(line, deadlineLine) {
			line = deadlineLine + strconv.FormatInt(deadline.Unix(), 10)
		}
		b = append(append(b, line...), '\n')
	})
	return b
}

// Copy makes a working directory with copies of COMMANDS, HEADERS and INPUTMSG, to be scanned until the deadline. Of the methods of the
// directory Path, Abandon, Results, NewBody, Snapshot and Remove may be called; Remove must be.
func (s *Spool) Copy(qid string, from *Snapshot, deadline time.Time) (_ *Dir, err error) {
	d, err := s.Create(qid)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = classify(fmt.Errorf("copy working directory %q: %w", qid, err))
			_ = d.Remove()
		}
	}()
	if err := d.command(from.commandsUntil(deadline)); err != nil {
		return nil, err
	}
	err = from.copyTo(d.headers, snapHeaders)
	if err := errors.Join(err, d.headers.Close()); err != nil {
		return nil, err
	}
	d.headers = nil
	if d.input, err = d.dir.Create(fileInput, d.fileMode); err != nil {
		return nil, err
	}
	if err := from.copyTo(d.input, snapInput); err != nil {
		return nil, err
	}
	d.finished = true
	return d, nil
}
