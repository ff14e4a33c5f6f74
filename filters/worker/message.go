package worker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"postern/internal/percent"
	"postern/internal/safedir"
	"postern/internal/workdir"
)

// Message is a message to be judged. If a Scan callback does nothing to it, it is delivered as it is.
type Message struct {
	Envelope
	Changes
	Dir string // working directory

	root    *os.Root
	ctx     context.Context
	server  *server
	verdict string // line of RESULTS
	newBody bool
}

// scan answers a scan request. RESULTS gets its lines in one write at the end, so that a worker that is killed leaves
// no half of them behind.
func (s *server) scan(dir string) (err error) {
	root, err := os.OpenRoot(dir)
	if err != nil || dir == "" {
		return fmt.Errorf("Cannot chdir(%s): %s", dir, cause(err)) //lint:ignore ST1005 the text of mimedefang.pl
	}
	defer root.Close()
	s.begin("Reading COMMANDS", "")
	e, err := readEnvelope(root)
	s.end("no_tag", "")
	if err != nil {
		return err
	}
	// A directory is scanned once; Work is also where filters may unpack things.
	if err := root.Mkdir("Work", 0o750); err != nil {
		return fmt.Errorf("Cannot mkdir(Work): %s", cause(err)) //lint:ignore ST1005 the text of mimedefang.pl
	}
	ctx, cancel := withDeadline(e.Deadline)
	defer cancel()
	m := &Message{Envelope: *e, Dir: dir, root: root, ctx: ctx, server: s}
	if s.Scan != nil {
		s.begin("In filter", m.ID)
		err = s.Scan(m)
		s.end("no_tag", m.ID)
	}
	if err == nil {
		err = m.Err()
	}
	if err != nil {
		return err
	}
	lines := m.lines
	if m.newBody {
		lines = append(lines, workdir.ResultNewBody, '\n')
	}
	return appendResults(root, append(append(lines, m.verdict...), workdir.ResultEnd, '\n'))
}

// cause is the reason alone of a failed system call, which is what mimedefang.pl tells.
func cause(err error) string {
	var p *fs.PathError
	switch {
	case err == nil:
		return "no such file or directory"
	case errors.As(err, &p):
		return p.Err.Error()
	}
	return err.Error()
}

// withDeadline makes a context that ends at a time, unless that is zero.
func withDeadline(t time.Time) (context.Context, context.CancelFunc) {
	if t.IsZero() {
		return context.WithCancel(context.Background())
	}
	return context.WithDeadline(context.Background(), t)
}

// Context ends with the call of Scan, or when the front end gives up waiting for its answer: see [Envelope.Deadline].
// What takes its time is given it.
func (m *Message) Context() context.Context { return m.ctx }

// Input opens the message as it was received, with LF line ends. The caller closes it.
func (m *Message) Input() (*os.File, error) {
	f, err := safedir.OpenFile(m.root, "INPUTMSG", os.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("open INPUTMSG: %w", err)
	}
	return f, nil
}

// Root is the working directory. A filter may make files of its own below Work.
func (m *Message) Root() *os.Root { return m.root }

// Status shows on the multiplexor's status what the worker is doing.
func (m *Message) Status(text string) {
	m.server.begin(text, m.ID)
	m.server.depth--
}

// Reject refuses the message for good. Empty code and dsn are 554 and 5.7.1. The first of Reject, TempFail and
// Discard counts.
func (m *Message) Reject(text, code, dsn string) {
	m.judge(workdir.ResultReject, '5', "554", "5.7.1", text, code, dsn)
}

// TempFail refuses the message for now. Empty code and dsn are 451 and 4.3.0.
func (m *Message) TempFail(text, code, dsn string) {
	m.judge(workdir.ResultTempFail, '4', "451", "4.3.0", text, code, dsn)
}

// Discard accepts the message and throws it away.
func (m *Message) Discard() {
	if m.verdict == "" {
		m.verdict = string(workdir.ResultDiscard) + "\n"
	}
}

// Refused reports whether Reject, TempFail or Discard was called.
func (m *Message) Refused() bool { return m.verdict != "" }

func (m *Message) judge(letter, class byte, defaultCode, defaultDSN, text, code, dsn string) {
	if m.verdict != "" {
		return
	}
	if len(code) != 3 || code[0] != class || !digits(code) {
		code = defaultCode
	}
	if !validDSN(dsn, class) {
		dsn = defaultDSN
	}
	if len(text) > maxText/3 {
		text = text[:maxText/3]
	}
	m.verdict = string(letter) + percent.Join(code, dsn, text) + "\n"
}

// SetContentType changes the message's Content-Type field, and gives it a MIME-Version field if it has none.
func (m *Message) SetContentType(value string) { m.add(workdir.ResultContentType, value) }

// ReplaceBody makes what r gives the body of the message. Lines end in LF. It can be called once.
func (m *Message) ReplaceBody(r io.Reader) error {
	if err := writeNew(m.root, "NEWBODY", r); err != nil {
		err = fmt.Errorf("write NEWBODY: %w", err)
		m.fail(err)
		return err
	}
	m.newBody = true
	return nil
}

// DeleteAllHeaders deletes every occurrence of the field name.
func (m *Message) DeleteAllHeaders(name string) {
	n, err := m.CountHeaders(name)
	if err != nil {
		m.fail(err)
		return
	}
	// From the last one up, so that the numbers of the others do not change.
	for ; n > 0; n-- {
		m.DeleteHeader(name, n)
	}
}

// CountHeaders counts the fields called name, in any case of letters.
func (m *Message) CountHeaders(name string) (int, error) {
	n := 0
	err := m.eachHeader(name, func([]byte, bool) { n++ })
	return n, err
}

// HeaderValues returns the values of the fields called name, in any case of letters, without their folds.
func (m *Message) HeaderValues(name string) ([]string, error) {
	var values []string
	err := m.eachHeader(name, func(piece []byte, more bool) {
		if more {
			values[len(values)-1] += string(piece)
		} else {
			values = append(values, string(piece))
		}
	})
	for i, v := range values {
		values[i] = strings.Trim(v, " \t\r\n")
	}
	return values, err
}

// eachHeader has f see the value of each field called name. A long one comes in pieces, all but the first with more.
func (m *Message) eachHeader(name string, f func(piece []byte, more bool)) error {
	file, err := safedir.OpenFile(m.root, "HEADERS", os.O_RDONLY)
	if err != nil {
		return fmt.Errorf("open HEADERS: %w", err)
	}
	defer file.Close()
	r := bufio.NewReader(file)
	for start, is := true, false; ; {
		piece, err := r.ReadSlice('\n')
		if start {
			is = len(piece) > len(name) && piece[len(name)] == ':' && strings.EqualFold(string(piece[:len(name)]), name)
		}
		switch {
		case is && start:
			f(piece[len(name)+1:], false)
		case is:
			f(piece, true)
		}
		start = err == nil
		if err != nil && err != bufio.ErrBufferFull {
			if err == io.EOF {
				err = nil
			}
			return err
		}
	}
}
