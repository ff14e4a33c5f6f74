package main

import (
	"postern/internal/smtp"
	"postern/internal/workdir"
)

// holdField is on top of a message that is held, with the reason that the filter gave.
const holdField = "X-Postern-Hold"

// hold puts a message where those are kept that the filter wants held, as the server would get it. There is no
// queue to hold it in: without such a place the client has to come again, as letting it through is
// not what the filter wants.
func (s *session) hold(tx *transaction, m *message, env *envelope, reason string) smtp.Reply {
	log := s.srv.log.With("session", s.id, "qid", tx.qid, "reason", clip(reason))
	if s.srv.holds == nil {
		log.Warn("filter wants the message held, and hold is not set")
		return reply(451, "4.7.1", "Message is held back, try again later")
	}
	up, err := s.srv.holds.Get(s.background(), s.client.upstream(s.conf.limitExemptNets))
	if err != nil {
		return s.lost("hold", err)
	}
	// The next hop hears no more of this message; what the session has with it stays as it is.
	holder := relay{owner: s, id: s.id, timeout: s.conf.UpstreamTimeout, hop: up, tx: tx}
	m.changes = append(m.changes, workdir.Change{Letter: 'N', Name: holdField, Value: reason})
	env.same = false
	r := s.deliverBy(&holder, m, env)
	tx.held = r.Positive()
	holder.letGo(inOrder)
	return r
}
