package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"postern/internal/mxproto"
	"postern/internal/smtp"
	"postern/internal/workdir"
)

// What is done with a message when the filter does not work.
const (
	onFailureAccept = "accept"
	onFailureReject = "reject"
)

// filterStages are the stages that are switched on.
type filterStages struct {
	relayok, helook, senderok, recipok, scan bool
}

// filter puts questions to the multiplexor.
type filter struct {
	client    *mxproto.Client
	spool     *workdir.Spool
	stages    filterStages
	timeout   time.Duration
	maxDelay  time.Duration
	onFailure string
	scannedBy string
}

// emptyDir has the multiplexor, which runs as the workers' account, empty a directory that was put aside.
func (f *filter) emptyDir(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	answer, err := f.client.AskOurs(ctx, mxproto.VerbEmpty+" "+name)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", workdir.ErrNobody, err)
	case answer != mxproto.EmptyOK:
		return fmt.Errorf("the multiplexor's answer: %.200q", answer)
	}
	return nil
}

// messages says whether messages need a working directory.
func (f *filter) messages() bool { return f.stages.senderok || f.stages.recipok || f.stages.scan }

// filtering gives the filter if the session's next step is to be filtered.
func (s *session) filtering() *filter {
	if s.srv.filter == nil || s.open || s.openName {
		return nil
	}
	return s.srv.filter
}

// ask puts one question and waits out the delay that the answer asks for. What is no verdict is the
// filter's failure, which on-failure decides.
func (s *session) ask(f *filter, request string) mxproto.Verdict {
	ctx, cancel := context.WithTimeout(s.background(), f.timeout)
	defer cancel()
	answer, err := f.client.Ask(ctx, request)
	if err != nil {
		return s.filterFailed(f, err)
	}
	v, err := mxproto.ParseVerdict(answer)
	if err != nil {
		return s.filterFailed(f, err)
	}
	if v.Delay > 0 {
		s.relay.collect() // replies to earlier commands are not held back
		s.flush()
		s.srv.pause(min(v.Delay, f.maxDelay))
	}
	if v.Action == mxproto.Reject || v.Action == mxproto.TempFail {
		s.srv.metrics.gate(gateFilter)
	}
	return v
}

// filterFailed is the verdict when there is none.
func (s *session) filterFailed(f *filter, err error) mxproto.Verdict {
	s.srv.metrics.filterFault()
	s.limits.wasted = s.limits.wasted || f.onFailure != onFailureAccept
	s.srv.log.Error("filter failed", "session", s.id, "client", s.client.addr.Addr().String(), "policy", f.onFailure, "error", err)
	switch f.onFailure {
	case onFailureAccept:
		return mxproto.Verdict{Action: mxproto.Continue}
	case onFailureReject:
		return mxproto.Verdict{Action: mxproto.Reject, Code: "554", DSN: "5.3.0", Text: "Message cannot be checked (" + s.id + ")"}
	}
	return mxproto.Verdict{Action: mxproto.TempFail, Code: "451", DSN: "4.3.0", Text: "Message cannot be checked now, try again later (" + s.id + ")"}
}

// verdictReply makes the client's reply of a verdict that refuses.
func verdictReply(code, dsn, text string) *smtp.Reply {
	n, err := strconv.Atoi(code)
	if err != nil || n < 400 || n > 599 {
		n, dsn = 451, "4.3.0"
	}
	return &smtp.Reply{Code: n, Enhanced: dsn, Lines: strings.Split(text, "\n")}
}

// askRelayok asks about the client; nil lets it in.
func (s *session) askRelayok() *smtp.Reply {
	f := s.filtering()
	if f == nil || !f.stages.relayok {
		return nil
	}
	v := s.ask(f, mxproto.Relayok{
		IP: s.client.ip(), Name: s.client.hostName(), Port: s.client.port(), MyIP: s.client.localIP(), MyPort: int(s.client.local.Port()),
	}.Line())
	s.open = v.Action == mxproto.Accept
	return s.hostVerdict(s.client.helo, v)
}

// askHelook asks about the name in HELO or EHLO. What the filter said of an earlier name does not count.
func (s *session) askHelook(helo string) *smtp.Reply {
	s.openName = false
	f := s.filtering()
	if f == nil || !f.stages.helook {
		return nil
	}
	v := s.ask(f, mxproto.Helook{
		IP: s.client.ip(), Name: s.client.hostName(), Helo: helo, Port: s.client.port(), MyIP: s.client.localIP(), MyPort: int(s.client.local.Port()),
	}.Line())
	s.openName = v.Action == mxproto.Accept
	return s.hostVerdict(helo, v)
}

// hostVerdict makes a reply of a verdict about a host. Discard means nothing here.
func (s *session) hostVerdict(helo string, v mxproto.Verdict) *smtp.Reply {
	if v.Action != mxproto.Reject && v.Action != mxproto.TempFail {
		return nil
	}
	r := verdictReply(v.Code, v.DSN, v.Text)
	s.logRefusedHost(helo, *r)
	return r
}

// askSenderok makes the working directory and asks about the sender.
func (s *session) askSenderok(tx *transaction) *smtp.Reply {
	f := s.filtering()
	if f == nil || !f.messages() {
		return nil
	}
	if err := s.openWorkdir(f, tx); err != nil {
		return s.contentRefusal(err)
	}
	if !f.stages.senderok {
		return nil
	}
	v := s.ask(f, mxproto.Senderok{
		Sender: tx.from.String(), IP: s.client.ip(), Name: s.client.hostName(), Helo: s.client.greeting(), Dir: tx.dir.Path(), QID: tx.qid,
		ESMTP: texts(tx.params),
	}.Line())
	return s.messageVerdict(tx, v)
}

// askRecipok asks about a recipient. What became of those before it is known first, as the filter may want to know
// from COMMANDS; one that the server will not get is not asked about.
func (s *session) askRecipok(rcpt recipient) *smtp.Reply {
	f, tx := s.filtering(), s.tx
	if f == nil || tx.dir == nil || !f.stages.recipok {
		return nil
	}
	s.relay.collect()
	if s.relay.broken != nil || s.relay.refused != nil {
		return nil
	}
	v := s.ask(f, mxproto.Recipok{
		Recipient: rcpt.path.String(), Sender: tx.from.String(), IP: s.client.ip(), Name: s.client.hostName(), FirstRecipient: tx.first,
		Helo: s.client.greeting(), Dir: tx.dir.Path(), QID: tx.qid, Mailer: s.srv.route.Mailer, Host: s.srv.route.Host, Addr: strings.ToLower(rcpt.path.Address),
		ESMTP: texts(rcpt.params),
	}.Line())
	return s.messageVerdict(tx, v)
}

// messageVerdict carries out a verdict about sender or recipient. Accept and Discard are for the whole
// message, also when a recipient was asked about.
func (s *session) messageVerdict(tx *transaction, v mxproto.Verdict) *smtp.Reply {
	switch v.Action {
	case mxproto.Reject, mxproto.TempFail:
		return verdictReply(v.Code, v.DSN, v.Text)
	case mxproto.Accept:
		tx.remove(s.srv)
	case mxproto.Discard:
		tx.remove(s.srv)
		tx.discard = true
		s.releaseDiscarded(tx)
	}
	return nil
}

// releaseDiscarded ends what the server knows of a message that is thrown away.
func (s *session) releaseDiscarded(tx *transaction) {
	if s.tx != tx {
		return // at MAIL: the server knows nothing yet
	}
	s.relay.collect()
	s.relay.letGo(inOrder)
}

// openWorkdir makes the working directory and writes what is known at MAIL.
func (s *session) openWorkdir(f *filter, tx *transaction) error {
	dir, err := f.spool.Create(tx.qid)
	if err != nil {
		return err
	}
	tx.dir = dir
	return dir.Envelope(workdir.Envelope{
		ID: f.spool.NewID(), Sender: tx.from.String(), SenderArgs: texts(tx.params), Macros: s.macros(tx), QueueID: tx.qid,
		ClientName: s.client.hostName(), ClientIP: s.client.ip(), ClientPort: s.client.port(), Helo: s.client.greeting(), HasHelo: s.client.helo != "",
	})
}

// noteRecipient tells the filter of a recipient that the server took.
func (s *session) noteRecipient(tx *transaction, rcpt recipient) error {
	return tx.dir.Recipient(workdir.Recipient{
		Address: rcpt.path.String(), Mailer: s.srv.route.Mailer, Host: s.srv.route.Host, Addr: strings.ToLower(rcpt.path.Address), Args: texts(rcpt.params),
	})
}
