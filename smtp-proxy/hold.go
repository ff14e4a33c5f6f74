package main

import (
	"sync"
	"time"

	"postern/internal/notify"
	"postern/internal/smtp"
	"postern/smtp-proxy/filter"
	"postern/smtp-proxy/held"
)

// hold puts a message where those are kept that the filter wants held, as the server would get it. There is no
// queue to hold it in: without such a place the client has to come again, as letting it through is
// not what the filter wants.
func (s *session) hold(tx *transaction, r *filter.Result) smtp.Reply {
	log := s.srv.log.With("session", s.id, "qid", tx.qid, "reason", clip(r.Hold))
	if s.srv.holds == nil {
		log.Warn("filter wants the message held, and hold is not set")
		return reply(451, "4.7.1", "Message is held back, try again later")
	}
	place := holdOwner{s}
	up, err := place.dial()
	if err != nil {
		return s.lost("hold", nil, err)
	}
	// The next hop hears no more of this message; what the session has with it stays as it is.
	holder := relay{owner: place, id: s.id, timeout: s.conf.UpstreamTimeout, hop: up, tx: tx}
	r.Envelope.Changed = true // the holder knows none
	verdict := s.deliver(&holder, r)
	if verdict.Positive() {
		tx.held = r.Hold
		s.srv.publish(notify.LetterHeld, s.id, tx.qid, r.Hold)
	}
	holder.letGo(inOrder)
	return verdict
}

// holdOwner is the session as the owner of a relay to where messages are held: when that connection is lost, the next
// one is to the same place, and never to the next hop.
type holdOwner struct{ *session }

func (h holdOwner) dial() (nextHop, error) { return h.dialTo(h.srv.holds) }

// heldGauge knows how much is held in a Maildir.
type heldGauge struct {
	path string

	mu    sync.Mutex
	until time.Time // it is not counted again
	n     int
	bytes int64
}

// heldFresh is how long a count is good: with some hundred thousand messages it takes a second.
const heldFresh = 10 * time.Second

// count returns the number of messages and their bytes; ok is false while that cannot be known.
func (g *heldGauge) count(now time.Time) (n int, bytes int64, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Before(g.until) {
		return g.n, g.bytes, true
	}
	box, err := held.Open(g.path)
	if err == nil {
		defer box.Close()
		g.n, g.bytes, err = box.Count()
	}
	if err == nil {
		g.until = now.Add(heldFresh)
	}
	return g.n, g.bytes, err == nil
}
