// Mx-ctrl asks a multiplexor for its state, or tells it to do something. It takes
// the place of MIMEDefang's md-mx-ctrl: under that name it takes the same command
// line and prints the same bytes. `mx-ctrl top` shows the workers live.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"postern/internal/mxproto"
)

// Exit statuses.
const (
	exitOK    = 0
	exitError = 1  // no answer, or an answer that is an error
	exitUsage = 64 // EX_USAGE of sysexits(3); 1 under the name md-mx-ctrl
)

func main() {
	os.Exit(run(os.Args, stdio{os.Stdin, os.Stdout, os.Stderr}))
}

// stdio is where a run reads and writes.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

func run(argv []string, std stdio) int {
	name, args := programName(argv)
	if name == originalName {
		return runOriginal(args, std)
	}
	return runOwn(args, std)
}

// tool is one run of the program: it knows how to ask and where answers go.
type tool struct {
	stdio
	client client
	// lenient is the original's way with replies: an error text or an empty reply is
	// no failure.
	lenient bool
}

func runOriginal(args []string, std stdio) int {
	o, err := getopt(args)
	t := &tool{std, client{dial: dialPath(o.socket)}, true}
	switch {
	case err != nil:
		fmt.Fprintln(t.err, err)
		t.originalUsage()
		return exitError
	case o.help:
		t.originalUsage()
		return exitOK
	case o.interactive:
		t.interactive()
		return exitOK
	case len(o.words) == 0:
		t.originalUsage()
		return exitError
	}
	return t.command(o.words)
}

func runOwn(args []string, std stdio) int {
	s, err := parse(args)
	var asked *helpAsked
	if errors.As(err, &asked) {
		io.WriteString(std.out, asked.text)
		return exitOK
	}
	if err != nil {
		fmt.Fprintf(std.err, "%s: error: %v\n%[1]s: hint: %[1]s --help lists flags and commands\n", ownName, err)
		return exitUsage
	}
	safe := stdio{std.in, terminalSafe(std.out), terminalSafe(std.err)}
	t := &tool{safe, client{dial: dialSpec(s.spec), timeout: s.Timeout}, false}
	switch {
	case s.Interactive:
		return t.interactive()
	case s.top:
		return runTop(s, t.client, std)
	case s.reread:
		t.client.timeout = 0 // for all of it
		return t.rereadWait(s.Timeout)
	}
	return t.command(s.Words)
}

// command asks what the words on the command line say.
func (t *tool) command(words []string) int {
	line := requestLine(words)
	o := t.ask(line)
	if !t.lenient {
		o = t.withHealth(line, o)
	}
	w := t.out
	if o.stderr {
		w = t.err
	}
	if _, err := io.WriteString(w, o.text); err != nil || o.failed {
		return exitError
	}
	return exitOK
}

// ask sends one line, in the form md-mx-ctrl has for it, and makes of the reply
// what the user is to see.
func (t *tool) ask(line string) outcome {
	c := interpret(line)
	reply, err := t.client.ask(context.Background(), c.request)
	if err != nil {
		return outcome{text: errorLine(err), failed: true, stderr: true}
	}
	if t.lenient {
		return c.show(untilNUL(reply))
	}
	if reply == "" && !c.mayBeEmpty() {
		return outcome{text: errorLine(mxproto.ErrNoReply), failed: true, stderr: true}
	}
	o := c.show(untilNUL(reply))
	o.failed = o.failed || mxproto.IsError(reply)
	return o
}
