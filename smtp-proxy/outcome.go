package main

import (
	"strconv"

	"postern/internal/notify"
	"postern/internal/smtp"
)

// outcome is what a command came to: the reply, and what that means for the client and its session.
type outcome struct {
	class class
	reply smtp.Reply
	gate  string // that refused the command, or ends the session, and is to be counted
	last  bool   // the session ends behind the reply
	over  bool   // the transaction is over
}

// class says what a command is to the client's error limits, and to the session.
type class uint8

const (
	classPending  class = iota // the reply was given, or comes from the next hop: see settle
	classDone                  // carried out
	classJunk                  // carried out, and moves nothing forward
	classError                 // in error
	classRefused               // a name, sender, recipient or message is refused, for now or for good
	classDeferred              // the same, where the question is put once for a message: if for now, it was of no use
	classAccepted              // a message was accepted
	classBarred                // the client is refused, and may say QUIT
	classClosed                // a gate ends the session with this reply
	classGone                  // the session ends without a word
)

// Outcomes, as the verbs return them.
var pending, gone = outcome{class: classPending}, outcome{class: classGone}

func done(r smtp.Reply) outcome     { return outcome{class: classDone, reply: r} }
func junk(r smtp.Reply) outcome     { return outcome{class: classJunk, reply: r} }
func failed(r smtp.Reply) outcome   { return outcome{class: classError, reply: r} }
func refused(r smtp.Reply) outcome  { return outcome{class: classRefused, reply: r} }
func deferred(r smtp.Reply) outcome { return outcome{class: classDeferred, reply: r} }

func closed(gate string, r smtp.Reply) outcome {
	return outcome{class: classClosed, gate: gate, reply: r}
}

// dropped ends the session for a gate that says nothing.
func dropped(gate string) outcome { return outcome{class: classGone, gate: gate} }

// ending makes the reply the end of the transaction.
func (o outcome) ending() outcome {
	o.over = true
	return o
}

// closing makes the reply the last of the session.
func (o outcome) closing() outcome {
	o.last = true
	return o
}

// answer gives the client the reply to a command, counts what it came to, and ends what is over: the
// transaction, or the session.
func (s *session) answer(o outcome) {
	if o.class != classClosed {
		s.gated(o.gate, o.reply.Code)
	}
	switch o.class {
	case classDone:
		s.say(o.reply)
	case classJunk:
		s.say(o.reply)
		s.addJunk()
	case classError:
		s.say(o.reply)
		if s.limits.addError() {
			s.close(gateErrors, reply(421, "4.7.0", "Too many errors"))
		}
	case classRefused, classDeferred:
		if s.limits.lastRefusal() {
			s.relay.collect() // nothing is told behind the last refusal
		}
		s.sayVerdict(o.reply)
		s.addRefusal(o.reply)
		if o.class == classDeferred && o.reply.Temporary() {
			s.limits.wasted = true
		}
	case classAccepted:
		s.sayVerdict(o.reply)
		s.forgive()
	case classBarred:
		s.say(o.reply)
		s.closing.bar()
	case classClosed:
		s.close(o.gate, o.reply)
	case classGone:
		s.closing.begin(o.gate)
	}
	if o.last {
		s.closing.begin(o.gate)
	}
	if o.over {
		s.dropTransaction()
	}
	if s.limits.takeWasted() {
		s.addJunk()
	}
}

// gated counts that a gate, if there is one, has refused something with a code, and tells who listens.
func (s *session) gated(gate string, code int) {
	if gate == "" {
		return
	}
	s.srv.metrics.gate(gate)
	s.srv.publish(notify.LetterGated, s.id, addressText(s.client.addr.Addr()), gate, strconv.Itoa(code))
}

// state is how far a session is on its way to its end.
type state uint8

const (
	stateOpen    state = iota
	stateBarred        // greeted with a 5xx: only QUIT is left
	stateClosing       // ends once replies are flushed
	stateSilent        // and the last words are said
)

// closing is how far a session is on its way to its end, and what led it there.
type closing struct {
	state state
	gate  string // that ends it, or bars it; "" without one
}

// due reports whether the session ends once replies are flushed.
func (c *closing) due() bool { return c.state >= stateClosing }

// begin ends the session once replies are flushed; gate is the gate that did it, if there is one.
func (c *closing) begin(gate string) {
	if c.state < stateSilent && gate != "" {
		c.gate = gate
	}
	c.state = max(c.state, stateClosing)
}

// bar leaves the client nothing but QUIT: the filter has refused it.
func (c *closing) bar() { c.gate, c.state = gateFilter, max(c.state, stateBarred) }

// close ends the session with a reply that counts for a gate. What the filter refuses is counted where it is
// asked.
func (s *session) close(gate string, r smtp.Reply) {
	if s.closing.state == stateSilent {
		return
	}
	if gate != gateFilter {
		s.gated(gate, r.Code)
	}
	s.say(s.conf.named(r))
	s.closing = closing{stateSilent, gate}
}

// sayVerdict gives the reply of the filter, a gate or the next hop. 421 of a filter ends the session; one for
// a next hop that left has done so already, see lost.
func (s *session) sayVerdict(r smtp.Reply) {
	if r.Code == 421 && !s.closing.due() {
		s.close(gateFilter, r)
		return
	}
	s.say(r)
}

// addRefusal counts what was refused for good: a client that guesses addresses learns by it. After too many
// of them the session ends, and with it the transaction, unless a recipient is to have its message. What is refused
// because the filter failed is none of the client's faults.
func (s *session) addRefusal(r smtp.Reply) {
	if !r.Permanent() || s.closing.state == stateSilent || s.limits.wasted {
		return
	}
	if !s.client.known() {
		s.srv.gates.Limits.Refused(s.background(), s.client.addr.Addr())
	}
	if s.limits.addRefusal() && (s.tx == nil || len(s.tx.accepted) == 0) {
		s.endRefused()
	}
}

// forgive takes back what was held against a client that has delivered a message: all of this session, and one refusal more
// of its address, so that a busy server of which some recipients are always unknown is not shut out.
func (s *session) forgive() {
	if !s.client.known() {
		s.srv.gates.Limits.Refusals.Forgive(s.background(), s.client.addr.Addr(), s.limits.refusals+1)
	}
	s.limits.forgive()
}

// endRefused ends a session that was refused too often.
func (s *session) endRefused() {
	farewell := reply(421, "4.7.0", "Too many refusals")
	s.relay.cut(farewell)
	s.close(gateRefusals, farewell)
}

// addJunk counts a command that moves nothing forward.
func (s *session) addJunk() {
	if s.limits.addJunk() {
		s.close(gateJunk, reply(421, "4.7.0", "Too many commands without a message"))
	}
}
