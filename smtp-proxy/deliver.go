package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"

	"postern/internal/smtp"
	"postern/internal/workdir"
	"postern/smtp-proxy/header"
)

// message is a message out of a working directory, on its way to the server.
type message struct {
	header    header.Header
	body      io.Reader
	changes   []workdir.Change
	scannedBy string
}

// readMessage reads the header of the message that the working directory holds, and leaves the body to be read. If it is
// not what the client sent, as a worker has changed it, reading it fails.
func readMessage(dir *workdir.Dir) (*message, error) {
	head, err := dir.Header()
	if err != nil {
		return nil, err
	}
	body, err := dir.Body()
	if err != nil {
		return nil, err
	}
	h, end, _ := header.Split(head)
	if end != len(head) {
		return nil, fmt.Errorf("header of %d bytes ends at %d", len(head), end) // it is not in normal form
	}
	return &message{header: h, body: body}, nil
}

// replaceBody takes the body that the filter wrote. It may be empty: then the message is to have none.
func (m *message) replaceBody(dir *workdir.Dir) error {
	f, err := dir.NewBody()
	if err != nil {
		return err
	}
	m.body = f
	return nil
}

// close closes a body that was opened.
func (m *message) close() {
	if c, ok := m.body.(io.Closer); ok {
		_ = c.Close()
	}
}

// finalHeader makes the header as it goes out: our Received field on top, then the filter's changes in
// their order on what is there, then what the settings want.
func (m *message) finalHeader(ours []byte, drop bool) []byte {
	h := m.header.With(ours)
	for _, c := range m.changes {
		change(&h, c)
	}
	if m.scannedBy != "" {
		h.Add("X-Scanned-By", m.scannedBy)
	}
	if drop {
		h.RemoveAll(header.ReceivedName)
	}
	return h.AppendTo(make([]byte, 0, 4096))
}

// change carries out one change of the header.
func change(h *header.Header, c workdir.Change) {
	switch c.Letter {
	case 'H':
		h.Add(c.Name, c.Value)
	case 'N':
		h.Insert(c.Name, c.Index, c.Value)
	case 'I':
		h.Change(c.Name, c.Index, c.Value)
	case 'J':
		h.Remove(c.Name, c.Index)
	case 'M':
		if c.Value != "" {
			h.Change("Content-Type", 1, c.Value)
		}
		if h.Count("MIME-Version") == 0 {
			h.Add("MIME-Version", "1.0")
		}
	}
}

// deliver sends a filtered message to the next hop and returns its reply.
func (s *session) deliver(tx *transaction, m *message, env *envelope) smtp.Reply {
	if env == nil {
		env = tx.envelope()
	}
	return s.deliverBy(&s.relay, m, env)
}

// deliverBy sends a filtered message where a relay leads to.
func (s *session) deliverBy(r *relay, m *message, env *envelope) smtp.Reply {
	s.status("DATA")
	if no := r.openContent(env); no != nil {
		return *no
	}
	var ours []byte
	drop := bool(s.conf.Droppath)
	if !drop {
		ours = s.receivedField(r.tx)
	}
	w := r.content()
	_, err := w.Write(m.finalHeader(ours, drop))
	if err == nil {
		err = copyBody(w, m.body)
	}
	if err != nil {
		r.letGo(broken)
		if errors.Is(err, workdir.ErrChanged) {
			r.tx.dir.Keep(err.Error())
		}
		return *s.contentRefusal(err)
	}
	return r.endContent()
}

// copyBody copies the body in pieces; the writer makes its line ends and dots right for SMTP.
func copyBody(w io.Writer, body io.Reader) error {
	buf := decodedPool.Get().(*[]byte)
	defer decodedPool.Put(buf)
	piece := (*buf)[:cap(*buf)]
	for {
		n, err := body.Read(piece)
		if n > 0 {
			if _, err := w.Write(piece[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read body: %w", err)
		}
	}
}

// envelope returns the envelope of the transaction as the client gave it.
func (tx *transaction) envelope() *envelope {
	return &envelope{from: tx.from, params: tx.params, rcpts: tx.accepted, same: true}
}

// resume issues the envelope anew, as far as the client was told that it is taken, if the connection on which it was issued
// was let go while the client was idle. The next hop may see things otherwise now: then the message is refused for now.
func (r *relay) resume() *smtp.Reply {
	if r.asked || len(r.tx.accepted) == 0 || r.tx.discard {
		return nil
	}
	reply := r.issue(r.tx.envelope())
	r.asked = reply == nil
	return reply
}

// openContent brings the next hop to the 354 for an envelope. The server may have closed the connection
// while the filter was busy; then, nothing of the message having been sent, another one is taken.
func (r *relay) openContent(env *envelope) *smtp.Reply {
	switch {
	case r.hop == nil:
	case env.same && r.asked:
		reply, err := r.exchange(smtp.Data)
		if err == nil && reply.Code != 421 {
			return r.refusedData(reply)
		}
		r.owner.note(slog.LevelDebug, "transaction begins anew on another connection", "error", err)
		r.letGo(broken)
	default:
		if r.reset() != nil {
			r.letGo(broken)
		}
	}
	if no := r.issue(env); no != nil {
		return no
	}
	reply, err := r.exchange(smtp.Data)
	if err != nil {
		return r.lost("data", err)
	}
	return r.refusedData(reply)
}

// refusedData returns nil for 354, else what the client is told.
func (r *relay) refusedData(reply smtp.Reply) *smtp.Reply {
	if reply.Code == 354 {
		return nil
	}
	reply = passOn(reply)
	if reply.Positive() {
		// No server says 2xx to DATA.
		return r.lost("data", errors.New("reply to DATA is "+reply.String()))
	}
	return &reply
}

// issue names an envelope to a next hop that has none. Each of its recipients must be taken, or the message is refused for
// now: the client was told that they are.
func (r *relay) issue(env *envelope) *smtp.Reply {
	if r.gone {
		reply := r.owner.lost("", nil)
		return &reply
	}
	if err := r.connect(); err != nil {
		return r.lost("connect", err)
	}
	if env.needsUTF8() && !r.hop.Capabilities().SMTPUTF8 {
		return refusalOf(550, "5.6.7", "Address of the filter needs SMTPUTF8")
	}
	r.hop.AllowRecipients(len(env.rcpts))
	// The filter may have changed the content: what the client announced is not its size any more.
	params := slices.DeleteFunc(slices.Clone(env.params), func(p smtp.Param) bool { return p.Key == smtp.ParamSize && r.tx.dir != nil })
	commands := []envelopeCommand{{r.mailLine(env.from, params), env.changed}}
	for _, rcpt := range env.rcpts {
		commands = append(commands, envelopeCommand{r.rcptLine(rcpt), rcpt.added})
	}
	for len(commands) > 0 {
		n := 1
		if r.pipelining() {
			n = min(len(commands), maxPending)
		}
		if no := r.exchangeAll(commands[:n]); no != nil {
			return no
		}
		commands = commands[n:]
	}
	return nil
}

// envelopeCommand is a command with an address, which may be one that the filter wants.
type envelopeCommand struct {
	line   string
	wanted bool
}

// exchangeAll sends commands and expects 2xx to each. What the next hop has against an address that the filter wants is
// told as it is: coming again does not help if it says so. Addresses that the client was told to be taken are refused for
// now, whatever the next hop says of them this time.
func (r *relay) exchangeAll(commands []envelopeCommand) *smtp.Reply {
	for _, c := range commands {
		r.hop.Command(c.line)
	}
	if err := r.hop.Flush(); err != nil {
		return r.lost("envelope", err)
	}
	var refused *smtp.Reply
	wanted := false
	for _, c := range commands {
		reply, err := r.hop.Reply(r.timeout)
		if err != nil {
			return r.lost("envelope", err)
		}
		if !reply.Positive() && refused == nil {
			refused, wanted = &reply, c.wanted
		}
	}
	if refused == nil {
		return nil
	}
	r.owner.note(slog.LevelWarn, "next hop refuses the envelope that was to be used", "filter", wanted, "reply", clip(refused.String()))
	if wanted && (refused.Temporary() || refused.Code/100 == 5) {
		reply := passOn(*refused)
		return &reply
	}
	return refusalOf(451, "4.3.0", "Envelope is not accepted now, try again later ("+r.id+")")
}

// endContent ends the content and returns the next hop's reply: the only place where a 250 for a message comes from.
func (r *relay) endContent() smtp.Reply {
	err := r.hop.EndContent()
	var reply smtp.Reply
	if err == nil {
		reply, err = r.hop.Reply(4 * r.timeout) // RFC 5321, 4.5.3.2.6
	}
	if err != nil {
		return *r.lost("end of data", err)
	}
	r.tx.server = r.hop.Server()
	if reply.Code == 421 {
		r.letGo(broken)
	}
	return passOn(reply)
}

// passOn makes the server's reply one for the client. 421 ends only the server's connection, and what
// is neither success nor refusal is no answer to a message.
func passOn(r smtp.Reply) smtp.Reply {
	if r.Code == 421 || r.Intermediate() {
		return reply(451, "4.4.2", "Server is not available, try again later")
	}
	return r
}
