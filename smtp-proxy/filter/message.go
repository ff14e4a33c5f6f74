package filter

import (
	"context"
	"fmt"
	"io"
	"time"

	"postern/internal/mxproto"
	"postern/internal/smtp"
	"postern/internal/workdir"
	"postern/smtp-proxy/header"
)

// Message is one message that is put to the filter, in a working directory of its own.
type Message struct {
	filter *Filter
	client Client
	qid    string
	from   smtp.Path
	params []smtp.Param
	dir    *workdir.Dir

	deadline time.Time // of the scan

	content *workdir.Content
	header  header.Header
	body    io.Reader
}

// Begin makes the working directory of a message and writes what is known at MAIL. Remove must follow.
func (f *Filter) Begin(c Client, qid string, from smtp.Path, params []smtp.Param) (*Message, error) {
	dir, err := f.Spool.Create(qid)
	if err != nil {
		return nil, err
	}
	m := &Message{filter: f, client: c, qid: qid, from: from, params: params, dir: dir}
	err = dir.Envelope(workdir.Envelope{
		ID: f.Spool.NewID(), Sender: from.String(), SenderArgs: texts(params), Macros: c.macros(f, qid, from), QueueID: qid,
		ClientName: c.hostName(), ClientIP: c.IP, ClientPort: c.Port, Helo: c.Helo, HasHelo: c.HasHelo,
	})
	return m, err
}

// AskSender asks about the sender.
func (m *Message) AskSender(ctx context.Context) Verdict {
	if !m.filter.Stages.Senderok {
		return Verdict{}
	}
	return m.filter.ask(ctx, m.client.Session, m.filter.OnFailure.Senderok, mxproto.Senderok{
		Sender: m.from.String(), IP: m.client.IP, Name: m.client.hostName(), Helo: m.client.Helo, Dir: m.dir.Path(), QID: m.qid,
		ESMTP: texts(m.params),
	}.Line())
}

// AsksRecipients reports whether AskRecipient asks.
func (m *Message) AsksRecipients() bool { return m.filter.Stages.Recipok }

// AskRecipient asks about a recipient; first is the one that the client named first.
func (m *Message) AskRecipient(ctx context.Context, r Recipient, first string) Verdict {
	if !m.AsksRecipients() {
		return Verdict{}
	}
	return m.filter.ask(ctx, m.client.Session, m.filter.OnFailure.Recipok, mxproto.Recipok{
		Recipient: r.Path.String(), Sender: m.from.String(), IP: m.client.IP, Name: m.client.hostName(), FirstRecipient: first,
		Helo: m.client.Helo, Dir: m.dir.Path(), QID: m.qid, Mailer: m.filter.Mailer, Host: m.filter.Host, Addr: resolved(r.Path),
		ESMTP: texts(r.Params),
	}.Line())
}

// Took tells the filter of a recipient that the message goes to.
func (m *Message) Took(r Recipient) error {
	return m.dir.Recipient(workdir.Recipient{
		Address: r.Path.String(), Mailer: m.filter.Mailer, Host: m.filter.Host, Addr: resolved(r.Path), Args: texts(r.Params),
	})
}

// Write takes a piece of the content, decoded, with CR LF. Its error wraps [workdir.ErrHeader] or
// [workdir.ErrNoSpace], or neither.
func (m *Message) Write(p []byte) (int, error) {
	if m.content == nil {
		var err error
		if m.content, err = m.dir.Content(); err != nil {
			return 0, err
		}
	}
	return m.content.Write(p)
}

// Finish ends the content. From now on the client waits.
func (m *Message) Finish() error {
	if m.filter.Stages.Scan {
		m.deadline = time.Now().Add(m.filter.Timeout)
		m.dir.Deadline(m.deadline)
	}
	return m.dir.Finish()
}

// HeaderSize returns the bytes of the header, after Finish.
func (m *Message) HeaderSize() int64 { return m.dir.HeaderSize() }

// Open reads the header, after Finish, and returns the number of hops that the message has behind it.
func (m *Message) Open() (hops int, err error) {
	head, err := m.dir.Header()
	if err != nil {
		return 0, err
	}
	if m.body, err = m.dir.Body(); err != nil {
		return 0, err
	}
	end := 0
	if m.header, end, _ = header.Split(head); end != len(head) {
		return 0, fmt.Errorf("header of %d bytes ends at %d", len(head), end) // it is not in normal form
	}
	return m.header.Count(header.ReceivedName), nil
}

// Scan has the message scanned, after Open, and carries out what the filter wants. Close must follow on the
// result, and nothing of it may be used after Remove.
func (m *Message) Scan(ctx context.Context, env Envelope) *Result {
	r := &Result{Envelope: env, message: m, body: m.body}
	if !m.filter.Stages.Scan {
		return r
	}
	began := time.Now()
	results, err := m.scan(ctx)
	r.Took = time.Since(began)
	if err != nil {
		return r.failed(err, m.filter.OnFailure.Scan.refusal(m.client.Session))
	}
	r.carryOut(results)
	return r
}

// scan asks for the scan and reads RESULTS.
func (m *Message) scan(ctx context.Context) (*workdir.Results, error) {
	ctx, cancel := context.WithDeadline(ctx, m.deadline)
	defer cancel()
	answer, err := m.filter.Multiplexor.Ask(ctx, mxproto.Scan{QID: m.qid, Dir: m.dir.Path()}.Line())
	if err != nil {
		m.dir.Abandon() // no answer does not mean that no worker is busy in there
		return nil, err
	}
	if err := mxproto.ParseScan(answer); err != nil {
		return nil, err
	}
	return m.dir.Results()
}

// Snapshot opens the files of the working directory, after Finish; RESULTS is among them after Scan.
func (m *Message) Snapshot() (*workdir.Snapshot, error) { return m.dir.Snapshot() }

// Remove removes the working directory.
func (m *Message) Remove() error { return m.dir.Remove() }

// texts returns parameters as typed.
func texts(params []smtp.Param) []string {
	var out []string
	for _, p := range params {
		out = append(out, p.Text)
	}
	return out
}
