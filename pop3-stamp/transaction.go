package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"time"
)

// renewAfter is the part of its life after which a stamp is renewed: most sessions are shorter.
const renewAfter = 100

// shape is what a command takes and what kind of reply it gets.
type shape struct {
	args     [][]uint64 // least values of the numbers it takes, for each way to give them
	lines    bool       // the reply has more lines
	listOnly bool       // it has more lines only without an argument
}

// shapes are the commands of a client that is logged in. RFC 1939, 5 and 7; LAST is of RFC 1460.
var shapes = map[string]shape{
	"STAT": {args: [][]uint64{{}}},
	"LAST": {args: [][]uint64{{}}},
	"NOOP": {args: [][]uint64{{}}},
	"RSET": {args: [][]uint64{{}}},
	"DELE": {args: [][]uint64{{1}}},
	"RETR": {args: [][]uint64{{1}}, lines: true},
	"TOP":  {args: [][]uint64{{1, 0}}, lines: true},
	"LIST": {args: [][]uint64{{}, {1}}, lines: true, listOnly: true},
	"UIDL": {args: [][]uint64{{}, {1}}, lines: true, listOnly: true},
}

// canonical reads the numbers of a command and gives the line to be sent to the upstream server.
func (h shape) canonical(c command) (line string, args int, ok bool) {
	var words []string
	if c.arg != "" {
		words = strings.Split(strings.TrimRight(c.arg, " "), " ")
	}
	for _, least := range h.args {
		if len(least) != len(words) {
			continue
		}
		line = c.verb
		for i, w := range words {
			n, ok := number(w, least[i])
			if !ok {
				return "", 0, false
			}
			line += " " + n
		}
		return line, len(words), true
	}
	return "", 0, false
}

// transaction carries out a command of a client that is logged in.
func (s *session) transaction(ctx context.Context, line string) {
	c := parseCommand(line)
	h, known := shapes[c.verb]
	switch {
	case c.verb == "QUIT":
		s.doQuit(ctx)
		return
	case c.verb == "CAPA":
		s.doCapa(ctx, c.arg)
		return
	case c.verb == "LANG":
		s.doLang(ctx, c.arg)
		return
	case c.verb == "UTF8":
		s.mistake("too late") // RFC 6856, 2
		return
	case !known && s.conf.UnknownCommands == unknownPass:
		s.join(ctx, line)
		return
	case !known:
		s.unknown()
		return
	}
	text, args, ok := h.canonical(c)
	if !ok {
		s.mistake("malformed arguments")
		return
	}
	_ = s.stat.Update(text)
	if h.lines && !(h.listOnly && args > 0) {
		s.passLines(text)
		return
	}
	a, err := s.server.ask(text)
	if err != nil {
		s.broken(err)
		return
	}
	s.reply(c.verb, a)
}

// reply passes on a reply of one line.
func (s *session) reply(verb string, a answer) {
	text := a.text
	// These are read by programs, so they get their numbers and nothing else.
	if want := map[string]int{"STAT": 2, "LAST": 1}[verb]; want > 0 && a.ok {
		words := strings.Fields(text)
		for i := range want {
			if len(words) < want {
				s.broken(errProtocol)
				return
			}
			if _, ok := number(words[i], 0); !ok && !longNumber(words[i]) {
				s.broken(errProtocol)
				return
			}
		}
		text = strings.Join(words[:want], " ")
	}
	status := "-ERR "
	if a.ok {
		status = "+OK "
	}
	s.say("%s", strings.TrimSpace(status+text))
}

// longNumber tells whether s is a number too: mailboxes may have more than 4 GiB.
func longNumber(s string) bool { return len(s) <= 20 && s != "" && strings.Trim(s, "0123456789") == "" }

// passLines sends a command whose reply has more lines and passes these on as they come.
func (s *session) passLines(line string) {
	a, err := s.server.askMore(line)
	if err != nil {
		s.broken(err)
		return
	}
	s.reply("", a)
	if !a.ok {
		if !s.loggedIn {
			s.errors++
		}
		if s.server.buffered() > 0 {
			s.broken(errProtocol)
		}
		return
	}
	n, err := s.server.copyLines(clientWriter{s})
	s.sent += n
	if errors.Is(err, errClient) {
		s.end(clientLeft, "")
	} else if err != nil {
		// The client must not take half a message for a whole one, so nothing is said.
		s.srv.meters.upstreamFault()
		s.log(slog.LevelError, "message not passed on", "line", line, "error", err)
		s.end("broken off within a message", "")
	}
}

// clientWriter puts what is for the client into its buffer.
type clientWriter struct{ *session }

func (w clientWriter) Write(p []byte) (int, error) { return w.writer().Write(p) }

func (w clientWriter) Flush() error {
	if !w.flush() {
		return net.ErrClosed
	}
	return nil
}

// broken ends a session whose server has failed.
func (s *session) broken(err error) {
	if errors.Is(err, errClient) {
		s.end(clientLeft, "")
		return
	}
	s.srv.meters.upstreamFault()
	s.log(slog.LevelError, "upstream server failed", "server", s.server.name, "error", err)
	reason := "upstream server failed"
	if errors.Is(err, errProtocol) {
		reason = "protocol error of the upstream server"
	}
	s.end(reason, "-ERR [SYS/TEMP] mail server failed")
}

// doQuit renews the stamp when the server has confirmed the end of the session, unless somebody has revoked it.
func (s *session) doQuit(ctx context.Context) {
	_ = s.stat.Update("QUIT")
	a, err := s.server.ask("QUIT")
	if err != nil {
		s.broken(err)
		return
	}
	if a.ok {
		s.renew(ctx)
	}
	s.reply("QUIT", a)
	s.end(whyQuit, "")
}

// renew renews the stamp of a client whose session has ended well. One that was written a moment ago is as good.
func (s *session) renew(ctx context.Context) {
	addr := s.client.Addr()
	// Another client of the address may have removed it meanwhile, if that is what connections do.
	recent := s.srv.conf.StampOnConnect == "keep" && time.Since(s.loginAt) < s.srv.conf.ClientipMaxage/renewAfter
	if !s.stamped || !recent && !s.srv.revoked(ctx, addr, s.loginAt) {
		_ = s.srv.touch(ctx, addr, s.user, s.server.name)
	}
}
