package main

import (
	"errors"
	"strconv"

	"postern/internal/smtp"
	"postern/internal/workdir"
	"postern/smtp-proxy/filter"
	"postern/smtp-proxy/header"
)

// What a session has with its filter: package filter puts the questions, and this says what the answers mean
// for a session.

// filtering returns the filter if the session's next step is to be filtered.
func (s *session) filtering() *filter.Filter {
	if s.srv.filter == nil || s.client.accepted() {
		return nil
	}
	return s.srv.filter
}

// forFilter returns what a filter is told of the client; host is our name.
func (c *client) forFilter(session, host string) filter.Client {
	told := filter.Client{
		Session: session, IP: c.ip(), Name: c.dnsName(), Port: c.port(), Helo: c.greeting(), HasHelo: c.helo != "",
		LoggedIn: c.known(), Login: c.login, AuthType: c.authType, TLS: c.tls,
		Listener: c.listener, MyName: host, MyIP: c.localIP(), MyPort: int(c.local.Port()),
	}
	if c.forward == nil {
		told.Claimed = c.claimed // as dnsName has found it
	}
	if c.cert != nil {
		told.Cert = &filter.Cert{Issuer: c.cert.authority, Subject: c.cert.name, Verify: c.cert.verify}
	}
	return told
}

// heed does what goes with every verdict: the log and the metrics hear of it, and the delay that the filter
// asks for is waited out.
func (s *session) heed(v filter.Verdict) {
	switch {
	case v.Err != nil:
		s.filterFailed(v.Err, v.Refusal)
		return
	case v.Delay > 0:
		s.relay.collect() // replies to earlier commands are not held back
		s.flush()
		s.srv.pause(v.Delay)
	}
	if v.Refusal != nil {
		s.gated(gateFilter, v.Refusal.Code)
	}
}

// filterFailed logs that there is no verdict, and what is done: a nil refusal lets pass.
func (s *session) filterFailed(err error, refusal *smtp.Reply) {
	s.srv.metrics.filterFault()
	reply := "none"
	if refusal != nil {
		s.limits.wasted, reply = true, strconv.Itoa(refusal.Code)
	}
	s.srv.log.Error("filter failed", "session", s.id, "client", s.client.addr.Addr().String(), "reply", reply, "error", err)
}

// askRelayok asks about the client; nil lets it in.
func (s *session) askRelayok() *smtp.Reply {
	f := s.filtering()
	if f == nil || !f.Stages.Relayok {
		return nil
	}
	v := f.Relayok(s.background(), s.client.forFilter(s.id, s.conf.host))
	s.heed(v)
	s.client.acceptedAddr = v.Accept
	return s.hostVerdict(s.client.helo, v)
}

// askHelook asks about the name in HELO or EHLO. What the filter said of an earlier name does not count.
func (s *session) askHelook(helo string) *smtp.Reply {
	s.client.acceptedName = false
	f := s.filtering()
	if f == nil || !f.Stages.Helook {
		return nil
	}
	v := f.Helook(s.background(), s.client.forFilter(s.id, s.conf.host), helo)
	s.heed(v)
	s.client.acceptedName = v.Accept
	return s.hostVerdict(helo, v)
}

// hostVerdict makes a reply of a verdict about a host. Discard means nothing here.
func (s *session) hostVerdict(helo string, v filter.Verdict) *smtp.Reply {
	if v.Refusal != nil {
		s.logRefusedHost(helo, *v.Refusal)
	}
	return v.Refusal
}

// askSenderok makes the working directory and asks about the sender.
func (s *session) askSenderok(tx *transaction) *smtp.Reply {
	f := s.filtering()
	if f == nil || !f.Messages() {
		return nil
	}
	var err error
	if tx.filtered, err = f.Begin(s.client.forFilter(s.id, s.conf.host), tx.qid, tx.from, tx.params); err != nil {
		return s.contentRefusal(err)
	}
	return s.messageVerdict(tx, tx.filtered.AskSender(s.background()))
}

// askRecipok asks about a recipient. What became of those before it is known first, as the filter may want to
// know from COMMANDS; one that the server will not get is not asked about.
func (s *session) askRecipok(rcpt filter.Recipient) *smtp.Reply {
	tx := s.tx
	if tx.filtered == nil || !tx.filtered.AsksRecipients() {
		return nil
	}
	s.relay.collect()
	if s.relay.broken != nil || s.relay.refused != nil {
		return nil
	}
	return s.messageVerdict(tx, tx.filtered.AskRecipient(s.background(), rcpt, tx.first))
}

// messageVerdict carries out a verdict about sender or recipient. Accept and Discard are for the whole
// message, also when a recipient was asked about.
func (s *session) messageVerdict(tx *transaction, v filter.Verdict) *smtp.Reply {
	s.heed(v)
	switch {
	case v.Accept:
		tx.remove(s.srv)
	case v.Discard:
		tx.remove(s.srv)
		tx.discard = true
		s.releaseDiscarded(tx)
	}
	return v.Refusal
}

// releaseDiscarded ends what the server knows of a message that is thrown away.
func (s *session) releaseDiscarded(tx *transaction) {
	if s.tx != tx {
		return // at MAIL: the server knows nothing yet
	}
	s.relay.collect()
	s.relay.letGo(inOrder)
}

// filterSink puts a message into its working directory, has it scanned, and sends on what the filter
// made of it.
type filterSink struct {
	s  *session
	tx *transaction
}

func (k *filterSink) Write(p []byte) (int, error) { return k.tx.filtered.Write(p) }

func (k *filterSink) abort() { k.s.relay.letGo(broken) }

// finish scans the message and carries the results out.
func (k *filterSink) finish() smtp.Reply {
	s, m := k.s, k.tx.filtered
	if err := m.Finish(); err != nil {
		return *s.contentRefusal(err)
	}
	if cost := headerCopies * m.HeaderSize(); s.srv.memory.take(cost) {
		defer s.srv.memory.give(cost)
	} else {
		return noMemory
	}
	hops, err := m.Open()
	if err != nil {
		return *s.contentRefusal(err)
	}
	if hops > s.conf.MaxHops {
		return headerRefusal(header.ErrHops)
	}
	if s.srv.filter.Stages.Scan {
		s.status("FILTER")
	}
	r := m.Scan(s.background(), k.tx.envelope())
	if s.srv.filter.Stages.Scan {
		s.srv.metrics.phases.Observe(phaseScan, r.Took.Seconds())
	}
	defer r.Close()
	s.scanned(k.tx, r)
	return s.carryOut(k.tx, r)
}

// carryOut does what the filter wants of a message.
func (s *session) carryOut(tx *transaction, r *filter.Result) smtp.Reply {
	for _, line := range r.Unknown {
		s.srv.log.Warn("filter's wish is not understood", "session", s.id, "qid", tx.qid, "line", clip(line))
	}
	for _, why := range r.Ignored {
		s.srv.log.Warn("filter's wish is not carried out", "session", s.id, "qid", tx.qid, "reason", clip(why))
	}
	if r.Err != nil {
		s.filterFailed(r.Err, r.Refusal)
	}
	switch {
	case r.Refusal != nil:
		if r.Err == nil {
			s.gated(gateFilter, r.Refusal.Code)
			tx.gate = gateFilter
		}
		return *r.Refusal
	case r.Discard:
		return (&voidSink{tx}).finish()
	case r.Hold != "":
		return s.hold(tx, r)
	}
	return s.deliver(&s.relay, r)
}

// deliver sends a filtered message where a relay leads to, and returns the reply.
func (s *session) deliver(next *relay, r *filter.Result) smtp.Reply {
	s.status("DATA")
	if no := next.openContent(&r.Envelope); no != nil {
		return *no
	}
	var received []byte
	drop := bool(s.conf.Droppath)
	if !drop {
		received = s.receivedField(next.tx)
	}
	err := r.WriteContent(next.content(), received, drop)
	if errors.Is(err, errUpstream) {
		return *next.lost("content", err)
	}
	if err != nil {
		next.letGo(broken)
		if errors.Is(err, workdir.ErrChanged) && bool(s.conf.KeepFailed) {
			s.keep(next.tx, "failed: "+err.Error())
		}
		return *s.contentRefusal(err)
	}
	return s.endContent(next)
}
