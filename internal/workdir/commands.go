package workdir

import (
	"fmt"
	"strconv"

	"postern/internal/percent"
)

// Envelope is what is known about a message when its sender was named.
type Envelope struct {
	ID         string      // message id, from Spool.NewID
	Sender     string      // address as it is to be shown to filters, in angle brackets; "" is written as "<>"
	SenderArgs []string    // ESMTP parameters of MAIL, as typed
	Macros     [][2]string // names and values in the order they are to be written; client_port is added behind them
	QueueID    string      // "" if not known yet
	ClientName string      // host name of the client, or its address in square brackets
	ClientIP   string      // textual address without brackets
	ClientPort int         // 0 if unknown
	Helo       string      // argument of the last HELO, EHLO or LHLO
	HasHelo    bool        // there was one
}

// Recipient is an accepted recipient. Empty Mailer, Host and Addr are unknown.
type Recipient struct {
	Address, Mailer, Host, Addr string
	Args                        []string // ESMTP parameters of RCPT, as typed
}

// unknown stands for an empty word, which would shift those behind it.
const unknown = "?"

// line appends a COMMANDS line: the letter and its one encoded argument.
func line(b []byte, letter byte, arg string) []byte {
	b = append(b, letter)
	b = percent.Append(b, arg, percent.Command)
	return append(b, '\n')
}

// macro appends a macro, but for the end of its line. A space is also before an empty value.
func macro(b []byte, name, value string) []byte {
	b = append(b, CommandMacro)
	b = percent.Append(b, name, percent.Command)
	b = append(b, ' ')
	return percent.Append(b, value, percent.Command)
}

// append adds the lines of an Envelope to b, in the order of MIMEDefang.
func (e *Envelope) append(b []byte) []byte {
	sender := e.Sender
	if sender == "" {
		sender = "<>"
	}
	b = line(b, CommandID, e.ID)
	b = line(b, CommandSender, sender)
	for _, a := range e.SenderArgs {
		b = line(b, CommandSenderArg, a)
	}
	for _, m := range e.Macros {
		if m[0] == "" {
			continue
		}
		b = append(macro(b, m[0], m[1]), '\n')
	}
	b = append(b, CommandMacro)
	b = append(b, "client_port "...)
	b = strconv.AppendInt(b, int64(max(e.ClientPort, 0)), 10)
	b = append(b, '\n')
	if e.QueueID != "" {
		b = line(b, CommandQueueID, e.QueueID)
	}
	b = line(b, CommandClientName, e.ClientName)
	b = line(b, CommandClientIP, e.ClientIP)
	if e.HasHelo {
		b = line(b, CommandHelo, e.Helo)
	}
	return b
}

// append adds the lines of a Recipient to b.
func (r *Recipient) append(b []byte) []byte {
	b = append(b, CommandRecipient)
	for i, w := range []string{r.Address, r.Mailer, r.Host, r.Addr} {
		if i > 0 {
			b = append(b, ' ')
		}
		if w == "" {
			w = unknown
		}
		b = percent.Append(b, w, percent.Command)
	}
	b = append(b, '\n')
	for _, a := range r.Args {
		b = line(b, CommandRecipientArg, a)
	}
	return b
}

// Envelope writes what is known at MAIL. It is readable for workers when the call returns: filters look at COMMANDS
// while they judge the sender and the recipients.
func (d *Dir) Envelope(e Envelope) error {
	d.queueID = e.QueueID
	return d.command(e.append(make([]byte, 0, 512)))
}

// QueueID writes the message's queue id if it is not the one that was written last.
func (d *Dir) QueueID(qid string) error {
	if qid == d.queueID {
		return nil
	}
	d.queueID = qid
	return d.command(line(nil, CommandQueueID, qid))
}

// Recipient writes a recipient that was accepted. Refused ones are not written.
func (d *Dir) Recipient(r Recipient) error { return d.command(r.append(make([]byte, 0, 128))) }

// command appends whole lines to COMMANDS.
func (d *Dir) command(lines []byte) error {
	if d.commands == nil {
		return fmt.Errorf("write COMMANDS of %q: %w", d.name, errRemoved)
	}
	if _, err := d.commands.Write(lines); err != nil {
		return classify(fmt.Errorf("write COMMANDS of %q: %w", d.name, err))
	}
	return nil
}
