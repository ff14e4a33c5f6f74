package main

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"postern/internal/smtp"
	"postern/smtp-proxy/filter"
	"postern/smtp-proxy/upstream"
)

// relay is the next hop's side of a session: the commands that go there, its replies in the order of the
// client's commands, and the connection, which is taken late and let go when nothing is asked on it any more.
type relay struct {
	owner   relayOwner
	id      string        // of the session
	timeout time.Duration // for the reply to a command

	hop   nextHop // nil: there is no connection
	bound bool    // the client has logged in on the connection: nobody else may use it, and no other one will do
	gone  bool    // that connection is lost

	queue   []pendingReply // what the client waits for
	tx      *transaction   // nil: none
	asked   bool           // MAIL went out on the present connection
	refused *smtp.Reply    // what the next hop said to a MAIL that the client was told is well
	broken  *smtp.Reply    // the next hop was lost: what every further command is told
	void    bool           // the client was told that its MAIL is refused
	retried bool           // the transaction was begun anew on another connection
}

// nextHop is a connection to a server: see [upstream.Conn].
type nextHop interface {
	Server() string
	Capabilities() upstream.Capabilities
	Command(line string)
	Flush() error
	Reply(timeout time.Duration) (smtp.Reply, error)
	AllowRecipients(n int)
	Content() io.Writer
	EndContent() error
	Release()
	Return()
	Abort()
}

// relayOwner is what a relay needs of its session.
type relayOwner interface {
	// dial connects to the next hop for the client.
	dial() (nextHop, error)
	// lost notes that the next hop failed, on the connection hop unless there was none, and returns what the
	// client is told.
	lost(act string, hop nextHop, err error) smtp.Reply
	// loggedOut is told that the connection is gone on which the client had logged in.
	loggedOut()
	// accept takes a recipient that the next hop took, or says why that is not possible.
	accept(rcpt filter.Recipient) *smtp.Reply
	// tell gives the client the reply to one of its commands; to is the recipient, if it was one. verdict
	// says that the next hop has decided.
	tell(r smtp.Reply, to string, verdict bool)
	// note logs what happened.
	note(level slog.Level, what string, attrs ...any)
}

// maxPending bounds how many commands are on their way to the next hop at a time: its replies must
// fit into the buffers of the connection, or both sides would wait for the other to read.
const maxPending = 50

// replyKind says where the reply to a command of the client comes from.
type replyKind uint8

const (
	replyKnown replyKind = iota // it is here
	replyMail                   // MAIL: ours, unless MAIL goes out before the reply is due
	replyQuiet                  // MAIL, to which the client has its reply already
	replyRcpt                   // RCPT: the next hop's
	replyData                   // DATA: the next hop's; kept for the one who asked
)

// pendingReply is a reply that the client waits for, in the order of its commands.
type pendingReply struct {
	kind  replyKind
	sent  bool // the command went out
	reply smtp.Reply
	rcpt  filter.Recipient
}

// begin begins a transaction. Its MAIL goes out with the first recipient.
func (r *relay) begin(tx *transaction) {
	r.tx = tx
	r.queue = append(r.queue, pendingReply{kind: replyMail})
}

// connect makes sure that there is a connection.
func (r *relay) connect() error {
	if r.hop != nil {
		return nil
	}
	hop, err := r.owner.dial()
	if err != nil {
		return err
	}
	if r.tx != nil {
		if err := r.tx.lacking(hop.Capabilities()); err != nil {
			hop.Release()
			return err
		}
	}
	r.hop = hop
	return nil
}

// parting says how a connection is let go.
type parting uint8

const (
	inOrder   parting = iota // nothing more is to be asked for this transaction: others may use it
	whenIdle                 // the same, while the client says nothing: it is not kept
	broken                   // what the next hop has got of a message is void
	forgotten                // and so is the client's login on it: the client is another one from now on, or has left
)

// letGo gives the connection back, if there is one. One that the client has logged in on stays, as long as it
// is in order; if it is lost, so is the login.
func (r *relay) letGo(how parting) {
	if r.hop == nil {
		return
	}
	r.asked = false
	if how == inOrder && r.bound {
		if r.reset() == nil {
			return
		}
		how = broken
	}
	hop, bound := r.hop, r.bound
	r.hop, r.bound = nil, false
	switch how {
	case inOrder:
		hop.Release()
	case whenIdle:
		hop.Return()
	default:
		hop.Abort()
	}
	if bound && how == broken {
		r.gone = true
		r.owner.loggedOut()
	}
}

// end ends the transaction of a message that was answered or given up. The next hop is told of it when the
// connection is used again.
func (r *relay) end() {
	r.letGo(inOrder)
	r.tx, r.asked, r.refused, r.broken, r.void, r.retried = nil, false, nil, nil, false, false
}

// spare reports whether there is a connection that others could use while the client says nothing.
func (r *relay) spare() bool {
	return r.hop != nil && !r.bound && r.broken == nil && len(r.queue) == 0
}

// pipelining reports whether the next hop takes several commands at a time.
func (r *relay) pipelining() bool { return r.hop.Capabilities().Pipelining }

// reset ends the next hop's transaction on a connection that is kept; behind DATA without a reply that cannot be.
func (r *relay) reset() error {
	reply, err := r.exchange(smtp.Rset)
	if err == nil && !reply.Positive() {
		err = fmt.Errorf("reply to RSET is %q", clip(reply.String()))
	}
	return err
}

// exchange sends one command and reads its reply.
func (r *relay) exchange(command string) (smtp.Reply, error) {
	r.hop.Command(command)
	if err := r.hop.Flush(); err != nil {
		return smtp.Reply{}, err
	}
	return r.hop.Reply(r.timeout)
}

// sendMail puts MAIL on its way. Its reply goes to the client if that still waits for one.
func (r *relay) sendMail() {
	r.hop.Command(r.mailLine(r.tx.from, r.tx.params))
	r.asked = true
	for i := range r.queue {
		if r.queue[i].kind == replyMail {
			r.queue[i].sent = true
			return
		}
	}
	r.queue = append(r.queue, pendingReply{kind: replyQuiet, sent: true})
}

// sendRecipient puts RCPT on its way.
func (r *relay) sendRecipient(rcpt filter.Recipient) {
	r.hop.Command(r.rcptLine(rcpt))
	r.queue = append(r.queue, pendingReply{kind: replyRcpt, sent: true, rcpt: rcpt})
}

// askData sends DATA behind commands whose replies are due; collect returns its reply.
func (r *relay) askData() {
	r.hop.Command(smtp.Data)
	r.queue = append(r.queue, pendingReply{kind: replyData, sent: true})
}

// mayAskData reports whether DATA can go out together with what is on its way.
func (r *relay) mayAskData() bool {
	return len(r.queue) > 0 && r.hop != nil && r.asked && r.refused == nil && r.pipelining()
}

// sendData sends DATA, whose reply nobody waits for yet.
func (r *relay) sendData() {
	r.hop.Command(smtp.Data)
	if err := r.hop.Flush(); err != nil {
		r.lose(err)
	}
}

// mailLine makes MAIL for the next hop: only parameters that it offers.
func (r *relay) mailLine(from smtp.Path, params []smtp.Param) string {
	caps := r.hop.Capabilities()
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
			ok = r.bound
		}
		if ok {
			b.WriteByte(' ')
			b.WriteString(p.Text)
		}
	}
	return b.String()
}

func (r *relay) rcptLine(rcpt filter.Recipient) string {
	var b strings.Builder
	b.WriteString("RCPT TO:")
	b.WriteString(rcpt.Path.String())
	if r.hop.Capabilities().DSN {
		for _, p := range rcpt.Params {
			b.WriteByte(' ')
			b.WriteString(p.Text)
		}
	}
	return b.String()
}

// say puts a reply behind those that the client still waits for; false if it waits for none.
func (r *relay) say(reply smtp.Reply) bool {
	if len(r.queue) == 0 {
		return false
	}
	r.queue = append(r.queue, pendingReply{kind: replyKnown, reply: reply})
	return true
}

// cut has the client wait for nothing more than a last reply, which is also that to further commands.
func (r *relay) cut(farewell smtp.Reply) {
	clear(r.queue)
	r.queue = r.queue[:0]
	if r.tx != nil {
		r.broken = &farewell
	}
}

// collect reads the replies to all commands that were sent on, in the order of the client's commands.
// Nothing is pending behind it. It returns the reply to DATA, if that was among them.
func (r *relay) collect() (data smtp.Reply) {
	if len(r.queue) == 0 {
		return data
	}
	var lost *smtp.Reply
	for i := 0; i < len(r.queue); i++ {
		p := &r.queue[i]
		if p.sent && lost == nil {
			reply, err := r.next(i)
			if err != nil {
				lost = r.lose(err)
			}
			p.reply = reply
		}
		if p.sent && lost != nil {
			p.reply = *lost
		}
		if p.kind == replyData {
			data = p.reply
		} else {
			r.settle(p)
		}
	}
	clear(r.queue)
	if r.queue = r.queue[:0]; cap(r.queue) > 8 {
		r.queue = nil
	}
	return data
}

// next reads the reply to pending command i. If the connection fails before the next hop has said anything to
// this transaction, it is begun once more on another one: a kept connection may have been closed by the
// server in the moment we took it.
func (r *relay) next(i int) (smtp.Reply, error) {
	err := r.hop.Flush()
	if err == nil {
		var reply smtp.Reply
		if reply, err = r.hop.Reply(r.timeout); err == nil && reply.Code != 421 {
			return reply, nil
		}
		if err == nil {
			err = reply.Err()
		}
	}
	kind := r.queue[i].kind
	if r.tx == nil || r.retried || r.bound || kind != replyMail && kind != replyQuiet {
		return smtp.Reply{}, err
	}
	r.retried = true
	r.owner.note(slog.LevelDebug, "transaction begins anew on another connection", "error", err)
	r.letGo(broken)
	if err := r.connect(); err != nil {
		return smtp.Reply{}, err
	}
	r.asked = true
	for _, p := range r.queue[i:] {
		switch {
		case !p.sent:
		case p.kind == replyMail || p.kind == replyQuiet:
			r.hop.Command(r.mailLine(r.tx.from, r.tx.params))
		case p.kind == replyRcpt:
			r.hop.Command(r.rcptLine(p.rcpt))
		case p.kind == replyData:
			r.hop.Command(smtp.Data)
		}
	}
	if err := r.hop.Flush(); err != nil {
		return smtp.Reply{}, err
	}
	return r.hop.Reply(r.timeout)
}

// settle takes the reply to one command: what it means for the transaction, and the client's part.
func (r *relay) settle(p *pendingReply) {
	switch p.kind {
	case replyMail:
		if !p.sent {
			p.reply = reply(250, "2.1.0", "Ok")
		} else if !p.reply.Positive() && r.tx != nil && r.broken == nil {
			// The client learns now that there is no transaction; what it pipelined behind MAIL gets
			// the same reply.
			refused := p.reply
			r.refused, r.void = &refused, true
		}
	case replyQuiet:
		if !p.reply.Positive() && r.tx != nil {
			refused := p.reply
			r.refused = &refused
		}
		return
	case replyRcpt:
		switch {
		case r.tx == nil:
		case r.refused != nil:
			p.reply = *r.refused
		case p.reply.Positive():
			if no := r.owner.accept(p.rcpt); no != nil {
				p.reply, r.broken = *no, no
			}
		}
	}
	r.owner.tell(p.reply, p.rcpt.Path.Address, p.kind != replyKnown)
}

// lose notes that the next hop was lost in a transaction.
func (r *relay) lose(err error) *smtp.Reply {
	reply := r.lost("reply", err)
	if r.tx != nil {
		r.broken = reply
	}
	return reply
}

// lost notes that the next hop failed, gives it up, and returns what the client is told.
func (r *relay) lost(act string, err error) *smtp.Reply {
	reply := r.owner.lost(act, r.hop, err)
	r.letGo(broken)
	return &reply
}
