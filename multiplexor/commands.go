package main

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"postern/multiplexor/pool"
)

// Texts of the multiplexor's own. Clients compare them.
const (
	textTooLong    = "error: Command too long\n"
	textPrivileged = "error: Attempt to use privileged command on unprivileged socket\n"
	textUnfinished = "error: Command not ended by a newline\n"
	textTick       = "error: External agents may not invoke 'tick'\n"
	textUnknown    = "error: Unknown command\n"
	textReread     = "Forced reread of filter rules\n"
	textBadNumber  = "error: Invalid worker number\n"
	textNoWorker   = "error: Worker number out of range\n"
	textBadBack    = "error: Invalid 'back' amount (must be 10-600)\n"
)

// builtin makes the reply to a request that needs no worker.
type builtin struct {
	privileged bool
	help       string
	reply      func(s *server, d *endpoint, b []byte) []byte
}

// prefixed are those with an argument.
var prefixed = []struct {
	verb  string
	reply func(s *server, b []byte, arg string) []byte
}{
	{"load1 ", func(s *server, b []byte, arg string) []byte {
		n, ok := leadingInt(arg)
		if !ok || n < 10 || n > pool.MaxLoadSeconds {
			return append(b, textBadBack...)
		}
		return s.pool.AppendLoad1(b, n, s.uptime())
	}},
	{"workerinfo ", appendWorkerInfo},
	{"slaveinfo ", appendWorkerInfo},
}

// makeBuiltins returns the table of requests found by the whole line, exactly.
func makeBuiltins() map[string]builtin {
	m := map[string]builtin{
		"help":    {help: "List the commands of this socket", reply: (*server).appendHelp},
		"free":    {help: "Number of workers that could take a request", reply: func(s *server, _ *endpoint, b []byte) []byte { return fmt.Appendf(b, "%d\n", s.pool.Free()) }},
		"version": {help: "Version, without a newline", reply: func(s *server, _ *endpoint, b []byte) []byte { return append(b, s.name...) }},
		"tick":    {reply: func(_ *server, _ *endpoint, b []byte) []byte { return append(b, textTick...) }},
		"status":  {help: "State of all workers in one line", reply: func(s *server, _ *endpoint, b []byte) []byte { return s.pool.AppendStatus(b, s.uptime()) }},
		"msgs":    {help: "Number of scans finished", reply: func(s *server, _ *endpoint, b []byte) []byte { return fmt.Appendf(b, "%d\n", s.pool.Scanned()) }},
		"histo":   {help: "How often so many workers were busy", reply: func(s *server, _ *endpoint, b []byte) []byte { return s.pool.AppendHistogram(b) }},
		"reread": {privileged: true, help: "Make all workers load the filter rules again", reply: func(s *server, _ *endpoint, b []byte) []byte {
			s.reread()
			return append(b, textReread...)
		}},
		"foo_no_such_command": {reply: func(_ *server, _ *endpoint, b []byte) []byte { return append(b, textUnknown...) }},
	}
	m["autoscale"] = builtin{privileged: true, help: "State of autoscaling", reply: func(s *server, _ *endpoint, b []byte) []byte { return s.pool.AppendAutoscale(b) }}
	all := builtin{help: "A line for each worker", reply: func(s *server, _ *endpoint, b []byte) []byte { return s.pool.AppendWorkers(b, false) }}
	onlyBusy := builtin{help: "A line for each busy worker", reply: func(s *server, _ *endpoint, b []byte) []byte { return s.pool.AppendWorkers(b, true) }}
	m["workers"], m["busyworkers"] = all, onlyBusy
	all.help, onlyBusy.help = "", ""
	m["slaves"], m["busyslaves"] = all, onlyBusy
	loads := map[string]pool.Kind{"": pool.KindScan, "-relayok": pool.KindRelayok, "-senderok": pool.KindSenderok, "-recipok": pool.KindRecipok}
	for suffix, k := range loads {
		name := k.Label()
		m["load"+suffix] = builtin{help: "Load by " + name + " in the last ten minutes", reply: func(s *server, _ *endpoint, b []byte) []byte { return s.pool.AppendLoad(b, k, s.uptime()) }}
		m["hload"+suffix] = builtin{help: "Load by " + name + " in the last day", reply: func(s *server, _ *endpoint, b []byte) []byte { return s.pool.AppendHours(b, k) }}
	}
	return m
}

// healthCommand tells what the original's status does not: how many workers have shown
// that they work, what is wrong, and what has become of the last reread.
var healthCommand = builtin{help: "Workers that work, what is wrong, the last reread", reply: func(s *server, _ *endpoint, b []byte) []byte {
	return s.pool.AppendHealth(b)
}}

// argumentHelp is the help for commands that are not in the table.
var argumentHelp = []struct {
	command, text string
	privileged    bool
}{
	{"load1 N", "Load in the last N seconds", false},
	{"workerinfo N", "All about worker N", false},
	{"scan QID DIR", "Run the filter on a message", true},
}

// helpOrder is the order in which help lists the table.
var helpOrder = []string{"help", "free", "health", "version", "status", "workers", "busyworkers", "load", "load-relayok", "load-senderok", "load-recipok",
	"hload", "hload-relayok", "hload-senderok", "hload-recipok", "histo", "msgs", "reread", "autoscale"}

// command answers a built-in request or hands the line on.
func (c *client) command(line []byte) {
	s := c.server
	if b, ok := s.commands[string(line)]; ok && !(b.privileged && c.endpoint.restricted) {
		c.builtin(b.reply(s, c.endpoint, s.scratch[:0]))
		return
	}
	for _, p := range prefixed {
		if len(line) > len(p.verb) && bytes.HasPrefix(line, []byte(p.verb)) {
			c.builtin(p.reply(s, s.scratch[:0], string(line[len(p.verb):])))
			return
		}
	}
	if c.endpoint.restricted {
		c.reply([]byte(textPrivileged))
		return
	}
	if !c.empty(line) {
		c.dispatch(line)
	}
}

// builtin sends a reply made in the server's scratch buffer.
func (c *client) builtin(b []byte) {
	c.server.scratch = b
	c.reply(b)
}

func (s *server) uptime() time.Duration { return time.Since(s.began) }

func (s *server) appendHelp(d *endpoint, b []byte) []byte {
	for _, name := range helpOrder {
		if entry := s.commands[name]; entry.help != "" && !(entry.privileged && d.restricted) {
			b = fmt.Appendf(b, "%-17s-- %s\n", name, entry.help)
		}
	}
	for _, h := range argumentHelp {
		if !(h.privileged && d.restricted) {
			b = fmt.Appendf(b, "%-17s-- %s\n", h.command, h.text)
		}
	}
	return append(b, "(Any other command is for a worker)\n"...)
}

func appendWorkerInfo(s *server, b []byte, arg string) []byte {
	n, ok := leadingInt(arg)
	if !ok {
		return append(b, textBadNumber...)
	}
	if info, ok := s.pool.AppendWorkerInfo(b, n, s.usage); ok {
		return info
	}
	return append(b, textNoWorker...)
}

// leadingInt reads the decimal integer that s begins with, after white space, as the
// original reads its numbers: "10abc" is 10. One that does not fit into 32 bits is
// the largest or smallest that does, where the original takes its lowest bits for
// the number.
func leadingInt(s string) (int, bool) {
	s = strings.TrimLeft(s, " \t\n\v\f\r")
	end := 0
	for end < len(s) && ('0' <= s[end] && s[end] <= '9' || end == 0 && (s[0] == '-' || s[0] == '+')) {
		end++
	}
	n, err := strconv.ParseInt(s[:end], 10, 32) // of what is out of range it gives the nearest
	return int(n), err == nil || errors.Is(err, strconv.ErrRange)
}
