package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	capaFresh = 5 * time.Minute // how long what a server can is believed without asking again
	maxCapa   = 100             // lines of a server's list
)

// capabilities are what upstream servers say that they can, before a login, by their names. It spares them the clients
// that ask and leave. It is ready for use by its literal.
type capabilities struct {
	mu    sync.Mutex
	known map[string]capabilityList
}

// capabilityList is what a server has said to CAPA; nil lines, that it does not know the command.
type capabilityList struct {
	lines []string
	at    time.Time
}

func (c *capabilities) get(server string) (lines []string, fresh bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l, ok := c.known[server]
	return l.lines, ok && time.Since(l.at) < capaFresh
}

// put notes the list of one of the servers in the settings.
func (c *capabilities) put(server string, lines []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known = map[string]capabilityList{}
	}
	c.known[server] = capabilityList{lines, time.Now()}
}

// capabilities asks the server; nil if it does not know the command.
func (b *backend) capabilities() (lines []string, err error) {
	a, err := b.askMore("CAPA")
	if err != nil || !a.ok {
		return nil, err
	}
	lines = []string{}
	for {
		line, err := readLine(b.reader(), maxReply)
		switch {
		case errors.Is(err, errLongLine), errors.Is(err, errFlood):
			return nil, fmt.Errorf("CAPA: %w: %w", err, errProtocol)
		case err != nil:
			return nil, fmt.Errorf("CAPA: %w", err)
		case line == "." && b.buffered() > 0:
			return nil, fmt.Errorf("bytes behind CAPA: %w", errProtocol)
		case line == ".":
			return lines, nil
		case len(lines) == maxCapa:
			return nil, fmt.Errorf("CAPA of more than %d lines: %w", maxCapa, errProtocol)
		}
		lines = append(lines, replyText(line))
	}
}

// serverCan returns what the upstream server can, of which a client that has logged in gets its own list. ok is false if
// the session has ended for want of the server.
func (s *session) serverCan(ctx context.Context) (lines []string, ok bool) {
	if !s.loggedIn {
		if lines, fresh := s.listKept(); fresh {
			return lines, true
		}
		if !s.connect(ctx) {
			return nil, false
		}
	}
	lines, err := s.server.capabilities()
	if err != nil {
		s.broken(err)
		return nil, false
	}
	if !s.loggedIn {
		s.srv.capabilities.put(s.server.name, lines)
	}
	return lines, true
}

// listKept returns the list of the server that the session has, or of the first of those it may get.
func (s *session) listKept() (lines []string, fresh bool) {
	servers := s.targets()
	if s.server != nil {
		servers = []target{s.server.target}
	}
	for _, t := range servers {
		if lines, fresh = s.srv.capabilities.get(t.name); fresh {
			break
		}
	}
	return lines, fresh
}

// doCapa says what can be asked, RFC 2449, 5: what both the server and we can, and of logins what we do ourselves.
func (s *session) doCapa(ctx context.Context, arg string) {
	if arg != "" {
		s.mistake("syntax: CAPA")
		return
	}
	lines, ok := s.serverCan(ctx)
	if !ok {
		return
	}
	s.say("+OK")
	for _, line := range s.offer(lines) {
		s.say("%s", line)
	}
	s.say(".")
}

// offer makes our list of the server's.
func (s *session) offer(server []string) []string {
	ours := []string{"RESP-CODES", "AUTH-RESP-CODE", "PIPELINING"}
	if server == nil { // most servers that do not say so can
		ours = append(ours, "TOP", "UIDL")
	}
	var mechanisms []string
	for _, line := range server {
		tag, rest, _ := strings.Cut(line, " ")
		switch tag = strings.ToUpper(tag); tag {
		case "TOP", "UIDL", "EXPIRE", "LOGIN-DELAY", "UTF8", "LANG":
			ours = append(ours, line)
		case "SASL":
			mechanisms = strings.Fields(strings.ToUpper(rest))
		case "USER", "STLS", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING":
		default:
			if s.conf.UnknownCommands == unknownPass && s.loggedIn {
				ours = append(ours, line)
			}
		}
	}
	if s.loggedIn {
		return ours
	}
	if s.mayLogIn() {
		ours = append(ours, "USER")
		if list := s.conf.mechanisms(mechanisms, server != nil); len(list) > 0 {
			ours = append(ours, "SASL "+strings.Join(list, " "))
		}
	}
	if !s.tls && s.tlsHere() != nil {
		ours = append(ours, "STLS")
	}
	return ours
}

// mechanisms returns those of SASL that are offered to clients, where the server's are known.
func (s *settings) mechanisms(server []string, known bool) []string {
	if !known {
		return slices.DeleteFunc(slices.Clone(s.SASL), func(m string) bool { return m == saslAny })
	}
	return slices.DeleteFunc(slices.Clone(server), func(m string) bool { return !s.passes(m) })
}

// doUTF8 has the server speak UTF-8, RFC 6856, 2.
func (s *session) doUTF8(ctx context.Context, arg string) {
	if arg != "" {
		s.mistake("syntax: UTF8")
		return
	}
	s.early(ctx, "UTF8")
}

// doLang passes on the choice of a language for the server's texts, or lists what there is. RFC 6856, 3.
func (s *session) doLang(ctx context.Context, arg string) {
	switch {
	case arg != "" && arg != "*" && strings.Trim(strings.ToLower(arg), "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || len(arg) > 64:
		s.mistake("syntax: LANG [language]")
	case arg == "" && s.connect(ctx):
		s.passLines("LANG")
	case arg != "":
		s.early(ctx, "LANG "+arg)
	}
}

// early asks the server for what is to hold for the session. It is asked again where a login needs another connection.
func (s *session) early(ctx context.Context, line string) {
	if !s.connect(ctx) {
		return
	}
	a, err := s.server.ask(line)
	switch {
	case err != nil:
		s.broken(err)
	case !a.ok && !s.loggedIn:
		s.mistake(a.text)
	default:
		if a.ok {
			s.remember(line)
		}
		s.reply("", a)
	}
}

// remember notes what the server has agreed to, once for each command.
func (s *session) remember(line string) {
	verb, _, _ := strings.Cut(line, " ")
	s.agreed = append(slices.DeleteFunc(s.agreed, func(old string) bool { return strings.HasPrefix(old, verb) }), line)
}

// repeat asks a new connection for what was agreed on the old one. Another server may refuse that, and lets the user log in
// all the same.
func (s *session) repeat(b *backend) error {
	for _, line := range s.agreed {
		a, err := b.ask(line)
		if err != nil {
			return err
		}
		if !a.ok {
			s.log(slog.LevelInfo, "not repeated", "server", b.name, "command", line, "reply", clip(a.text))
		}
	}
	return nil
}
