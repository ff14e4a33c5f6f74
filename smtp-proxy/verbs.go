package main

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"postern/internal/smtp"
	"postern/smtp-proxy/filter"
	"postern/smtp-proxy/gate"
)

// command is how a verb is carried out. When it may come is in the first lines of its method.
type command struct {
	do      func(s *session, arg string) outcome
	inClear bool // also from a client that has to begin TLS first
	public  bool // what comes behind it is no line of an AUTH that failed: the log may have it
}

// commands are the verbs that are known. In clear is what a client who has to begin TLS may use, RFC 3207, 4,
// or what comes to nothing without others: BDAT takes its octets off the line.
var commands = map[string]command{
	smtp.Ehlo:     {do: (*session).doEhlo, inClear: true, public: true},
	smtp.Helo:     {do: (*session).doHelo, inClear: true, public: true},
	smtp.Mail:     {do: (*session).doMail, public: true},
	smtp.Rcpt:     {do: (*session).doRcpt, public: true},
	smtp.Data:     {do: (*session).doData, public: true},
	smtp.Bdat:     {do: (*session).doBdat, inClear: true, public: true},
	smtp.Rset:     {do: (*session).doRset, inClear: true, public: true},
	smtp.Noop:     {do: always(junk(reply(250, "2.0.0", "Ok"))), inClear: true, public: true},
	smtp.Quit:     {do: (*session).doQuit, inClear: true, public: true},
	smtp.StartTLS: {do: (*session).doStartTLS, inClear: true, public: true},
	smtp.Auth:     {do: (*session).doAuth},
	smtp.XClient:  {do: (*session).doXClient, public: true},
	smtp.XForward: {do: (*session).doXForward},
	// RFC 5321, 7.3: nobody learns here who exists.
	smtp.Vrfy: {do: always(junk(reply(252, "2.5.0", "Cannot verify, but will take a message and try"))), public: true},
	smtp.Help: {do: always(junk(reply(214, "2.0.0", "See RFC 5321"))), inClear: true, public: true},
	smtp.Expn: {do: notImplemented, public: true},
	"SEND":    {do: notImplemented},
	"SOML":    {do: notImplemented},
	"SAML":    {do: notImplemented},
	"TURN":    {do: notImplemented},
	"ETRN":    {do: notImplemented},
	"ATRN":    {do: notImplemented},
	"BURL":    {do: notImplemented},
	// A browser was led here (RFC 9110, RFC 9113), or a load balancer that is not in proxy-from.
	"GET":     {do: foreign},
	"POST":    {do: foreign},
	"PUT":     {do: foreign},
	"HEAD":    {do: foreign},
	"CONNECT": {do: foreign},
	"OPTIONS": {do: foreign},
	"DELETE":  {do: foreign},
	"TRACE":   {do: foreign},
	"PATCH":   {do: foreign},
	"PRI":     {do: foreign},
	"PROXY":   {do: foreign},
}

// always is a verb that has one reply.
func always(o outcome) func(*session, string) outcome {
	return func(*session, string) outcome { return o }
}

var (
	notImplemented = always(failed(reply(502, "5.5.1", "Command not implemented")))
	foreign        = always(closed(gateForeign, notSMTP))
)

// notSMTP is the reply to what speaks another protocol.
var notSMTP = reply(554, "5.5.1", "This is a mail server")

// do carries out one command.
func (s *session) do(cmd smtp.Command) outcome {
	c, known := commands[cmd.Verb]
	switch {
	case s.mustSecure() && !c.inClear:
		return failed(reply(530, "5.7.0", "Must issue a STARTTLS command first"))
	case s.closing.state == stateBarred && cmd.Verb != smtp.Quit:
		o := failed(reply(503, "5.5.1", "Only QUIT is left"))
		o.last = cmd.Verb == smtp.Bdat // its octets would be commands
		return o
	case !known:
		return failed(reply(500, "5.5.1", "Command not recognized"))
	}
	return c.do(s, cmd.Arg)
}

// malformed answers a line that is no command.
func malformed(text []byte, err error) outcome {
	switch {
	case len(text) > 0 && !startsWithLetter(text):
		return closed(gateForeign, notSMTP) // not even a word, such as a TLS ClientHello
	case errors.Is(err, smtp.ErrControlByte) && strings.ContainsRune(string(text), '\r'):
		return failed(reply(500, "5.5.2", "Bare <CR> in command"))
	case errors.Is(err, smtp.ErrControlByte):
		return failed(reply(501, "5.5.2", "Control byte in command"))
	}
	return failed(reply(500, "5.5.2", "Command not recognized"))
}

func startsWithLetter(text []byte) bool {
	return 'a' <= text[0]|0x20 && text[0]|0x20 <= 'z'
}

func (s *session) doEhlo(arg string) outcome { return s.hello(smtp.Ehlo, arg) }
func (s *session) doHelo(arg string) outcome { return s.hello(smtp.Helo, arg) }

// hello is HELO and EHLO: RFC 5321, 4.1.1.1. Either ends a transaction.
func (s *session) hello(verb, arg string) outcome {
	if arg == "" {
		return failed(reply(501, "5.5.4", "Syntax: "+verb+" hostname"))
	}
	if !smtp.IsHelo(arg) {
		return failed(reply(501, "5.5.4", "Name is malformed"))
	}
	s.settle()
	s.dropTransaction()
	s.status(verb + " " + arg)
	if r := s.askHelook(arg); r != nil {
		return deferred(*r)
	}
	again := s.client.helo != ""
	s.client.greet(verb, arg)
	r := reply(250, "", s.conf.host)
	if s.client.esmtp {
		r = smtp.Reply{Code: 250, Lines: s.greeting()}
	}
	if again {
		return junk(r)
	}
	return done(r)
}

// doMail is MAIL FROM: RFC 5321, 4.1.1.2. The next hop is not troubled before the first recipient.
func (s *session) doMail(arg string) outcome {
	switch {
	case s.client.helo == "":
		return failed(reply(503, "5.5.1", "Say HELO or EHLO first"))
	case s.tx != nil:
		return failed(reply(503, "5.5.1", "Sender was given already"))
	case s.conf.MaxTransactions > 0 && s.messages >= s.conf.MaxTransactions:
		return closed(gateMany, reply(421, "4.7.0", "Too many messages in one session"))
	}
	rest, ok := smtp.CutKeyword(arg, "FROM:")
	if !ok {
		return failed(reply(501, "5.5.4", "Syntax: MAIL FROM:<address>"))
	}
	path, rest, err := smtp.ParsePath(rest, s.conf.check())
	if err != nil {
		return failed(reply(501, "5.1.7", "Sender: "+err.Error()))
	}
	tx, r := s.newTransaction(path, rest)
	if r != nil {
		return failed(*r)
	}
	s.status("MAIL " + path.String())
	if r := s.maySend(tx); r != nil {
		tx.remove(s.srv)
		s.logRefused(tx, r.Gate, "", r.Reply)
		o := deferred(r.Reply)
		if r.Gate != gateFilter { // which was counted when it was asked
			o.gate = r.Gate
		}
		return o
	}
	s.tx = tx
	s.relay.begin(tx)
	return pending
}

// doRcpt is RCPT TO: RFC 5321, 4.1.1.3.
func (s *session) doRcpt(arg string) outcome {
	switch {
	case s.tx == nil:
		return failed(reply(503, "5.5.1", "Give a sender first"))
	case s.tx.chunks != nil:
		return failed(reply(503, "5.5.1", "Content has begun"))
	}
	rest, ok := smtp.CutKeyword(arg, "TO:")
	if !ok {
		return failed(reply(501, "5.5.4", "Syntax: RCPT TO:<address>"))
	}
	path, rest, err := smtp.ParsePath(rest, s.conf.check())
	if err == nil && path.Null() {
		err = errors.New("address is empty")
	}
	if err != nil {
		return failed(reply(501, "5.1.3", "Recipient: "+err.Error()))
	}
	if path.UTF8 && !s.tx.utf8 {
		return failed(reply(553, "5.6.7", "Address needs SMTPUTF8"))
	}
	params, r := s.rcptParams(rest)
	if r != nil {
		return failed(*r)
	}
	switch s.tx.tried++; {
	case s.tx.tried > 2*s.conf.MaxRecipients:
		return failed(tooManyRecipients) // nobody has so many by chance
	case s.tx.tried > s.conf.MaxRecipients:
		return done(tooManyRecipients)
	}
	s.status("RCPT " + path.String())
	return s.recipient(filter.Recipient{Path: path, Params: params})
}

var tooManyRecipients = reply(452, "4.5.3", "Too many recipients")

// recipient puts an address that is well-formed through the gates and to the next hop.
func (s *session) recipient(rcpt filter.Recipient) outcome {
	tx := s.tx
	if s.limits.guesses(len(tx.accepted)) {
		return s.refuseRecipient(gateRefusals, rcpt, reply(452, "4.5.3", "Too many recipients were refused"))
	}
	if r := s.mayRelay(rcpt.Path); r != nil {
		return s.refuseRecipient(r.Gate, rcpt, r.Reply)
	}
	if tx.first == "" {
		tx.first = rcpt.Path.String()
	}
	if r := s.askRecipok(rcpt); r != nil {
		s.logRefused(tx, gateFilter, rcpt.Path.Address, *r)
		return refused(*r)
	}
	if tx.discard {
		tx.accepted = append(tx.accepted, rcpt)
		return done(reply(250, "2.1.5", "Ok"))
	}
	return s.sendRecipient(rcpt)
}

// refuseRecipient refuses a recipient for a gate, or, without one, for the next hop.
func (s *session) refuseRecipient(gate string, rcpt filter.Recipient, r smtp.Reply) outcome {
	s.logRefused(s.tx, gate, rcpt.Path.Address, r)
	o := refused(r)
	o.gate = gate
	return o
}

// maySend decides whether the client may send as the sender of a transaction; nil means yes.
func (s *session) maySend(tx *transaction) *gate.Refusal {
	if r := s.srv.gates.Sender(s.background(), s.client.forGates(), tx.from); r != nil {
		return r
	}
	if r := s.askSenderok(tx); r != nil {
		return &gate.Refusal{Gate: gateFilter, Reply: *r}
	}
	return nil
}

// mayRelay decides whether mail for a recipient is taken from the client; a nil reply means yes.
func (s *session) mayRelay(to smtp.Path) *gate.Refusal {
	return s.srv.gates.Relay(s.background(), s.client.forGates(), s.tx.from, to)
}

// doRset is RSET: RFC 5321, 4.1.1.5.
func (s *session) doRset(arg string) outcome {
	if arg != "" {
		return failed(reply(501, "5.5.4", "Syntax: RSET"))
	}
	s.settle()
	s.dropTransaction()
	return junk(reply(250, "2.0.0", "Ok"))
}

// doQuit is QUIT: RFC 5321, 4.1.1.10.
func (s *session) doQuit(string) outcome {
	s.status("QUIT")
	return done(reply(221, "2.0.0", s.conf.host+" closing connection")).closing()
}

// greeting returns the lines of the reply to EHLO: what both we and the next hop can do.
func (s *session) greeting() []string {
	lines := []string{s.conf.host, "PIPELINING"}
	caps, err := s.capabilities()
	if err != nil {
		// The server is down, which is its senders' affair when they name a recipient.
		s.srv.log.Warn("next hop is not known yet", "session", s.id, "client", s.client.addr.Addr().String(), "error", err)
	}
	lines = append(lines, sizeLine(s.conf.sizeLimit(caps.Size)))
	for _, word := range []struct {
		has  bool
		text string
	}{
		{caps.EightBitMIME, "8BITMIME"},
		{caps.SMTPUTF8, "SMTPUTF8"},
		{caps.DSN, "DSN"},
		{true, "ENHANCEDSTATUSCODES"},
		{true, "CHUNKING"},
		{s.canStartTLS(), "STARTTLS"},
		{s.mayXClient(), "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"},
		{s.mayXForward(), "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE"},
	} {
		if word.has {
			lines = append(lines, word.text)
		}
	}
	mechs := s.authMechanisms(caps)
	if mechs != "" {
		lines = append(lines, "AUTH "+mechs)
	}
	most := s.conf.MaxRecipients
	if caps.RcptMax > 0 {
		most = min(most, caps.RcptMax) // such as 1 with lmtp:
	}
	limits := "LIMITS RCPTMAX=" + strconv.Itoa(most) // RFC 9422
	if s.conf.MaxTransactions > 0 {
		limits += " MAILMAX=" + strconv.Itoa(s.conf.MaxTransactions)
	}
	s.client.offered = extensions{eight: caps.EightBitMIME, utf8: caps.SMTPUTF8, dsn: caps.DSN, auth: mechs != ""}
	return append(lines, limits)
}

func sizeLine(limit int64) string {
	if limit == 0 {
		return "SIZE"
	}
	return "SIZE " + strconv.FormatInt(limit, 10)
}

// background is the context of questions asked for a session.
func (s *session) background() context.Context { return s.srv.ctx }
