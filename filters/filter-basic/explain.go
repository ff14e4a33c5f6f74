package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"postern/filters/filter-basic/scanner"
	"postern/filters/filter-basic/senderauth"
	"postern/filters/mime"
)

// exitUnread is the exit status when a file cannot be read: EX_TEMPFAIL.
const exitUnread = 75

// ExplainCommand is the command explain.
type ExplainCommand struct {
	Client string   `help:"Address of the client that the message is from: its sender is checked, as settings say." placeholder:"IP"`
	Helo   string   `help:"What the client has greeted with." placeholder:"NAME"`
	Sender string   `help:"Sender of the envelope." placeholder:"ADDRESS"`
	Files  []string `arg:"" placeholder:"FILE" help:"Messages as they are on disk or wire."`
}

// explain reads messages and prints what is seen in them, by which view, and what would happen. The exit status is 0
// if all would pass, 1 if one would not, 75 if one could not be read.
func (s *Settings) explain(out, errOut io.Writer) int {
	status := 0
	for _, file := range s.Explain.Files {
		passes, err := s.explainFile(out, file)
		switch {
		case err != nil:
			_, _ = fmt.Fprintf(errOut, "%s: error: %v\n", program, err)
			status = exitUnread
		case !passes && status == 0:
			status = 1
		}
	}
	return status
}

// explanation is what is said of one message.
type explanation struct {
	*examiner
	out io.Writer
}

func (s *Settings) explainFile(out io.Writer, file string) (passes bool, err error) {
	f, err := os.Open(file)
	if err != nil {
		return false, err
	}
	defer f.Close()
	message, done, err := load(f)
	if err != nil {
		return false, err
	}
	defer done()
	_, _ = fmt.Fprintf(out, "%s\n", file)
	e := &explanation{examiner: &examiner{Settings: s, all: true}, out: out}
	ambiguities, err := e.message(message, mime.Viewer{Part: e.part, Name: e.name, Content: e.content})
	if err != nil {
		return false, err
	}
	if len(ambiguities) > 0 {
		e.line(0, "readers differ: %s", strings.Join(ambiguities, ", "))
	}
	if !s.ends(e.findings) {
		e.sender(message)
	}
	var changes changes
	if !s.ends(e.findings) {
		changes = e.scanners(message)
	}
	if !s.ends(e.findings) {
		if err := e.fields(message, &changes); err != nil {
			return false, err
		}
	}
	return e.verdict(), nil
}

// sender finds out whom the message is from, if that is set and it is known where it came from.
func (e *explanation) sender(content []byte) {
	if !e.Authenticate {
		return
	}
	x := &e.Explain
	if x.Client == "" {
		e.line(0, "sender is not checked: no --client is given")
		return
	}
	about := &senderauth.Message{ClientIP: x.Client, Helo: x.Helo, Sender: address(x.Sender), Content: content}
	results, findings := e.identify(context.Background(), about)
	e.long("sender: " + results.String())
	e.findings = append(e.findings, findings...)
}

// fields finds out whether those that only this host may add can be removed.
func (e *explanation) fields(content []byte, c *changes) error {
	for _, name := range e.reserved() {
		c.replace(name, "", 0)
	}
	f, err := c.tooMany(func(name string) (n int, err error) {
		for range senderauth.Values(content, name) {
			n++
		}
		return n, nil
	})
	if f != nil {
		e.findings = append(e.findings, f)
	}
	return err
}

// scanners asks those that are set, and returns what they want changed.
func (e *explanation) scanners(content []byte) changes {
	var all scanned
	x := &e.Explain
	e.askScanners(context.Background(), &scanner.Message{Content: content, QueueID: "explain", ClientIP: x.Client, Helo: x.Helo, Sender: address(x.Sender)}, &all)
	for _, result := range all.results {
		e.long("scanner: " + result)
	}
	e.findings = append(e.findings, all.findings...)
	return all.changes
}

// load gives what is in a file: mapped, or of what has no size, such as a pipe, all that can be read.
func load(f *os.File) (message []byte, done func(), err error) {
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, nil, err
	case info.IsDir():
		return nil, nil, fmt.Errorf("%s is a directory; name the files of messages", f.Name())
	case info.Mode().IsRegular():
		return mapFile(f)
	}
	message, err = io.ReadAll(f)
	return message, func() {}, err
}

// line prints a line about a part; what came with the message is made fit to be printed.
func (e *explanation) line(depth int, format string, args ...any) {
	for i, a := range args {
		if text, ok := a.(string); ok {
			args[i] = show(text)
		}
	}
	_, _ = fmt.Fprintf(e.out, "%s"+format+"\n", append([]any{strings.Repeat("  ", depth+1)}, args...)...)
}

// long prints a line about the message that may be longer than those about parts.
func (e *explanation) long(text string) { _, _ = fmt.Fprintf(e.out, "  %s\n", printable(text)) }

func (e *explanation) part(p *mime.Part) error {
	types := strings.Join(p.Types, " or ")
	if p.View != "" {
		e.line(p.Depth, "part %s, seen where %s", types, p.View)
	} else {
		e.line(p.Depth, "part %s", types)
	}
	return e.examiner.part(p)
}

func (e *explanation) name(p *mime.Part, name string) error {
	if e.blockedName(name) {
		e.line(p.Depth, "  name %s: blocked", name)
	} else {
		e.line(p.Depth, "  name %s", name)
	}
	return e.examiner.name(p, name)
}

func (e *explanation) content(p *mime.Part, r io.Reader) error {
	count, before := &counter{r: r}, len(e.findings)
	err := e.examiner.content(p, count)
	e.line(p.Depth, "  content of %d bytes", count.n)
	for _, f := range e.findings[before:] {
		e.line(p.Depth, "    %s", f.text)
	}
	return err
}

// verdict prints what would happen to the message.
func (e *explanation) verdict() (passes bool) {
	passes = true
	for _, f := range e.findings {
		what := e.policy(f.kind)
		e.line(0, "%s: %s", what, f.text)
		passes = passes && delivers(what)
	}
	if passes {
		e.line(0, "passes")
	}
	return passes
}

// counter counts what is read.
type counter struct {
	r io.Reader
	n int
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}
