package main

import (
	"log/slog"
	"time"

	"postern/internal/smtp"
	"postern/smtp-proxy/filter"
	"postern/smtp-proxy/upstream"
)

// What a session does with its relay.

// capabilities returns what the next hop can do.
func (s *session) capabilities() (upstream.Capabilities, error) {
	if s.relay.hop != nil {
		return s.relay.hop.Capabilities(), nil
	}
	return s.srv.ups.Capabilities(s.background())
}

// dial connects to the next hop for the client.
func (s *session) dial() (nextHop, error) { return s.dialTo(s.srv.ups) }

// dialTo connects to one of a set of servers for the client.
func (s *session) dialTo(servers *upstream.Set) (nextHop, error) {
	began := time.Now()
	up, err := servers.Get(s.background(), s.client.upstream(s.conf.limitExemptNets))
	if err != nil {
		return nil, err // not a nil *Conn in an interface
	}
	s.srv.metrics.phases.Since(phaseConnect, began)
	return up, nil
}

// endContent ends the content for the next hop, and returns its reply.
func (s *session) endContent(next *relay) smtp.Reply {
	began := time.Now()
	reply := next.endContent()
	s.srv.metrics.replied(next.tx.server, began)
	return reply
}

// lost notes that a next hop failed, and returns what the client is told, with the session's id: the cause
// is in the log under it. Without an error it was noted before.
func (s *session) lost(act string, hop nextHop, err error) smtp.Reply {
	if err != nil {
		s.upstreamFault(act, hop, err)
	}
	r := upstream.ReplyFor(err)
	if r.Code == 421 {
		s.closing.begin("")
		return s.conf.named(r)
	}
	if r.Code/100 != 4 || len(r.Lines) != 1 {
		return r
	}
	return reply(r.Code, r.Enhanced, r.Lines[0]+" ("+s.id+")")
}

// upstreamFault logs the cause that the client is not told. hop is nil if there was no connection.
func (s *session) upstreamFault(act string, hop nextHop, err error) {
	s.srv.metrics.upstreamFault()
	s.limits.wasted = true
	attrs := []any{"act", act, "error", err}
	if hop != nil {
		attrs = append(attrs, "server", hop.Server())
	}
	s.note(slog.LevelWarn, "next hop failed", attrs...)
}

// note logs what happened between the proxy and the next hop.
func (s *session) note(level slog.Level, what string, attrs ...any) {
	all := []any{"session", s.id, "client", s.client.addr.Addr().String()}
	if s.tx != nil {
		all = append(all, "qid", s.tx.qid)
	}
	s.srv.log.Log(s.srv.ctx, level, what, append(all, attrs...)...)
}

// loggedOut ends a session whose client was logged in on a connection that is lost: without it it cannot go on.
func (s *session) loggedOut() {
	s.client.logOut()
	s.closing.begin("")
}

// forgetLogin closes the connection that the client is logged in on: the session goes on as if it had just
// begun.
func (s *session) forgetLogin() {
	s.relay.letGo(forgotten)
	if s.client.authed {
		s.client.logOut()
	}
}

// accept takes a recipient that the next hop took. The filter must hear of it, or the recipient is refused
// for now: a message must not reach somebody the filter does not know about.
func (s *session) accept(rcpt filter.Recipient) *smtp.Reply {
	if s.tx.filtered != nil {
		if err := s.tx.filtered.Took(rcpt); err != nil {
			return s.contentRefusal(err)
		}
	}
	s.tx.accepted = append(s.tx.accepted, rcpt)
	return nil
}

// tell gives the client the reply to one of its commands; verdict says that the next hop has decided.
func (s *session) tell(r smtp.Reply, to string, verdict bool) {
	s.put(r)
	if verdict && !r.Positive() {
		s.logRefused(s.tx, "", to, r)
		s.addRefusal(r)
	}
}

// settle collects the replies that the client waits for. A transaction whose MAIL turned out to be
// refused is over behind it.
func (s *session) settle() {
	s.relay.collect()
	if s.relay.void {
		s.dropTransaction()
	}
}

// sendRecipient asks the next hop for a recipient, and for the sender first if that was not done yet.
// The replies are read by settle.
func (s *session) sendRecipient(rcpt filter.Recipient) outcome {
	tx, r := s.tx, &s.relay
	switch {
	case r.broken != nil:
		return s.refusedBefore()
	case r.refused != nil:
		return s.refuseRecipient("", rcpt, *r.refused)
	}
	if no := r.resume(); no != nil {
		r.broken = no
		return done(*no)
	}
	noticed := tx.notify
	tx.notify = noticed || wantsNotice(rcpt)
	err := r.connect()
	if err == nil {
		err = tx.lacking(r.hop.Capabilities())
	}
	if err != nil {
		tx.notify = noticed
		return done(s.lost("connect", r.hop, err))
	}
	if len(r.queue) >= maxPending || !r.pipelining() {
		s.settle()
		if s.tx != tx {
			return failedBefore
		}
		if r.broken != nil {
			return s.refusedBefore()
		}
	}
	if !r.asked {
		r.sendMail()
		if !r.pipelining() {
			s.settle()
			return s.sendRecipient(rcpt)
		}
	}
	r.sendRecipient(rcpt)
	return pending
}

// failedBefore is the outcome of a recipient of a transaction whose MAIL was refused after all.
var failedBefore = done(reply(503, "5.5.1", "Give a sender first"))

// refusedBefore is the outcome of a recipient of a transaction whose next hop was lost.
func (s *session) refusedBefore() outcome {
	s.limits.wasted = true
	return done(*s.relay.broken)
}
