package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"postern/internal/smtp"
	"postern/smtp-proxy/upstream"
)

// maxPending bounds how many commands are on their way to the server at a time: its replies must
// fit into the buffers of the connection, or both sides would wait for the other to read.
const maxPending = 50

// replyKind says where the reply to a command of the client comes from.
type replyKind uint8

const (
	replyKnown replyKind = iota // it is here
	replyMail                   // MAIL: ours, unless MAIL goes to the server before the reply is due
	replyQuiet                  // MAIL, to which the client has its reply already
	replyRcpt                   // RCPT: the server's
	replyData                   // DATA: the server's; kept for the one who asked
)

// pendingReply is a reply that the client waits for, in the order of its commands.
type pendingReply struct {
	kind  replyKind
	sent  bool // the command went to the server
	reply smtp.Reply
	rcpt  recipient
}

// lost is what the client is told when the server behind is, with the session's id: the cause is in
// the log under it.
func (s *session) lost(err error) smtp.Reply {
	r := upstream.ReplyFor(err)
	if r.Code == 421 {
		s.endSoon("")
		return s.conf.named(r)
	}
	if r.Code/100 != 4 || len(r.Lines) != 1 {
		return r
	}
	return reply(r.Code, r.Enhanced, r.Lines[0]+" ("+s.id+")")
}

// replyTimeout is how long the server may take for the reply to a command.
func (s *session) replyTimeout() time.Duration { return s.conf.UpstreamTimeout }

// capabilities gives what the server behind can do.
func (s *session) capabilities() (upstream.Capabilities, error) {
	if s.up != nil {
		return s.up.Capabilities(), nil
	}
	ctx, cancel := context.WithTimeout(s.background(), capabilitiesTimeout)
	defer cancel()
	return s.srv.ups.Capabilities(ctx)
}

// capabilitiesTimeout bounds how long a client waits at EHLO for a server that nobody has reached yet; it
// is then offered what the proxy can do by itself.
const capabilitiesTimeout = 10 * time.Second

// connect makes sure that there is a connection to the server.
func (s *session) connect() error { return s.connectBy(s.srv.ups.Get) }

func (s *session) connectBy(get func(context.Context, upstream.Client) (*upstream.Conn, error)) error {
	if s.up != nil {
		return nil
	}
	up, err := get(s.background(), s.client.upstream(s.conf.limitExemptNets))
	if err != nil {
		return err
	}
	if s.tx != nil {
		if err := s.tx.lacking(up.Capabilities()); err != nil {
			up.Release()
			return err
		}
	}
	s.up = up
	return nil
}

// releaseUpstream gives the connection back, for other sessions to use; one that is authenticated as
// our client stays with us.
func (s *session) releaseUpstream() {
	if s.up == nil {
		return
	}
	if s.client.authed {
		if err := s.resetUpstream(); err == nil {
			return
		}
		s.abandonUpstream()
		return
	}
	s.up.Release()
	s.up = nil
}

// resetUpstream ends the server's transaction on a connection that we keep.
func (s *session) resetUpstream() error {
	s.up.Command(smtp.Rset)
	if err := s.up.Flush(); err != nil {
		return err
	}
	r, err := s.up.Reply(s.conf.UpstreamTimeout)
	if err == nil && !r.Positive() { // such as the 354 that DATA, in front of it, was still to get
		err = fmt.Errorf("reply to RSET is %q", clip(r.String()))
	}
	return err
}

// abandonUpstream closes the connection: what the server has got of a message is void. A session that
// was authenticated on it cannot go on.
func (s *session) abandonUpstream() {
	if s.closeUpstream() {
		s.endSoon("")
	}
}

// closeUpstream closes the connection; it reports whether the client was logged in on it. A session that goes on is as if
// it had just begun: whoever authenticated may be somebody else.
func (s *session) closeUpstream() (login bool) {
	if s.up == nil {
		return false
	}
	s.up.Abort()
	s.up = nil
	if !s.client.authed || s.holding {
		return false
	}
	s.client.logOut()
	return true
}

// sendRecipient asks the next hop for a recipient, and for the sender first if that was not done yet.
// The replies are read by settle.
func (s *session) sendRecipient(rcpt recipient) outcome {
	tx := s.tx
	switch {
	case tx.broken != nil:
		return s.refusedBefore(tx)
	case tx.mailRefused != nil:
		return s.refuseRecipient("", rcpt, *tx.mailRefused)
	}
	if r := s.resume(tx); r != nil {
		tx.broken = r
		return done(*r)
	}
	noticed := tx.notify
	tx.notify = noticed || rcpt.wantsNotice()
	err := s.connect()
	if err == nil {
		err = tx.lacking(s.up.Capabilities())
	}
	if err != nil {
		tx.notify = noticed
		s.upstreamFault("connect", err)
		return done(s.lost(err))
	}
	if len(s.pending) >= maxPending || !s.up.Capabilities().Pipelining {
		s.settle()
		if s.tx != tx {
			return done(reply(503, "5.5.1", "Give a sender first"))
		}
		if tx.broken != nil {
			return s.refusedBefore(tx)
		}
	}
	if !tx.mailAsked {
		s.sendMail(tx)
		if !s.up.Capabilities().Pipelining {
			s.settle()
			return s.sendRecipient(rcpt)
		}
	}
	s.up.Command(s.rcptLine(rcpt))
	s.pending = append(s.pending, pendingReply{kind: replyRcpt, sent: true, rcpt: rcpt})
	return pending
}

// refusedBefore is the reply to a recipient of a transaction whose next hop was lost.
func (s *session) refusedBefore(tx *transaction) outcome {
	s.limits.wasted = true
	return done(*tx.broken)
}

// resume issues the envelope anew, as far as the client was told that it is taken, if the connection on which it was issued
// was given back while the client was idle. The server may see things otherwise now: then the message is refused for now.
func (s *session) resume(tx *transaction) *smtp.Reply {
	if tx.mailAsked || len(tx.accepted) == 0 || tx.discard {
		return nil
	}
	r := s.issue(&envelope{from: tx.from, params: tx.params, rcpts: tx.accepted, same: true})
	tx.mailAsked = r == nil
	return r
}

// sendMail puts MAIL on its way. Its reply goes to the client if that still waits for one.
func (s *session) sendMail(tx *transaction) {
	s.up.Command(s.mailLine(tx.from, tx.params))
	tx.mailAsked = true
	for i := range s.pending {
		if s.pending[i].kind == replyMail {
			s.pending[i].sent = true
			return
		}
	}
	s.pending = append(s.pending, pendingReply{kind: replyQuiet, sent: true})
}

// mailLine makes MAIL for the server: only parameters that it offers.
func (s *session) mailLine(from smtp.Path, params []smtp.Param) string {
	caps := s.up.Capabilities()
	var b strings.Builder
	b.WriteString("MAIL FROM:")
	b.WriteString(from.String())
	for _, p := range params {
		ok := false
		switch p.Key {
		case smtp.ParamSize:
			ok = caps.HasSize
		case smtp.ParamBody:
			ok = caps.EightBitMIME
		case smtp.ParamUTF8:
			ok = caps.SMTPUTF8
		case smtp.ParamRet, smtp.ParamEnvID:
			ok = caps.DSN
		case smtp.ParamAuth:
			ok = s.client.authed && !s.holding
		}
		if ok {
			b.WriteByte(' ')
			b.WriteString(p.Text)
		}
	}
	return b.String()
}

func (s *session) rcptLine(rcpt recipient) string {
	var b strings.Builder
	b.WriteString("RCPT TO:")
	b.WriteString(rcpt.path.String())
	if s.up.Capabilities().DSN {
		for _, p := range rcpt.params {
			b.WriteByte(' ')
			b.WriteString(p.Text)
		}
	}
	return b.String()
}

// settle collects the replies that the client waits for. A transaction whose MAIL turned out to be
// refused is over behind it.
func (s *session) settle() {
	s.collect()
	if s.tx != nil && s.tx.void {
		s.dropTransaction()
	}
}

// collect reads the replies to all commands that were sent on, in the order of the client's commands.
// Nothing is pending behind it. It gives the reply to DATA, if that was among them.
func (s *session) collect() (data smtp.Reply) {
	if len(s.pending) == 0 {
		return data
	}
	var lost *smtp.Reply
	for i := 0; i < len(s.pending); i++ {
		p := &s.pending[i]
		if p.sent && lost == nil {
			r, err := s.nextReply(i)
			if err != nil {
				lost = s.loseTransaction(err)
			}
			p.reply = r
		}
		if p.sent && lost != nil {
			p.reply = *lost
		}
		if p.kind == replyData {
			data = p.reply
		} else {
			s.answerPending(p)
		}
	}
	clear(s.pending)
	if s.pending = s.pending[:0]; cap(s.pending) > 8 {
		s.pending = nil
	}
	return data
}

// nextReply reads the reply to pending command i. If the connection fails before the server has said
// anything to this transaction, it is begun once more on another one: a kept connection may have been
// closed by the server in the moment we took it.
func (s *session) nextReply(i int) (smtp.Reply, error) {
	err := s.up.Flush()
	if err == nil {
		var r smtp.Reply
		if r, err = s.up.Reply(s.replyTimeout()); err == nil && r.Code != 421 {
			return r, nil
		}
		if err == nil {
			err = r.Err()
		}
	}
	kind := s.pending[i].kind
	if s.tx == nil || s.tx.retried || s.client.authed || kind != replyMail && kind != replyQuiet {
		return smtp.Reply{}, err
	}
	s.tx.retried = true
	s.srv.log.Debug("transaction begins anew on another connection", "session", s.id, "error", err)
	s.up.Abort()
	s.up = nil
	if err := s.connect(); err != nil {
		return smtp.Reply{}, err
	}
	for j := i; j < len(s.pending); j++ {
		switch p := &s.pending[j]; {
		case !p.sent:
		case p.kind == replyMail || p.kind == replyQuiet:
			s.up.Command(s.mailLine(s.tx.from, s.tx.params))
		case p.kind == replyRcpt:
			s.up.Command(s.rcptLine(p.rcpt))
		case p.kind == replyData:
			s.up.Command(smtp.Data)
		}
	}
	if err := s.up.Flush(); err != nil {
		return smtp.Reply{}, err
	}
	return s.up.Reply(s.replyTimeout())
}

// answerPending takes the reply to one command: what it means for the transaction, and the client's part.
func (s *session) answerPending(p *pendingReply) {
	tx := s.tx
	switch p.kind {
	case replyMail:
		if !p.sent {
			p.reply = reply(250, "2.1.0", "Ok")
		} else if !p.reply.Positive() && tx != nil && tx.broken == nil {
			// The client learns now that there is no transaction; what it pipelined behind MAIL gets
			// the same reply.
			refused := p.reply
			tx.mailRefused, tx.void = &refused, true
		}
	case replyQuiet:
		if !p.reply.Positive() && tx != nil {
			refused := p.reply
			tx.mailRefused = &refused
		}
		return
	case replyRcpt:
		switch {
		case tx == nil:
		case tx.mailRefused != nil:
			p.reply = *tx.mailRefused
		case p.reply.Positive():
			s.acceptRecipient(tx, p)
		}
	}
	s.put(p.reply)
	s.srv.meters.reply(p.reply.Code)
	if p.kind != replyKnown && !p.reply.Positive() {
		s.logRefused(tx, "", p.rcpt.path.Address, p.reply)
		s.addRefusal(p.reply)
	}
}

// acceptRecipient takes a recipient that the server took. The filter must hear of it, or the recipient
// is refused for now: a message must not reach somebody the filter does not know about.
func (s *session) acceptRecipient(tx *transaction, p *pendingReply) {
	if tx.dir != nil {
		if err := s.noteRecipient(tx, p.rcpt); err != nil {
			p.reply = *s.contentRefusal(err)
			tx.broken = &p.reply
			return
		}
	}
	tx.accepted = append(tx.accepted, p.rcpt)
}

// loseTransaction notes that the server was lost in a transaction.
func (s *session) loseTransaction(err error) *smtp.Reply {
	s.upstreamFault("reply", err)
	r := s.lost(err)
	if s.tx != nil {
		s.tx.broken = &r
	}
	s.abandonUpstream()
	return &r
}

// upstreamFault logs the cause that the client is not told.
func (s *session) upstreamFault(act string, err error) {
	s.srv.meters.upstreamFault()
	s.limits.wasted = true
	attrs := []any{"session", s.id, "client", s.client.addr.Addr().String(), "act", act, "error", err}
	if s.tx != nil {
		attrs = append(attrs, "qid", s.tx.qid)
	}
	s.srv.log.Warn("server behind failed", attrs...)
}
