package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"

	"postern/internal/smtp"
	"postern/smtp-proxy/filter"
	"postern/smtp-proxy/gate"
)

// ExplainCommand is the command line of explain.
type ExplainCommand struct {
	Client   string   `name:"client" required:"" placeholder:"ADDRESS" help:"Address of the client."`
	Helo     string   `name:"helo" default:"client.invalid" placeholder:"NAME" help:"What it says in EHLO."`
	From     string   `name:"from" default:"<>" placeholder:"ADDRESS" help:"Sender."`
	To       []string `name:"to" sep:"none" placeholder:"ADDRESS" help:"Recipient. May be given several times."`
	Ask      bool     `name:"ask-upstream" help:"Ask the next hops, too, whether they would take the recipients from this client. Nothing is sent."`
	Listener string   `name:"listener" enum:"smtp,submission,smtps" default:"smtp" help:"Listener that it connects to: smtp, submission or smtps."`
}

// Exit statuses of explain.
const (
	explainOpen    = 0  // all gates are open
	explainRefused = 1  // one is shut for good
	explainLater   = 75 // one is shut for now
	explainError   = 78
)

// explain asks each gate what it makes of a client, prints the answers, and sends nothing anywhere but
// questions: to filter and stamp store, and to the next hop if that is wanted.
func (p *program) explain(stdout, stderr io.Writer) int {
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	srv, err := newServer(context.Background(), &p.settings, nil, log)
	if err != nil {
		fmt.Fprintf(stderr, "%s: error: %v\n", programName, err)
		return explainError
	}
	defer srv.close()
	e, err := newExplanation(srv, &p.settings.Explain, stdout)
	if err != nil {
		fmt.Fprintf(stderr, "%s: error: %v\n", programName, err)
		return explainError
	}
	defer e.s.leave()
	e.connect()
	e.envelope(p.settings.Explain.From, p.settings.Explain.To)
	if p.settings.Explain.Ask {
		behind, err := p.settings.UpstreamFiles.Load()
		if err != nil {
			fmt.Fprintf(stderr, "%s: error: %v\n", programName, err)
			return explainError
		}
		e.askUpstream(behind, p.settings.Explain.From, p.settings.Explain.To)
	}
	return e.status
}

// explanation walks through the gates.
type explanation struct {
	s      *session
	out    io.Writer
	status int
}

func newExplanation(srv *server, c *ExplainCommand, out io.Writer) (*explanation, error) {
	addr, err := netip.ParseAddr(c.Client)
	if err != nil {
		return nil, fmt.Errorf("client: %q is no address", c.Client)
	}
	if !smtp.IsHelo(c.Helo) {
		return nil, fmt.Errorf("helo: %q is malformed", c.Helo)
	}
	nowhere, other := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, other) }()
	s := srv.newSession(nowhere, c.Listener, netip.AddrPortFrom(addr.Unmap().WithZone(""), 0), netip.AddrPort{})
	s.id = "explain"
	s.client.greet(smtp.Ehlo, c.Helo)
	return &explanation{s: s, out: out}, nil
}

// say prints the verdict of one gate; nil is an open one.
func (e *explanation) say(gate string, r *smtp.Reply) {
	if r == nil {
		fmt.Fprintf(e.out, "%-14s open\n", gate)
		return
	}
	fmt.Fprintf(e.out, "%-14s shut   %s\n", gate, r.String())
	switch {
	case e.status == explainRefused:
	case r.Temporary():
		e.status = explainLater
	default:
		e.status = explainRefused
	}
}

func (e *explanation) note(gate, text string) { fmt.Fprintf(e.out, "%-14s %s\n", gate, text) }

// connect asks the gates of a new session.
func (e *explanation) connect() {
	s := e.s
	e.note(gate.NameSessions, "known to the running proxy only")
	if s.conf.proxyNets.Has(s.client.addr.Addr()) {
		e.note(gateProxy, "a PROXY header is wanted")
	}
	if s.srv.gates.Limits.Refusals.Limited() {
		e.say(gate.NameRefusals, s.srv.gates.Limits.Banned(s.background(), s.client.addr.Addr()))
	}
	s.srv.gates.Each(s.background(), s.client.forGates(), e.say)
	if f := s.filtering(); f == nil {
		e.note(gateFilter, "none")
		return
	}
	e.say("relayok", s.askRelayok())
	e.say("helook", s.askHelook(s.client.helo))
}

// envelope asks about sender and recipients.
func (e *explanation) envelope(from string, to []string) {
	s := e.s
	path, err := explainAddress(from, s.conf.check())
	if err != nil {
		e.say("sender", refusalOf(501, "5.1.7", "Sender: "+err.Error()))
		return
	}
	tx, r := s.newTransaction(path, "")
	if r != nil {
		e.say("sender", r)
		return
	}
	defer func() { tx.remove(s.srv) }()
	if no := s.maySend(tx); no != nil {
		e.say("sender", &no.Reply)
		return
	}
	e.say("sender", nil)
	s.tx = tx
	for _, address := range to {
		of, r := e.recipient(address)
		e.say("recipient", r)
		e.note("", address+": "+of)
	}
	s.tx = nil
}

// recipient gives the verdict about a recipient, and which gate it is of.
func (e *explanation) recipient(address string) (of string, r *smtp.Reply) {
	s := e.s
	path, err := explainAddress(address, s.conf.check())
	if err == nil && path.Null() {
		err = errors.New("address is empty")
	}
	if err != nil {
		return "address", refusalOf(501, "5.1.3", "Recipient: "+err.Error())
	}
	if r := s.mayRelay(path); r != nil {
		why := r.Gate
		if gate.NamesPlace(path.Local()) {
			why += ", as the local part names another place, which is not in local-domains"
		}
		return why, &r.Reply
	}
	if s.tx.first == "" {
		s.tx.first = path.String()
	}
	r = s.askRecipok(filter.Recipient{Path: path})
	switch {
	case s.filtering() == nil:
		return "no gate", r
	case r == nil:
		return "all gates", nil
	}
	return "recipok", r
}

// explainAddress takes an address with or without brackets.
func explainAddress(s string, check smtp.AddressCheck) (smtp.Path, error) {
	if !strings.HasPrefix(s, "<") {
		s = "<" + s + ">"
	}
	path, rest, err := smtp.ParsePath(s, check)
	if err == nil && rest != "" {
		err = errors.New("has something behind it")
	}
	return path, err
}
