package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"postern/internal/smtp"
	"postern/smtp-proxy/header"
)

// errUpstream marks what went wrong on the way to the server.
var errUpstream = errors.New("write to server")

// newSink says where the content of a message goes. For a message that is not filtered the server has
// just said 354, or, if due says so, has still to reply to DATA.
func (s *session) newSink(tx *transaction, due bool) sink {
	switch {
	case tx.discard:
		return &voidSink{tx}
	case tx.filtered != nil:
		return &filterSink{s, tx}
	}
	ahead := &goAhead{r: &s.relay, w: s.relay.content(), due: due}
	editor := &header.Editor{
		Next: ahead, Limit: int(s.conf.MaxHeaderSize), Hops: s.conf.MaxHops, Drop: bool(s.conf.Droppath),
	}
	if !editor.Drop {
		editor.Add = s.receivedField(tx)
	}
	return &streamSink{Editor: editor, s: s, ahead: ahead}
}

// receivedField makes our Received field.
func (s *session) receivedField(tx *transaction) []byte {
	f := header.Received{
		Helo: s.client.helo, Name: s.client.name, Client: s.client.addr.Addr(), Host: s.conf.host, With: s.client.protocol(tx.utf8), ID: tx.qid, When: time.Now(),
	}
	if len(tx.accepted) == 1 {
		f.Rcpt = tx.accepted[0].Path.String()
	}
	return f.AppendTo(make([]byte, 0, 256))
}

// upstreamWriter marks the errors of a server's connection.
type upstreamWriter struct{ w io.Writer }

func (u upstreamWriter) Write(p []byte) (int, error) {
	n, err := u.w.Write(p)
	if err != nil {
		err = fmt.Errorf("%w: %w", errUpstream, err)
	}
	return n, err
}

// goAhead holds content back until the server has said 354 to DATA.
type goAhead struct {
	r       *relay
	w       io.Writer
	due     bool // the reply to DATA was not read yet
	refused bool // and was another one
}

func (g *goAhead) Write(p []byte) (int, error) {
	if err := g.wait(); err != nil {
		return 0, err
	}
	return g.w.Write(p)
}

func (g *goAhead) wait() error {
	if !g.due {
		return nil
	}
	g.due = false
	r, err := g.r.hop.Reply(g.r.timeout)
	if err != nil {
		return fmt.Errorf("%w: %w", errUpstream, err)
	}
	if g.refused = r.Code != 354; g.refused {
		g.r.tx.server = g.r.hop.Server()
		return &refusedContent{r}
	}
	return nil
}

// refusedContent is the server's reply to DATA where it is not 354.
type refusedContent struct{ reply smtp.Reply }

func (e *refusedContent) Error() string { return "server refused DATA: " + e.reply.String() }

// streamSink passes a message on as it comes.
type streamSink struct {
	*header.Editor
	s     *session
	ahead *goAhead
}

func (k *streamSink) finish() smtp.Reply {
	err := k.Close()
	if err == nil {
		err = k.ahead.wait() // there was no content at all
	}
	if err != nil {
		r := k.s.contentRefusal(err)
		k.abort()
		return *r
	}
	return k.s.endContent(&k.s.relay)
}

func (k *streamSink) abort() {
	if !k.ahead.refused { // else the server waits for commands
		k.s.relay.letGo(broken)
	}
}

// voidSink takes a message that the filter wants thrown away.
type voidSink struct{ tx *transaction }

func (*voidSink) Write(p []byte) (int, error) { return len(p), nil }

func (k *voidSink) finish() smtp.Reply {
	k.tx.discarded = true
	return reply(250, "2.0.0", "Ok: queued as "+k.tx.qid)
}

func (*voidSink) abort() {}
