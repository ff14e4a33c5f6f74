package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"postern/internal/logging"
	"postern/internal/printable"
	"postern/smtp-proxy/digest"
)

// DigestCommand is the command line of log.
type DigestCommand struct {
	Files  []string `arg:"" name:"file" optional:"" placeholder:"FILE" help:"Files with the log. Default: standard input."`
	Rows   uint16   `name:"rows" default:"10" placeholder:"N" help:"Most rows of a table, and of messages in a list."`
	Format string   `name:"format" enum:"table,json" default:"table" help:"table, or json with one object."`
}

// digestNone is the exit status of log if no line tells of mail, or a file cannot be read.
const digestNone = 1

// maxLogLine bounds a line that is read, in bytes. journalctl adds some kB to ours.
const maxLogLine = 64 << 10

// digest sums up a log.
func (p *program) digest(stdout, stderr io.Writer) int {
	c := &p.settings.Digest
	d := digest.New(int(c.Rows))
	err := c.read(func(l logging.Line) {
		if l.Program == "" || l.Program == programName || l.Program == p.settings.SyslogTag {
			d.Add(l)
		}
	})
	if c.Format == "json" {
		e := json.NewEncoder(printable.JSONWriter(stdout))
		e.SetIndent("", "  ")
		err = errors.Join(err, e.Encode(d))
	} else {
		err = errors.Join(err, d.Print(stdout))
	}
	if err != nil {
		fmt.Fprintf(stderr, "%s: error: %v\n", programName, err)
		return digestNone
	}
	if d.Lines == 0 {
		return digestNone
	}
	return 0
}

// read gives all lines, of those files that can be read.
func (c *DigestCommand) read(add func(logging.Line)) error {
	if len(c.Files) == 0 {
		return readLog(os.Stdin, add)
	}
	var errs []error
	for _, name := range c.Files {
		f, err := os.Open(name)
		if err == nil {
			err = readLog(f, add)
			_ = f.Close()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// readLog gives the lines of one log, without those that are too long to be ours.
func readLog(r io.Reader, add func(logging.Line)) error {
	now, lines, tail := time.Now(), bufio.NewReaderSize(r, maxLogLine), false
	for {
		line, more, err := lines.ReadLine()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if !more && !tail {
			add(logging.ParseLine(string(line), now))
		}
		tail = more
	}
}
