package main

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"postern/internal/smtp"
)

// do carries out one command. The order rules of SMTP are in the first lines of the verbs' methods.
func (s *session) do(cmd smtp.Command) {
	defer s.charge()
	if s.mustSecure() && !slices.Contains(inClear, cmd.Verb) {
		s.fail(reply(530, "5.7.0", "Must issue a STARTTLS command first"))
		return
	}
	if s.barred && cmd.Verb != smtp.Quit {
		if s.fail(reply(503, "5.5.1", "Only QUIT is left")); cmd.Verb == smtp.Bdat {
			s.closing = true // its octets would be commands
		}
		return
	}
	switch cmd.Verb {
	case smtp.Ehlo, smtp.Helo:
		s.doHello(cmd)
	case smtp.Mail:
		s.doMail(cmd.Arg)
	case smtp.Rcpt:
		s.doRcpt(cmd.Arg)
	case smtp.Data:
		s.doData(cmd.Arg)
	case smtp.Bdat:
		s.doBdat(cmd.Arg)
	case smtp.Rset:
		s.doRset(cmd.Arg)
	case smtp.Noop:
		s.useless(reply(250, "2.0.0", "Ok"))
	case smtp.Quit:
		s.doQuit()
	case smtp.StartTLS:
		s.doStartTLS(cmd.Arg)
	case smtp.Auth:
		s.doAuth(cmd.Arg)
	case smtp.XClient:
		s.doXClient(cmd.Arg)
	case smtp.XForward:
		s.doXForward(cmd.Arg)
	case smtp.Vrfy:
		// RFC 5321, 7.3: nobody learns here who exists.
		s.useless(reply(252, "2.5.0", "Cannot verify, but will take a message and try"))
	case smtp.Help:
		s.useless(reply(214, "2.0.0", "See RFC 5321"))
	case smtp.Expn, "SEND", "SOML", "SAML", "TURN", "ETRN", "BURL", "ATRN":
		s.fail(reply(502, "5.5.1", "Command not implemented"))
	case "GET", "POST", "PUT", "HEAD", "CONNECT", "OPTIONS", "DELETE", "TRACE", "PATCH", "PRI", "PROXY":
		// A browser was led here (RFC 9110, RFC 9113), or a load balancer that is not in proxy-from.
		s.close(gateForeign, reply(554, "5.5.1", "This is a mail server"))
	default:
		s.fail(reply(500, "5.5.1", "Command not recognized"))
	}
}

// malformed answers a line that is no command.
func (s *session) malformed(text []byte, err error) {
	switch {
	case len(text) > 0 && !startsWithLetter(text):
		// Not even a word, such as a TLS ClientHello: whatever speaks here does not speak SMTP.
		s.close(gateForeign, reply(554, "5.5.1", "This is a mail server"))
	case errors.Is(err, smtp.ErrControlByte) && strings.ContainsRune(string(text), '\r'):
		s.fail(reply(500, "5.5.2", "Bare <CR> in command"))
	case errors.Is(err, smtp.ErrControlByte):
		s.fail(reply(501, "5.5.2", "Control byte in command"))
	default:
		s.fail(reply(500, "5.5.2", "Command not recognized"))
	}
}

func startsWithLetter(text []byte) bool {
	return 'a' <= text[0]|0x20 && text[0]|0x20 <= 'z'
}

// doHello is HELO and EHLO: RFC 5321, 4.1.1.1. Either ends a transaction.
func (s *session) doHello(cmd smtp.Command) {
	if cmd.Arg == "" {
		s.fail(reply(501, "5.5.4", "Syntax: "+cmd.Verb+" hostname"))
		return
	}
	if !smtp.IsHelo(cmd.Arg) {
		s.fail(reply(501, "5.5.4", "Name is malformed"))
		return
	}
	s.settle()
	s.dropTransaction()
	s.status(cmd.Verb + " " + cmd.Arg)
	if r := s.askHelook(cmd.Arg); r != nil {
		s.verdict(*r)
		s.refused(*r)
		s.deferred(*r)
		return
	}
	again := s.client.helo != ""
	s.client.greet(cmd.Verb, cmd.Arg)
	r := reply(250, "", s.conf.host)
	if s.client.esmtp {
		r = smtp.Reply{Code: 250, Lines: s.greeting()}
	}
	if again {
		s.useless(r)
	} else {
		s.say(r)
	}
}

// doMail is MAIL FROM: RFC 5321, 4.1.1.2. The server behind is not troubled before the first recipient.
func (s *session) doMail(arg string) {
	if s.client.helo == "" {
		s.fail(reply(503, "5.5.1", "Say HELO or EHLO first"))
		return
	}
	if s.tx != nil {
		s.fail(reply(503, "5.5.1", "Sender was given already"))
		return
	}
	if s.conf.MaxTransactions > 0 && s.messages >= s.conf.MaxTransactions {
		s.close(gateMany, reply(421, "4.7.0", "Too many messages in one session"))
		return
	}
	rest, ok := smtp.CutKeyword(arg, "FROM:")
	if !ok {
		s.fail(reply(501, "5.5.4", "Syntax: MAIL FROM:<address>"))
		return
	}
	path, rest, err := smtp.ParsePath(rest, s.conf.check())
	if err != nil {
		s.fail(reply(501, "5.1.7", "Sender: "+err.Error()))
		return
	}
	tx, r := s.newTransaction(path, rest)
	if r != nil {
		s.fail(*r)
		return
	}
	s.status("MAIL " + path.String())
	if r := s.askSenderok(tx); r != nil {
		tx.remove(s.srv)
		s.deny(tx, gateFilter, "", *r)
		s.deferred(*r)
		return
	}
	s.tx = tx
	s.pending = append(s.pending, pendingReply{kind: replyMail})
}

// doRcpt is RCPT TO: RFC 5321, 4.1.1.3.
func (s *session) doRcpt(arg string) {
	if s.tx == nil {
		s.fail(reply(503, "5.5.1", "Give a sender first"))
		return
	}
	if s.tx.chunks != nil {
		s.fail(reply(503, "5.5.1", "Content has begun"))
		return
	}
	rest, ok := smtp.CutKeyword(arg, "TO:")
	if !ok {
		s.fail(reply(501, "5.5.4", "Syntax: RCPT TO:<address>"))
		return
	}
	path, rest, err := smtp.ParsePath(rest, s.conf.check())
	if err == nil && path.Null() {
		err = errors.New("address is empty")
	}
	if err != nil {
		s.fail(reply(501, "5.1.3", "Recipient: "+err.Error()))
		return
	}
	if path.UTF8 && !s.tx.utf8 {
		s.fail(reply(553, "5.6.7", "Address needs SMTPUTF8"))
		return
	}
	params, r := s.rcptParams(rest)
	if r != nil {
		s.fail(*r)
		return
	}
	switch s.tx.tried++; {
	case s.tx.tried > 2*s.conf.MaxRecipients:
		s.fail(reply(452, "4.5.3", "Too many recipients")) // nobody has so many by chance
		return
	case s.tx.tried > s.conf.MaxRecipients:
		s.say(reply(452, "4.5.3", "Too many recipients"))
		return
	}
	s.status("RCPT " + path.String())
	s.recipient(recipient{path: path, params: params})
}

// recipient puts an address that is well-formed through the gates and to the server.
func (s *session) recipient(rcpt recipient) {
	tx := s.tx
	if s.guessed() {
		s.srv.meters.gate(gateRefusals)
		s.deny(tx, gateRefusals, rcpt.path.Address, reply(452, "4.5.3", "Too many recipients were refused"))
		return
	}
	if gate, r := s.mayRelay(rcpt.path); r != nil {
		s.srv.meters.gate(gate)
		s.deny(tx, gate, rcpt.path.Address, *r)
		return
	}
	if tx.first == "" {
		tx.first = rcpt.path.String()
	}
	if r := s.askRecipok(rcpt); r != nil {
		s.deny(tx, gateFilter, rcpt.path.Address, *r)
		return
	}
	if tx.discard {
		tx.accepted = append(tx.accepted, rcpt)
		s.say(reply(250, "2.1.5", "Ok"))
		return
	}
	s.sendRecipient(rcpt)
}

// mayRelay decides whether mail for a recipient is taken from the client; a nil reply means yes.
func (s *session) mayRelay(to smtp.Path) (gate string, r *smtp.Reply) {
	return s.srv.admission.mayRelay(s.background(), s.client.addr.Addr(), s.client.known(), to)
}

// doRset is RSET: RFC 5321, 4.1.1.5.
func (s *session) doRset(arg string) {
	if arg != "" {
		s.fail(reply(501, "5.5.4", "Syntax: RSET"))
		return
	}
	s.settle()
	s.dropTransaction()
	s.useless(reply(250, "2.0.0", "Ok"))
}

// doQuit is QUIT: RFC 5321, 4.1.1.10.
func (s *session) doQuit() {
	s.status("QUIT")
	s.say(reply(221, "2.0.0", s.conf.host+" closing connection"))
	s.closing = true
}

// greeting gives the lines of the reply to EHLO: what both we and the server behind can do.
func (s *session) greeting() []string {
	lines := []string{s.conf.host, "PIPELINING"}
	caps, err := s.capabilities()
	if err != nil {
		// The server is down, which is its senders' affair when they name a recipient.
		s.srv.log.Warn("server behind is not known yet", "session", s.id, "client", s.client.addr.Addr().String(), "error", err)
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
	if mechs := s.authMechanisms(caps); mechs != "" {
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
	s.offered = offer{eight: caps.EightBitMIME, utf8: caps.SMTPUTF8, dsn: caps.DSN, auth: s.authMechanisms(caps) != ""}
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
