package main

import (
	"bufio"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"

	"postern/internal/mxproto"
	"postern/internal/percent"
)

// maxLine bounds a line that -i reads, LF included. No multiplexor takes a
// longer one.
const maxLine = 1 << 17

// outcome is what the user sees of a reply.
type outcome struct {
	text   string
	failed bool
	stderr bool // text belongs on standard error, unless with -i
}

// command is a line as the user gave it, made into a request and a way to show
// the reply.
type command struct {
	request string
	show    func(reply string) outcome
}

// requestLine makes words into a line: each percent-encoded, one space between.
func requestLine(words []string) string { return percent.Join(words...) }

// exact holds the commands that are something else than their own name, or
// whose reply is shown in another form. They have no arguments.
var exact = map[string]command{
	"status":     {mxproto.VerbStatus, showStatus},
	"barstatus":  {mxproto.VerbStatus, showBar},
	"jsonstatus": {mxproto.VerbStatus, showJSONStatus},
	"rawstatus":  {mxproto.VerbStatus, showRaw},
	"reread":     {mxproto.VerbReread, showRaw},
	"msgs":       {"msgs", showRaw},

	"load":          {"load", tableOf(minutes, messages)},
	"load-relayok":  {"load-relayok", tableOf(minutes, connections)},
	"load-senderok": {"load-senderok", tableOf(minutes, senders)},
	"load-recipok":  {"load-recipok", tableOf(minutes, recipients)},

	"hload":          {"hload", tableOf(hours, messages)},
	"hload-relayok":  {"hload-relayok", tableOf(hours, connections)},
	"hload-senderok": {"hload-senderok", tableOf(hours, senders)},
	"hload-recipok":  {"hload-recipok", tableOf(hours, recipients)},

	"rawload":          {"load", showRaw},
	"rawload-relayok":  {"load-relayok", showRaw},
	"rawload-senderok": {"load-senderok", showRaw},
	"rawload-recipok":  {"load-recipok", showRaw},

	"rawhload":          {"hload", showRaw},
	"rawhload-relayok":  {"hload-relayok", showRaw},
	"rawhload-senderok": {"hload-senderok", showRaw},
	"rawhload-recipok":  {"hload-recipok", showRaw},
}

// passed are commands that a multiplexor knows by the names they have here, and those with an argument.
var passed = []string{"load1", "rawload1", "jsonload1", "free", "health", "version", "help", "workers", "busyworkers", "workerinfo", "histo", "top"}

// allCommands are those of commandsHelp.
func allCommands() []string {
	return slices.Sorted(slices.Values(slices.AppendSeq(slices.Clone(passed), maps.Keys(exact))))
}

// interpret finds the command in a line. A line that is none of ours goes to the
// multiplexor as it is, and most of those on to a worker.
func interpret(line string) command {
	if c, ok := exact[line]; ok {
		return c
	}
	for _, c := range []struct {
		prefix string
		show   func(string) outcome
	}{{"", showLoad1}, {"raw", showRaw}, {"json", showJSONLoad1}} {
		if strings.HasPrefix(line, c.prefix+"load1 ") {
			return command{line[len(c.prefix):], c.show}
		}
	}
	return command{line, showDecoded}
}

// mayBeEmpty reports whether no bytes at all are an answer: that no worker is busy.
func (c command) mayBeEmpty() bool {
	return c.request == "busyworkers" || c.request == "busyslaves"
}

// showRaw shows a reply as it came.
func showRaw(reply string) outcome { return outcome{text: wholeLine(reply)} }

// showDecoded shows a reply percent-decoded.
func showDecoded(reply string) outcome {
	return outcome{text: wholeLine(untilNUL(percent.Decode(reply)))}
}

// wholeLine adds the LF that a reply lacks. Nothing stays nothing.
func wholeLine(s string) string {
	if s == "" || strings.HasSuffix(s, "\n") {
		return s
	}
	return s + "\n"
}

// untilNUL cuts a text where md-mx-ctrl, a C program, sees its end.
func untilNUL(s string) string {
	s, _, _ = strings.Cut(s, "\x00")
	return s
}

// notUnderstood is the outcome for a reply that should have been numbers. The
// reply has its own LF.
func notUnderstood(reply string) outcome {
	return outcome{text: "Could not interpret response: " + reply, failed: true}
}

var errLineTooLong = errors.New("line of standard input too long")

// interactive asks each line of standard input, as it is, and writes everything
// to standard output. The status is exitError if any of it failed, which only
// the program's own name makes of it.
func (t *tool) interactive() int {
	in := bufio.NewReaderSize(t.in, maxLine)
	status := exitOK
	for {
		line, err := readLine(in)
		if err != nil && !errors.Is(err, errLineTooLong) {
			if err != io.EOF {
				io.WriteString(t.out, errorLine(err))
				status = exitError
			}
			return status
		}
		o := outcome{text: "", failed: true}
		if err == nil {
			o = t.ask(line)
		} else {
			o.text = errorLine(err)
		}
		if o.failed {
			status = exitError
		}
		// One write for each reply: who reads them through a pipe waits for this one
		// before asking again.
		if _, err := io.WriteString(t.out, o.text); err != nil {
			return exitError
		}
	}
}

// readLine reads a line without its LF. A last line that lacks the LF counts. Of
// a line that is too long the rest is read and dropped.
func readLine(r *bufio.Reader) (string, error) {
	b, err := r.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		for err == bufio.ErrBufferFull {
			_, err = r.ReadSlice('\n')
		}
		return "", errLineTooLong
	}
	line, whole := strings.CutSuffix(string(b), "\n")
	if err == io.EOF && line != "" {
		return line, nil
	}
	if !whole {
		return "", err
	}
	return line, nil
}
