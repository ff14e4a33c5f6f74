package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"postern/internal/config"
)

// following says where logins are found.
type following struct {
	File    string `help:"Log file to follow, also when it is rotated; - for standard input." placeholder:"FILE" env:"-"`
	Journal string `help:"Follow what this unit says in the journal." placeholder:"UNIT" env:"-"`
	Pattern string `help:"How logins look: dovecot, courier, cyrus, mailutils, or an expression with groups named client and user." default:"dovecot" complete:"dovecot courier cyrus mailutils" env:"-"`
}

const (
	maxLogLine = 64 << 10               // bytes
	lookAgain  = 200 * time.Millisecond // for more of a file
)

// run writes a stamp for each login in the log until the program is told to end or standard input does.
func (f *following) run(p *place, stderr io.Writer) error {
	pattern, err := parsePattern(f.Pattern)
	if err == nil && (f.File == "") == (f.Journal == "") {
		err = errors.New("follow: either --file or --journal is needed")
	}
	if err != nil {
		return &config.UsageError{Err: err}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	failing := false
	take := func(r record) {
		st, ok := pattern.find(r)
		if !ok {
			return
		}
		err := p.Touch(ctx, st.Addr, st.User, st.Server)
		if (err != nil) != failing { // once for each change
			failing = err != nil
			text := "stamps are written again"
			if failing {
				text = "error: " + err.Error()
			}
			_, _ = fmt.Fprintf(stderr, "%s: %s\n", programName, text)
		}
	}
	lines := newLogLines(stderr, func(line []byte) {
		if r, ok := f.parse(line); ok {
			take(r)
		}
	})
	switch {
	case f.Journal != "":
		err = followJournal(ctx, f.Journal, lines)
	case f.File == "-":
		ended := make(chan error, 1)
		go func() { ended <- lines.read(os.Stdin) }()
		select {
		case err = <-ended:
		case <-ctx.Done(): // the next line may be long in coming
		}
	default:
		err = followFile(ctx, f.File, lines)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// parse takes a line of what is followed apart.
func (f *following) parse(line []byte) (record, bool) {
	if f.Journal != "" {
		return parseEntry(line)
	}
	return parseRecord(strings.TrimRight(string(line), "\r"))
}

// logLines makes lines of a log that is read in pieces, and has each of them be looked at. One that is too long is
// skipped, which is said of the first.
type logLines struct {
	each   func(line []byte)
	stderr io.Writer
	piece  []byte // what is read into
	rest   []byte // a line whose end has not come
	skip   bool   // it is too long
	said   bool
}

func newLogLines(stderr io.Writer, each func(line []byte)) *logLines {
	return &logLines{each: each, stderr: stderr, piece: make([]byte, maxLogLine)}
}

// read reads to what is the end for now.
func (l *logLines) read(in io.Reader) error {
	for {
		n, err := in.Read(l.piece)
		l.take(l.piece[:n])
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (l *logLines) take(p []byte) {
	for {
		line, after, whole := bytes.Cut(p, []byte("\n"))
		if !l.skip && len(l.rest)+len(line) > maxLogLine {
			l.skip, l.rest = true, l.rest[:0]
			l.tooLong()
		}
		if !l.skip {
			l.rest = append(l.rest, line...)
		}
		if !whole {
			return
		}
		if !l.skip {
			l.each(l.rest)
		}
		l.begin()
		p = after
	}
}

// begin forgets a line whose end has not come.
func (l *logLines) begin() { l.rest, l.skip = l.rest[:0], false }

func (l *logLines) tooLong() {
	if !l.said {
		l.said = true
		_, _ = fmt.Fprintf(l.stderr, "%s: a line of more than %d bytes is skipped, as further ones will be\n", programName, maxLogLine)
	}
}

// followFile reads what is written to a log from now on. A file that takes its place, or that becomes shorter, is read
// from its beginning.
func followFile(ctx context.Context, path string, lines *logLines) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { f.Close() }()
	if _, err := f.Seek(0, io.SeekEnd); err != nil {
		return err
	}
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		// Whether another file is there is asked first: what was written to this one before that is read all the same.
		other := replaced(path, f)
		if err := lines.read(f); err != nil {
			return err
		}
		if other {
			next, err := os.Open(path)
			if err == nil {
				f.Close()
				f = next
				lines.begin()
				continue
			}
			if !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// replaced reports whether path is another file by now, or f was cut.
func replaced(path string, f *os.File) bool {
	there, err := os.Stat(path)
	if err != nil {
		return false
	}
	ours, err := f.Stat()
	if err != nil || !os.SameFile(there, ours) {
		return true
	}
	at, err := f.Seek(0, io.SeekCurrent)
	return err == nil && ours.Size() < at
}

// followJournal has journalctl read the journal, again when it ends.
func followJournal(ctx context.Context, unit string, lines *logLines) error {
	for ctx.Err() == nil {
		cmd := exec.CommandContext(ctx, "journalctl", "--unit="+unit, "--follow", "--lines=0", "--output=json",
			"--output-fields=SYSLOG_IDENTIFIER,SYSLOG_PID,_PID,MESSAGE", "--quiet")
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			return err
		}
		err = lines.read(out)
		if waited := cmd.Wait(); err == nil {
			err = waited
		}
		if err != nil && ctx.Err() == nil {
			_, _ = fmt.Fprintf(lines.stderr, "%s: journalctl: %v\n", programName, err)
		}
		lines.begin()
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

// parseEntry reads an entry of the journal. A text that is not UTF-8 is a list of numbers there, and no login.
func parseEntry(entry []byte) (record, bool) {
	var e struct {
		Message    json.RawMessage `json:"MESSAGE"`
		Identifier string          `json:"SYSLOG_IDENTIFIER"`
		Syslog     string          `json:"SYSLOG_PID"`
		PID        string          `json:"_PID"`
	}
	var text string
	if json.Unmarshal(entry, &e) != nil || json.Unmarshal(e.Message, &text) != nil {
		return record{}, false
	}
	return record{program: e.Identifier, pid: cmp.Or(e.Syslog, e.PID), text: text}, true
}
