package main

import (
	"errors"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"postern/internal/notify"
	"postern/internal/smtp"
	"postern/internal/workdir"
	"postern/smtp-proxy/header"
	"postern/smtp-proxy/upstream"
)

// discardMost is how much content is read and thrown away after a message was refused, in bytes, if the
// limit for messages is not larger: the dialog stays in step with honest clients, others are cut off.
const discardMost = 64 << 20

// decodedPool has buffers for decoded content: what one piece of input can become.
var decodedPool = sync.Pool{New: func() any { b := make([]byte, 0, 64<<10+64); return &b }}

// sink is where the content of a message goes: to the server, to a working directory, or nowhere.
type sink interface {
	io.Writer
	// finish ends the content and gives the reply to the message.
	finish() smtp.Reply
	// abort gives the message up; nothing of it reaches anybody.
	abort()
}

// doData is DATA: RFC 5321, 4.1.1.4.
func (s *session) doData(arg string) outcome {
	tx := s.tx
	switch {
	case arg != "":
		return failed(reply(501, "5.5.4", "Syntax: DATA"))
	case tx == nil:
		return failed(reply(503, "5.5.1", "Give a sender first"))
	case tx.chunks != nil:
		return failed(reply(503, "5.5.1", "Content has begun with BDAT"))
	case s.conn.Pending():
		// DATA is the last of a group: RFC 2920, 3.1. What follows it before the 354 was not meant
		// to be content by all who read it.
		return closed(gateSync, outOfSync)
	}
	out, o := s.prepareContent(tx)
	if out == nil {
		return o
	}
	s.status("DATA")
	s.say(reply(354, "", "End data with <CR><LF>.<CR><LF>"))
	if !s.flush() {
		out.abort()
		return gone
	}
	r := s.newReceiver(out)
	if err := s.receive(r, &smtp.DotDecoder{Reject: s.strict(), MaxLine: s.conf.MaxLineLength}); err != nil {
		return s.contentLost(tx, out, r, err)
	}
	return s.finishMessage(tx, out, r)
}

// prepareContent brings the transaction to the point where content may come, and says where it goes. Without
// such a place the outcome says why.
func (s *session) prepareContent(tx *transaction) (out sink, o outcome) {
	if !s.reserve(tx) {
		s.srv.log.Warn("no memory for another message", "session", s.id, "client", s.client.addr.Addr().String(), "limit", s.srv.memory.limit)
		s.relay.collect()
		return nil, done(noMemory).ending()
	}
	defer func() {
		if out == nil { // the transaction may go on, and name its content anew
			s.srv.memory.give(tx.memory)
			tx.memory = 0
		}
	}()
	direct := !tx.discard && tx.filtered == nil
	next := &s.relay
	if direct && next.broken == nil && len(next.queue) == 0 {
		next.broken = next.resume()
	}
	asked := direct && next.mayAskData()
	if asked {
		next.askData()
	}
	verdict := next.collect()
	later := direct && !asked && next.broken == nil && len(tx.accepted) > 0
	if later {
		next.sendData() // the recipients are certain: the client may send its content while the next hop makes up its mind
	}
	switch {
	case next.broken != nil:
		return nil, done(*next.broken).ending()
	case len(tx.accepted) == 0:
		if asked && verdict.Intermediate() {
			next.letGo(broken) // it waits for content, and there is nobody to get any
			next.void = true
		}
		o = failed(reply(554, "5.5.1", "No valid recipients"))
		o.over = next.void
		return nil, o
	case asked && verdict.Code != 354:
		r := passOn(verdict)
		s.logRefused(tx, "", "", r)
		return nil, deferred(r).ending()
	}
	return s.newSink(tx, later), o
}

// noMemory is the reply to content for which there is no room.
var noMemory = reply(452, "4.3.1", "Too many messages at a time, try again later")

// receiver is what is known of content while it comes in.
type receiver struct {
	out      io.Writer
	limit    int64 // of the size; 0 for none
	size     int64 // decoded bytes so far
	raw      int64 // bytes as they came
	refusal  *smtp.Reply
	smuggled bool // its line ends could be read in more than one way
	pace     pace
	noted    time.Time // when the status file was written
}

func (s *session) newReceiver(out io.Writer) *receiver {
	caps, _ := s.capabilities()
	now := time.Now()
	return &receiver{out: out, limit: s.conf.sizeLimit(caps.Size), pace: newPace(s.conf, now), noted: now}
}

// receive reads content to its end. A refusal is kept and told only behind the end, so that the dialog
// stays in step; the error is one that leaves no dialog.
func (s *session) receive(r *receiver, decoder *smtp.DotDecoder) error {
	for done := false; !done; {
		window, err := s.contentWindow(r)
		if err != nil {
			return err
		}
		if _, done, err = s.decode(r, decoder, window); err != nil {
			return err
		}
	}
	if err := decoder.Violation(); err != nil {
		r.violated(err)
	}
	return nil
}

// decode takes what has come of the content. The buffer for it is held no longer: the client may let us wait
// for more.
func (s *session) decode(r *receiver, decoder *smtp.DotDecoder, window []byte) (n int, done bool, err error) {
	buf := decodedPool.Get().(*[]byte)
	defer decodedPool.Put(buf)
	*buf, n, done = decoder.Decode((*buf)[:0], window)
	s.conn.Discard(n)
	return n, done, s.take(r, *buf, n)
}

// contentWindow waits for content as long as the client keeps its pace.
func (s *session) contentWindow(r *receiver) ([]byte, error) {
	if s.conn.Buffered() == 0 {
		now := time.Now()
		deadline, err := r.pace.next(now, r.raw)
		if err != nil {
			return nil, err
		}
		if window, err := s.contentSoon(now, deadline); window != nil || err != nil {
			return window, err
		}
		if err := s.conn.SetDeadline(deadline); err != nil {
			return nil, err
		}
		if s.presence.stat != nil && now.Sub(r.noted) >= time.Second {
			r.noted = now
			s.status("DATA " + strconv.FormatInt(r.size, 10))
		}
	}
	return s.conn.Window()
}

// contentSoon waits for content as long as the session may keep its connection to the server, which has a use
// for it only when the filter is through with the message. If nothing came, the connection was given back.
func (s *session) contentSoon(now, deadline time.Time) ([]byte, error) {
	soon := now.Add(s.conf.UpstreamIdle)
	if s.tx == nil || s.tx.filtered == nil || !s.mayReturn() || !soon.Before(deadline) {
		return nil, nil
	}
	if err := s.conn.SetDeadline(soon); err != nil {
		return nil, err
	}
	window, err := s.conn.Window()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.returnUpstream()
		return nil, nil
	}
	return window, err
}

// take hands decoded content on, or throws it away once the message is refused.
func (s *session) take(r *receiver, content []byte, raw int) error {
	r.size += int64(len(content))
	r.raw += int64(raw)
	if r.refusal == nil && r.limit > 0 && r.size > r.limit {
		r.refusal = refusalOf(552, "5.3.4", "Message is too large")
	}
	if r.refusal != nil {
		if r.raw > max(2*r.limit, discardMost) {
			return errTooMuch
		}
		return nil
	}
	if len(content) == 0 {
		return nil
	}
	began := time.Now()
	_, err := r.out.Write(content)
	r.pace.stop(time.Since(began))
	if err != nil {
		r.refusal = s.contentRefusal(err)
	}
	return nil
}

var errTooMuch = errors.New("client goes on after the limit")

// violated refuses content that broke the rules of lines; for all but long ones the session ends, too.
func (r *receiver) violated(err error) {
	switch {
	case errors.Is(err, smtp.ErrLongLine):
		r.refusal = refusalOf(554, "5.6.0", "Line too long")
		return
	case errors.Is(err, smtp.ErrNUL):
		r.refusal = refusalOf(550, "5.6.0", "NUL received")
	default:
		r.refusal = refusalOf(550, "5.5.2", "bare <CR> or <LF> received")
	}
	r.smuggled = true
}

// contentRefusal turns an error on the way of the content into the reply to the message.
func (s *session) contentRefusal(err error) *smtp.Reply {
	var r smtp.Reply
	var no *refusedContent
	switch {
	case errors.As(err, &no):
		r = passOn(no.reply)
	case errors.Is(err, header.ErrHops), errors.Is(err, header.ErrTooLong), errors.Is(err, workdir.ErrHeader):
		r = headerRefusal(err)
	case errors.Is(err, workdir.ErrNoSpace):
		s.notStored(err)
		r = reply(452, "4.3.1", "Insufficient system storage ("+s.id+")")
	case errors.Is(err, errUpstream):
		r = s.lost("content", s.relay.hop, err)
	default:
		s.notStored(err)
		r = s.localFault()
	}
	return &r
}

// headerRefusal is the reply to a header that may not pass.
func headerRefusal(err error) smtp.Reply {
	if errors.Is(err, header.ErrHops) {
		return reply(554, "5.4.6", "Too many hops: mail loop")
	}
	return reply(552, "5.3.4", "Message header is too long")
}

// notStored logs the cause that the client is not told.
func (s *session) notStored(err error) {
	s.limits.wasted = true
	s.srv.log.Error("message cannot be stored", "session", s.id, "client", s.client.addr.Addr().String(), "error", err)
}

// localFault is what the client is told of trouble of ours.
func (s *session) localFault() smtp.Reply {
	return reply(451, "4.3.0", "Local trouble, try again later ("+s.id+")")
}

// contentLost ends a session whose client did not finish the content.
func (s *session) contentLost(tx *transaction, out sink, r *receiver, err error) outcome {
	out.abort()
	name, last, o := "client left", smtp.Reply{}, gone
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, errTooSlow):
		name, tx.gate = "timeout", gateTimeout
		o = closed(gateTimeout, reply(421, "4.4.2", "Timeout, closing the connection"))
	case errors.Is(err, errTooMuch):
		name, tx.gate, last = "too large", gateLine, *r.refusal // which may be one for now
		o = closed(gateLine, last)
	}
	s.logMessage(tx, name, last, r.size, "")
	s.relay.letGo(broken)
	return o.ending()
}

// finishMessage answers the whole message. The transaction is over, whatever the answer.
func (s *session) finishMessage(tx *transaction, out sink, r *receiver) outcome {
	s.messages++
	var verdict smtp.Reply
	if r.refusal != nil {
		out.abort()
		verdict = *r.refusal
	} else {
		verdict = out.finish()
	}
	o := outcome{class: classRefused, reply: verdict, over: true}
	if r.smuggled {
		tx.gate, o.gate, o.last = gateNewline, gateNewline, true
	}
	queueID, name := "", outcomeRefused
	switch {
	case verdict.Positive():
		o.class, name = classAccepted, outcomeAccepted
		switch queueID = upstream.QueueID(verdict); {
		case tx.discarded:
			queueID, name = "", outcomeDiscarded
		case tx.held != "":
			name = outcomeHeld
		}
		s.srv.publish(notify.LetterAccepted, s.id, tx.qid, strconv.FormatInt(r.size, 10), strconv.Itoa(len(tx.accepted)))
	case verdict.Temporary():
		name = outcomeDeferred
		s.srv.publish(notify.LetterDeferred, s.id, strconv.Itoa(verdict.Code))
	default:
		s.srv.publish(notify.LetterRejected, s.id, strconv.Itoa(verdict.Code))
	}
	s.srv.metrics.message(name, r.size)
	s.srv.metrics.phases.Since(phaseMessage, tx.started)
	s.logMessage(tx, name, verdict, r.size, queueID)
	return o
}
