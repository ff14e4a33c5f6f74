// Package filter puts messages to a filter by way of a multiplexor, and carries out what the filter wants. It
// is told what is known of a client and its message, and knows nothing of sessions and next hops.
//
// One message goes through it in steps, each of which may be the last: [Filter.Begin] with the sender, then
// [Message.AskSender]; [Message.AskRecipient] and [Message.Took] for each recipient; the content by
// [Message.Write]; [Message.Finish], [Message.Open] and [Message.Scan]. The [Result] has the verdict, and the
// envelope and content that the filter made of the message.
package filter

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

// Stages are the questions that are asked.
type Stages struct {
	Relayok, Helook, Senderok, Recipok, Scan bool
}

// Multiplexor answers requests; *[mxproto.Client] is one.
type Multiplexor interface {
	// Ask puts a request that every multiplexor knows.
	Ask(ctx context.Context, request string) (string, error)
	// AskOurs puts a request that only ours knows.
	AskOurs(ctx context.Context, request string) (string, error)
}

// Filter puts questions to the multiplexor. It is made ready by its literal.
type Filter struct {
	Multiplexor Multiplexor
	Spool       *workdir.Spool
	Stages      Stages
	Timeout     time.Duration // for a scan, from the end of the content on
	MaxDelay    time.Duration // that a filter may ask for
	OnFailure   OnFailure
	ScannedBy   string // text of an X-Scanned-By field; "" for none

	Mailer, Host string // of the next hop, as filters are told
}

// Messages reports whether messages are put to the filter, and not only clients.
func (f *Filter) Messages() bool { return f.Stages.Senderok || f.Stages.Recipok || f.Stages.Scan }

// Verdict is what the filter makes of a client, a sender or a recipient. The zero Verdict lets it pass.
type Verdict struct {
	Accept  bool // nothing more is asked: of the client, of the message whose sender or recipient was asked about
	Discard bool // the message is to be taken and thrown away
	Refusal *smtp.Reply
	Delay   time.Duration // to wait before the reply
	Err     error         // the filter failed; what is done then was decided by OnFailure
}

// Relayok asks about a client.
func (f *Filter) Relayok(ctx context.Context, c Client) Verdict {
	if !f.Stages.Relayok {
		return Verdict{}
	}
	return f.ask(ctx, c.Session, f.OnFailure.Relayok, mxproto.Relayok{IP: c.IP, Name: c.hostName(), Port: c.Port, MyIP: c.MyIP, MyPort: c.MyPort}.Line())
}

// Helook asks about the name that a client gives in HELO or EHLO.
func (f *Filter) Helook(ctx context.Context, c Client, helo string) Verdict {
	if !f.Stages.Helook {
		return Verdict{}
	}
	return f.ask(ctx, c.Session, f.OnFailure.Helook, mxproto.Helook{IP: c.IP, Name: c.hostName(), Helo: helo, Port: c.Port, MyIP: c.MyIP, MyPort: c.MyPort}.Line())
}

// maxQuestion is how long an answer to a question may take: a client waits five minutes for the greeting and the reply
// to MAIL and RCPT (RFC 5321, 4.5.3.2).
const maxQuestion = 4 * time.Minute

// ask puts one question. What is no verdict is the filter's failure, which the policy decides.
func (f *Filter) ask(ctx context.Context, session string, policy Policy, request string) Verdict {
	ctx, cancel := context.WithTimeout(ctx, min(f.Timeout, maxQuestion))
	defer cancel()
	answer, err := f.Multiplexor.Ask(ctx, request)
	var v mxproto.Verdict
	if err == nil {
		v, err = mxproto.ParseVerdict(answer)
	}
	if err != nil {
		return Verdict{Refusal: policy.refusal(session), Err: err}
	}
	verdict := Verdict{Accept: v.Action == mxproto.Accept, Discard: v.Action == mxproto.Discard, Delay: min(v.Delay, f.MaxDelay)}
	if v.Action == mxproto.Reject || v.Action == mxproto.TempFail {
		verdict.Refusal = refusal(v.Code, v.DSN, v.Text)
	}
	return verdict
}

// refusal makes a reply of the words of a filter.
func refusal(code, dsn, text string) *smtp.Reply {
	n, err := strconv.Atoi(code)
	if err != nil || n < 400 || n > 599 {
		n, dsn = 451, "4.3.0"
	}
	return &smtp.Reply{Code: n, Enhanced: dsn, Lines: strings.Split(text, "\n")}
}

// EmptyDir has the multiplexor, which runs as the workers' account, empty a directory that was put aside.
func (f *Filter) EmptyDir(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, f.Timeout)
	defer cancel()
	answer, err := f.Multiplexor.AskOurs(ctx, mxproto.VerbEmpty+" "+name)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", workdir.ErrNobody, err)
	case answer != mxproto.EmptyOK:
		return fmt.Errorf("the multiplexor's answer: %.200q", answer)
	}
	return nil
}
