package main

import (
	"bufio"
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
	Pattern string `help:"How logins look: dovecot, courier, cyrus, or an expression with groups named client and user." default:"dovecot" complete:"dovecot courier cyrus" env:"-"`
}

const (
	maxLogLine = 8 << 10
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
	switch {
	case f.Journal != "":
		err = followJournal(ctx, f.Journal, take)
	case f.File == "-":
		err = readLog(ctx, os.Stdin, take)
	default:
		err = followFile(ctx, f.File, take)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func takeLine(line string, take func(record)) {
	if r, ok := parseRecord(strings.TrimRight(line, "\r\n")); ok {
		take(r)
	}
}

// readLog reads lines to the end. One that is too long is none.
func readLog(ctx context.Context, in io.Reader, take func(record)) error {
	r := bufio.NewReaderSize(in, maxLogLine)
	for ctx.Err() == nil {
		line, err := readLine(r, maxLogLine)
		switch {
		case errors.Is(err, errLongLine):
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		default:
			takeLine(line, take)
		}
	}
	return nil
}

// followFile reads what is written to a log from now on. A file that takes its place, or that becomes shorter, is read
// from its beginning.
func followFile(ctx context.Context, path string, take func(record)) error {
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
	var lines tailLines
	for {
		// Whether another file is there is asked first: what was written to this one before that is read all the same.
		other := replaced(path, f)
		if err := lines.read(f, take); err != nil {
			return err
		}
		if other {
			next, err := os.Open(path)
			if err == nil {
				f.Close()
				f, lines = next, tailLines{}
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

// tailLines makes lines of what is read of a file that grows.
type tailLines struct {
	rest []byte // a line whose end has not come
	skip bool   // it is too long, and is not looked at
}

func (t *tailLines) read(f *os.File, take func(record)) error {
	piece := make([]byte, 64<<10)
	for {
		n, err := f.Read(piece)
		for _, c := range piece[:n] {
			switch {
			case c != '\n' && len(t.rest) >= maxLogLine:
				t.skip = true
			case c != '\n':
				t.rest = append(t.rest, c)
			default:
				if !t.skip {
					takeLine(string(t.rest), take)
				}
				t.rest, t.skip = t.rest[:0], false
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// followJournal has journalctl read the journal, again when it ends.
func followJournal(ctx context.Context, unit string, take func(record)) error {
	for ctx.Err() == nil {
		cmd := exec.CommandContext(ctx, "journalctl", "--unit="+unit, "--follow", "--lines=0", "--output=json",
			"--output-fields=SYSLOG_IDENTIFIER,MESSAGE", "--quiet")
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			return err
		}
		for lines := bufio.NewScanner(out); lines.Scan(); {
			takeEntry(lines.Bytes(), take)
		}
		_ = cmd.Wait()
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

// takeEntry takes an entry of the journal. A text that is not UTF-8 is a list of numbers there, and no login.
func takeEntry(entry []byte, take func(record)) {
	var e struct {
		Message    json.RawMessage `json:"MESSAGE"`
		Identifier string          `json:"SYSLOG_IDENTIFIER"`
	}
	var text string
	if json.Unmarshal(entry, &e) == nil && json.Unmarshal(e.Message, &text) == nil {
		take(record{e.Identifier, text})
	}
}
