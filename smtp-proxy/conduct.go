package main

import (
	"time"

	"postern/internal/smtp"
)

// What is held against a client, and what that leads to.

// fail answers a command in error. After too many of them the session ends.
func (s *session) fail(r smtp.Reply) {
	s.say(r)
	s.failed()
}

func (s *session) failed() {
	s.errors++
	s.owe(s.errors, s.conf.MaxErrors)
	if s.errors >= s.conf.MaxErrors {
		s.close(gateErrors, reply(421, "4.7.0", "Too many errors"))
	}
}

// deny answers MAIL or RCPT with a refusal that is not the server's. to is the recipient, or empty.
func (s *session) deny(tx *transaction, gate, to string, r smtp.Reply) {
	s.logRefused(tx, gate, to, r)
	if s.refusals+1 >= s.conf.MaxRefusals {
		s.collect() // nothing is told behind the last refusal
	}
	s.verdict(r)
	s.refused(r)
}

// refused counts what was refused for good: a client that guesses addresses learns by it. After too many
// of them the session ends, and with it the transaction.
func (s *session) refused(r smtp.Reply) {
	if !r.Permanent() || s.silent {
		return
	}
	s.refusals++
	s.owe(s.refusals, s.conf.MaxRefusals)
	if s.refusals < s.conf.MaxRefusals || s.tx != nil && len(s.tx.accepted) > 0 {
		return
	}
	s.endRefused()
}

// guessed says whether a client may name no more recipients of its message: too many of them were refused. Those who were
// taken get the message all the same, which makes up for the others; so whoever sends to a large mailing list, of
// which some are always unknown, is done with it some day.
func (s *session) guessed() bool {
	return s.refusals >= s.conf.MaxRefusals && len(s.tx.accepted) < goodPerUnknown*s.refusals
}

// goodPerUnknown is how many recipients must be taken for one who may be refused, beyond the limit.
const goodPerUnknown = 10

// endRefused ends a session that was refused too often.
func (s *session) endRefused() {
	clear(s.pending)
	s.pending = s.pending[:0]
	farewell := reply(421, "4.7.0", "Too many refusals")
	if s.tx != nil {
		s.tx.broken = &farewell
	}
	s.close(gateRefusals, farewell)
}

// useless answers a command that moves nothing forward.
func (s *session) useless(r smtp.Reply) {
	s.say(r)
	s.junked()
}

// deferred notes a reply for now to what is asked once for each message: so the question was of no use.
func (s *session) deferred(r smtp.Reply) {
	if r.Temporary() {
		s.fruitless = true
	}
}

// charge counts a command that led to nothing, our own failures included: each of those costs us something, and a client
// that goes on all the same does not get more of them than of other junk.
func (s *session) charge() {
	if s.fruitless {
		s.fruitless = false
		s.junked()
	}
}

func (s *session) junked() {
	if s.junk++; s.junk >= s.conf.MaxJunk {
		s.close(gateJunk, reply(421, "4.7.0", "Too many commands without a message"))
	}
}

// owe makes the client wait for what it did wrong, once that is more than half of what it may.
func (s *session) owe(n, limit int) {
	s.wrong++
	if n > limit/2 {
		s.owed++
	}
}

// penance is the waiting.
func (s *session) penance() bool {
	s.settle()
	ok := s.flush()
	if d := time.Duration(min(s.owed, owedMost)) * s.conf.ErrorDelay; !s.closing && d > 0 {
		if s.mayReturn() && d >= s.conf.UpstreamIdle {
			s.returnUpstream()
		}
		s.srv.pause(d)
	}
	s.owed = 0
	return ok
}

// owedMost bounds how often the delay of an error is waited for at a time.
const owedMost = 10

// forgive takes back what was held against a client: it has delivered mail.
func (s *session) forgive() { s.errors, s.refusals, s.junk, s.owed, s.fruitless = 0, 0, 0, 0, false }
