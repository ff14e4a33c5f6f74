package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"postern/internal/logging"
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
const maxLogLine = 1 << 20

func (c *DigestCommand) run(stdout, stderr io.Writer) int {
	d := digest.New(int(c.Rows))
	err := c.read(d)
	if err == nil && c.Format == "json" {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		err = e.Encode(d)
	} else if err == nil {
		err = d.Print(stdout)
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

// read adds all lines.
func (c *DigestCommand) read(d *digest.Digest) error {
	if len(c.Files) == 0 {
		return addLines(d, os.Stdin)
	}
	for _, name := range c.Files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = addLines(d, f)
		_ = f.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func addLines(d *digest.Digest, r io.Reader) error {
	now := time.Now()
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLogLine)
	for lines.Scan() {
		d.Add(logging.ParseLine(lines.Text(), now))
	}
	return lines.Err()
}
