package main

import (
	"errors"
	"log/slog"
	"slices"

	"postern/internal/smtp"
	"postern/smtp-proxy/filter"
)

// resume issues the envelope anew, as far as the client was told that it is taken, if the connection on which
// it was issued was let go while the client was idle. The next hop may see things otherwise now: then the
// message is refused for now.
func (r *relay) resume() *smtp.Reply {
	if r.asked || len(r.tx.accepted) == 0 || r.tx.discard {
		return nil
	}
	env := r.tx.envelope()
	reply := r.issue(&env)
	r.asked = reply == nil
	return reply
}

// openContent brings the next hop to the 354 for an envelope. The server may have closed the connection
// while the filter was busy; then, nothing of the message having been sent, another one is taken.
func (r *relay) openContent(env *filter.Envelope) *smtp.Reply {
	switch {
	case r.hop == nil:
	case !env.Changed && r.asked:
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

// issue names an envelope to a next hop that has none. Each of its recipients must be taken, or the message
// is refused for now: the client was told that they are.
func (r *relay) issue(env *filter.Envelope) *smtp.Reply {
	if r.gone {
		reply := r.owner.lost("", nil, nil)
		return &reply
	}
	if err := r.connect(); err != nil {
		return r.lost("connect", err)
	}
	if env.NeedsUTF8() && !r.hop.Capabilities().SMTPUTF8 {
		return refusalOf(550, "5.6.7", "Address of the filter needs SMTPUTF8")
	}
	r.hop.AllowRecipients(len(env.Rcpts))
	// The filter may have changed the content: what the client announced is not its size any more.
	params := slices.DeleteFunc(slices.Clone(env.Params), func(p smtp.Param) bool { return p.Key == smtp.ParamSize && r.tx.filtered != nil })
	commands := []envelopeCommand{{r.mailLine(env.From, params), env.NewFrom}}
	for _, rcpt := range env.Rcpts {
		commands = append(commands, envelopeCommand{r.rcptLine(rcpt), rcpt.Added})
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

// exchangeAll sends commands and expects 2xx to each. What the next hop has against an address that the
// filter wants is told as it is: coming again does not help if it says so. Addresses that the client was told
// to be taken are refused for now, whatever the next hop says of them this time.
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

// endContent ends the content and returns the next hop's reply: the only place where a 250 for a message
// comes from.
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
