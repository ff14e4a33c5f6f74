package main

import (
	"context"
	"fmt"
	"net"
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
		s.collect() // replies to earlier commands are not held back
		s.flush()
		s.srv.pause(min(v.Delay, f.maxDelay))
	}
	if v.Action == mxproto.Reject || v.Action == mxproto.TempFail {
		s.srv.meters.gate(gateFilter)
	}
	return v
}

// filterFailed is the verdict when there is none.
func (s *session) filterFailed(f *filter, err error) mxproto.Verdict {
	s.srv.meters.filterFault()
	s.fruitless = s.fruitless || f.onFailure != onFailureAccept
	s.srv.log.Error("filter failed", "session", s.id, "client", s.client.Addr().String(), "policy", f.onFailure, "error", err)
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
		IP: s.clientIP(), Name: s.clientName(), Port: int(s.client.Port()), MyIP: s.localIP(), MyPort: int(s.local.Port()),
	}.Line())
	s.open = v.Action == mxproto.Accept
	return s.hostVerdict(s.helo, v)
}

// askHelook asks about the name in HELO or EHLO. What the filter said of an earlier name does not count.
func (s *session) askHelook(helo string) *smtp.Reply {
	s.openName = false
	f := s.filtering()
	if f == nil || !f.stages.helook {
		return nil
	}
	v := s.ask(f, mxproto.Helook{
		IP: s.clientIP(), Name: s.clientName(), Helo: helo, Port: int(s.client.Port()), MyIP: s.localIP(), MyPort: int(s.local.Port()),
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
		Sender: tx.from.String(), IP: s.clientIP(), Name: s.clientName(), Helo: s.helo, Dir: tx.dir.Path(), QID: tx.qid,
		ESMTP: texts(tx.params),
	}.Line())
	return s.messageVerdict(tx, v)
}

// askRecipok asks about a recipient; one that may go on is noted for the scan.
func (s *session) askRecipok(rcpt recipient) *smtp.Reply {
	f, tx := s.filtering(), s.tx
	if f == nil || tx.dir == nil {
		return nil
	}
	if f.stages.recipok {
		v := s.ask(f, mxproto.Recipok{
			Recipient: rcpt.path.String(), Sender: tx.from.String(), IP: s.clientIP(), Name: s.clientName(), FirstRecipient: tx.first,
			Helo: s.helo, Dir: tx.dir.Path(), QID: tx.qid, ESMTP: texts(rcpt.params),
		}.Line())
		return s.messageVerdict(tx, v)
	}
	return nil
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
	s.collect()
	tx.mailAsked = false
	s.releaseUpstream()
}

// openWorkdir makes the working directory and writes what is known at MAIL.
func (s *session) openWorkdir(f *filter, tx *transaction) error {
	dir, err := f.spool.Create(tx.qid)
	if err != nil {
		return err
	}
	tx.dir = dir
	name := s.clientName()
	if name == "" {
		name = "[" + s.clientIP() + "]"
	}
	return dir.Envelope(workdir.Envelope{
		ID: f.spool.NewID(), Sender: tx.from.String(), SenderArgs: texts(tx.params), Macros: s.macros(tx), QueueID: tx.qid,
		ClientName: name, ClientIP: s.clientIP(), ClientPort: int(s.client.Port()), Helo: s.helo, HasHelo: s.helo != "",
	})
}

// noteRecipient tells the filter of a recipient that the server took.
func (s *session) noteRecipient(tx *transaction, rcpt recipient) error {
	return tx.dir.Recipient(workdir.Recipient{Address: rcpt.path.String(), Addr: rcpt.path.Address, Args: texts(rcpt.params)})
}

// macros gives what filters know as Sendmail macros.
func (s *session) macros(tx *transaction) [][2]string {
	name := s.clientName()
	if name == "" {
		name = "[" + s.clientIP() + "]"
	}
	m := [][2]string{{"_", fmt.Sprintf("%s [%s]", name, s.clientIP())}}
	add := func(key, value string) {
		if value != "" {
			m = append(m, [2]string{key, value})
		}
	}
	if s.authed || s.login != "" {
		add("auth_authen", s.login)
		add("auth_type", s.authType)
	}
	if s.tls != nil {
		version, cipher, bits := tlsNames(s.tls)
		if s.shown != nil {
			add("cert_issuer", s.shown.issuer)
			add("cert_subject", s.shown.subject)
			add("verify", s.shown.verify)
		}
		add("cipher", cipher)
		add("cipher_bits", bits)
		add("tls_version", version)
	}
	add("daemon_name", s.listener)
	add("daemon_port", strconv.Itoa(int(s.local.Port())))
	add("i", tx.qid)
	add("if_addr", s.localIP())
	add("if_name", s.conf.host)
	add("j", s.conf.host)
	add("mail_addr", tx.from.Address)
	return m
}

// clientIP gives the client's address as filters know it; a local socket is 127.0.0.1.
func (s *session) clientIP() string {
	if !s.client.Addr().IsValid() {
		return "127.0.0.1"
	}
	return s.client.Addr().WithZone("").String()
}

func (s *session) localIP() string {
	if !s.local.Addr().IsValid() {
		return ""
	}
	return s.local.Addr().WithZone("").String()
}

// clientName looks the client's name up, once, when somebody wants it. It counts only if the name has
// that address as well.
func (s *session) clientName() string {
	if s.name != "" || s.looked || !bool(s.conf.ClientLookup) {
		return s.name
	}
	s.looked = true
	addr := s.client.Addr()
	if !addr.IsValid() || addr.IsLoopback() {
		return ""
	}
	ctx, cancel := context.WithTimeout(s.background(), lookupTimeout)
	defer cancel()
	s.name = verifiedName(ctx, net.DefaultResolver, addr.String())
	return s.name
}

// lookupTimeout bounds looking up a client's name, both ways.
const lookupTimeout = 5 * time.Second

// resolver is the part of net.Resolver that is used.
type resolver interface {
	LookupAddr(ctx context.Context, addr string) ([]string, error)
	LookupHost(ctx context.Context, host string) ([]string, error)
}

func verifiedName(ctx context.Context, r resolver, addr string) string {
	names, err := r.LookupAddr(ctx, addr)
	if err != nil || len(names) == 0 {
		return ""
	}
	name := strings.TrimSuffix(names[0], ".")
	if !smtp.IsGreetingName(name) {
		return ""
	}
	addrs, err := r.LookupHost(ctx, name)
	if err != nil {
		return ""
	}
	for _, a := range addrs {
		if a == addr {
			return name
		}
	}
	return ""
}
