package main

import (
	"errors"
	"fmt"
	"io"

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
