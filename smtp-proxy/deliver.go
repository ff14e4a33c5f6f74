package main

import (
	"errors"
	"fmt"
	"io"
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

// deliver sends a filtered message to the server and gives its reply.
func (s *session) deliver(tx *transaction, m *message, env *envelope) smtp.Reply {
	s.status("DATA")
	if r := s.openContent(tx, env); r != nil {
		return *r
	}
	var ours []byte
	drop := bool(s.conf.Droppath)
	if !drop {
		ours = s.receivedField(tx)
	}
	w := s.serverContent(tx)
	_, err := w.Write(m.finalHeader(ours, drop))
	if err == nil {
		err = copyBody(w, m.body)
	}
	if err != nil {
		s.abandonUpstream()
		if errors.Is(err, workdir.ErrChanged) {
			tx.dir.Keep(err.Error())
		}
		return *s.contentRefusal(err)
	}
	return s.endContent()
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

// openContent brings the server to the 354 for the envelope. The server may have closed the connection
// while the filter was busy; then, nothing of the message having been sent, another one is taken.
func (s *session) openContent(tx *transaction, env *envelope) *smtp.Reply {
	if env == nil {
		env = &envelope{from: tx.from, params: tx.params, rcpts: tx.accepted, same: true}
	}
	if env.same && s.up != nil && tx.mailAsked {
		r, err := s.exchange(smtp.Data)
		if err == nil && r.Code != 421 {
			return s.refusedData(r)
		}
		s.srv.log.Debug("transaction begins anew on another connection", "session", s.id, "qid", tx.qid, "error", err)
		s.dropConnection()
	} else if s.up != nil {
		if err := s.resetUpstream(); err != nil {
			s.dropConnection()
		}
	}
	return s.reissue(env)
}

// dropConnection closes a connection whose server is gone, unless it is authenticated: then there is
// no other one for us.
func (s *session) dropConnection() { s.abandonUpstream() }

// reissue begins the transaction with an envelope that the server does not know. Each of its recipients
// must be taken, or the message is refused for now: the client was told that they are.
func (s *session) reissue(env *envelope) *smtp.Reply {
	if r := s.issue(env); r != nil {
		return r
	}
	r, err := s.exchange(smtp.Data)
	if err != nil {
		return s.lostMessage("data", err)
	}
	return s.refusedData(r)
}

// issue names an envelope to a server that has none.
func (s *session) issue(env *envelope) *smtp.Reply {
	if s.up == nil && s.closing() {
		r := s.lost(nil) // the authenticated connection is gone
		return &r
	}
	if err := s.connect(); err != nil {
		s.upstreamFault("connect", err)
		r := s.lost(err)
		return &r
	}
	if env.needsUTF8() && !s.up.Capabilities().SMTPUTF8 {
		return refusalOf(550, "5.6.7", "Address of the filter needs SMTPUTF8")
	}
	s.up.AllowRecipients(len(env.rcpts))
	// The filter may have changed the content: what the client announced is not its size any more.
	params := slices.DeleteFunc(slices.Clone(env.params), func(p smtp.Param) bool { return p.Key == smtp.ParamSize && s.tx.dir != nil })
	commands := []envelopeCommand{{s.mailLine(env.from, params), env.changed}}
	for _, rcpt := range env.rcpts {
		commands = append(commands, envelopeCommand{s.rcptLine(rcpt), rcpt.added})
	}
	for len(commands) > 0 {
		n := 1
		if s.up.Capabilities().Pipelining {
			n = min(len(commands), maxPending)
		}
		if r := s.exchangeAll(commands[:n]); r != nil {
			return r
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

// exchangeAll sends commands and expects 2xx to each. What the server has against an address that the filter wants is
// told as it is: coming again does not help if the server says so. Addresses that the client was told to be taken
// are refused for now, whatever the server says of them this time.
func (s *session) exchangeAll(commands []envelopeCommand) *smtp.Reply {
	for _, c := range commands {
		s.up.Command(c.line)
	}
	if err := s.up.Flush(); err != nil {
		return s.lostMessage("envelope", err)
	}
	var refused *smtp.Reply
	wanted := false
	for _, c := range commands {
		r, err := s.up.Reply(s.replyTimeout())
		if err != nil {
			return s.lostMessage("envelope", err)
		}
		if !r.Positive() && refused == nil {
			refused, wanted = &r, c.wanted
		}
	}
	if refused == nil {
		return nil
	}
	s.srv.log.Warn("server refuses the envelope that was to be used", "session", s.id, "client", s.client.addr.Addr().String(), "qid", s.tx.qid, "filter", wanted, "reply", clip(refused.String()))
	r := reply(451, "4.3.0", "Envelope is not accepted now, try again later ("+s.id+")")
	if wanted && (refused.Temporary() || refused.Code/100 == 5) {
		r = passOn(*refused)
	}
	return &r
}

// exchange sends one command and reads its reply.
func (s *session) exchange(command string) (smtp.Reply, error) {
	s.up.Command(command)
	if err := s.up.Flush(); err != nil {
		return smtp.Reply{}, err
	}
	return s.up.Reply(s.replyTimeout())
}

func (s *session) lostMessage(act string, err error) *smtp.Reply {
	s.upstreamFault(act, err)
	s.abandonUpstream()
	r := s.lost(err)
	return &r
}

// refusedData gives nil for 354, else what the client is told.
func (s *session) refusedData(r smtp.Reply) *smtp.Reply {
	if r.Code == 354 {
		return nil
	}
	r = passOn(r)
	if r.Positive() {
		// No server says 2xx to DATA.
		return s.lostMessage("data", errors.New("reply to DATA is "+r.String()))
	}
	return &r
}
