package worker

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"postern/internal/percent"
	"postern/internal/safedir"
	"postern/internal/workdir"
)

// maxLine is how long a line of RESULTS may be without its LF, and maxResults the file, in bytes.
const (
	maxLine    = 16382
	maxResults = 65535
)

// Changes are changes to a message that a filter asks for. They are made, in order, if the message is accepted. A
// change that cannot be written down makes the whole request fail: see [Changes.Err].
type Changes struct {
	lines []byte
	err   error
}

// Err returns the first thing that went wrong with a change.
func (c *Changes) Err() error { return c.err }

func (c *Changes) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// add writes down a line of RESULTS: a letter and its words.
func (c *Changes) add(letter byte, words ...string) {
	line := make([]byte, 0, 80)
	line = append(line, letter)
	for i, w := range words {
		if i > 0 {
			line = append(line, ' ')
		}
		line = percent.Append(line, w, percent.Request)
	}
	if len(line) > maxLine {
		c.fail(fmt.Errorf("change %c: %d bytes in one line, more than %d", letter, len(line), maxLine))
		return
	}
	if len(c.lines)+len(line) >= maxResults {
		c.fail(fmt.Errorf("more than %d bytes of changes", maxResults))
		return
	}
	c.lines = append(append(c.lines, line...), '\n')
}

// field is add for changes of header fields.
func (c *Changes) field(letter byte, name string, words ...string) {
	// RFC 5322, 2.2
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' }) {
		c.fail(fmt.Errorf("change %c: invalid field name %q", letter, name))
		return
	}
	c.add(letter, append([]string{name}, words...)...)
}

// AddHeader adds a field at the end of the header. A LF in the value begins a new line of the field.
func (c *Changes) AddHeader(name, value string) { c.field(workdir.ResultAddField, name, value) }

// InsertHeader inserts a field; 0 is the top, also above the receiving server's own Received field.
func (c *Changes) InsertHeader(name, value string, index int) {
	c.field(workdir.ResultInsertField, name, strconv.Itoa(index), value)
}

// ChangeHeader changes the occurrence of the field name that index says, counted from 1. If there are fewer, the field
// is added; an empty value deletes it.
func (c *Changes) ChangeHeader(name, value string, index int) {
	c.field(workdir.ResultChangeField, name, strconv.Itoa(index), value)
}

// DeleteHeader deletes the occurrence of the field name that index says, counted from 1.
func (c *Changes) DeleteHeader(name string, index int) {
	c.field(workdir.ResultDeleteField, name, strconv.Itoa(index))
}

// AddRecipient, DeleteRecipient and ChangeSender change the envelope. Addresses may have angle brackets.
func (c *Changes) AddRecipient(address string) { c.address(workdir.ResultAddRecipient, address) }

// DeleteRecipient removes a recipient. A message without any is accepted, and goes nowhere.
func (c *Changes) DeleteRecipient(address string) { c.address(workdir.ResultDeleteRecipient, address) }

// ChangeSender changes the envelope sender; "<>" is the null sender.
func (c *Changes) ChangeSender(address string) { c.address(workdir.ResultChangeSender, address) }

func (c *Changes) address(letter byte, address string) {
	if address == "" {
		c.fail(fmt.Errorf("change %c: empty address", letter))
		return
	}
	c.add(letter, address)
}

// Hold asks the front end to hold the message back for an administrator.
func (c *Changes) Hold(reason string) { c.add(workdir.ResultHold, reason) }

// appendTo writes the changes behind those that are in RESULTS already.
func (c *Changes) appendTo(dir string) error {
	if c.err != nil || len(c.lines) == 0 {
		return c.err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open working directory: %w", err)
	}
	defer root.Close()
	return appendResults(root, c.lines)
}

// appendResults appends lines to RESULTS in one write.
func appendResults(root *os.Root, lines []byte) error {
	f, err := root.OpenFile("RESULTS", os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o640)
	if errors.Is(err, fs.ErrExist) {
		f, err = safedir.OpenFile(root, "RESULTS", os.O_WRONLY|os.O_APPEND)
	}
	if err != nil {
		return fmt.Errorf("open RESULTS: %w", err)
	}
	_, err = f.Write(lines)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write RESULTS: %w", err)
	}
	return nil
}

// writeNew makes the file name, which must not be there, from r.
func writeNew(root *os.Root, name string, r io.Reader) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}
