package upstream

import (
	"fmt"
	"time"

	"postern/internal/smtp"
)

// LMTP (RFC 2033) answers the end of data once for each recipient that was taken, SMTP once for all. One
// answer cannot tell a client that its message is delivered for one recipient and not for another: 2xx would
// lose mail, 4xx would have it delivered twice when the client tries again.
//
// So by default a message has one recipient. RCPT for another one is answered with 452 4.5.3 in place of
// the server, and the client sends the message again for those (RFC 5321, 4.5.3.1.10); Capabilities say
// so with RcptMax, which goes into EHLO (RFC 9422) for clients that can know before. Nothing is lost and
// nothing is doubled, whatever the server answers.
//
// With Config.LMTPRecipients above one, where sparing the transfers counts for more, the answers are merged:
//
//	all 2xx             the first answer
//	none 2xx            the first 4xx, or if there is none the first 5xx
//	some 2xx, some 4xx  451: never lose; the client tries all again, so that those who have the message get
//	                    it twice (the warning in the log says how many)
//	some 2xx, some 5xx  the first 5xx: the client reports the message as undeliverable though some have got
//	                    it; trying again would not help, and silence would lose it
//
// So are those to a message that has more recipients than its client has named, because a filter added some:
// nobody could send it again for those alone.
var replyOneRecipient = smtp.NewReply(452, "4.5.3", "Too many recipients, send the rest in another message")

// AllowRecipients lets the next transaction have n recipients, whatever [Config.LMTPRecipients] says.
func (c *Conn) AllowRecipients(n int) { c.most = n }

// mayAskFor says whether a command can be sent now, or is refused in place of the server, or neither: then it
// must be known first whether the recipients in front of it are taken.
func (c *Conn) mayAskFor(e expect) (send, refuse bool) {
	most := max(c.srv.conf.LMTPRecipients, c.most)
	switch {
	case !c.srv.lmtp || e != expectRcpt:
		return true, false
	case c.rcpts >= most:
		return false, true
	}
	return c.rcpts+c.asked < most, false
}

// readRecipients reads the answers to the end of data and makes one of them.
func (c *Conn) readRecipients(deadline time.Time) (smtp.Reply, error) {
	if c.rcpts == 0 {
		return smtp.NewReply(554, "5.5.1", "No valid recipients"), nil // RFC 2033, 4.2: no answer is due
	}
	replies := make([]smtp.Reply, 0, 1)
	for range c.rcpts {
		r, err := c.stream.readReply(deadline)
		if err != nil {
			return r, err
		}
		if r.Intermediate() {
			return r, fmt.Errorf("%w: %q is no reply to %s", ErrProtocol, clip(r.String()), expectContent)
		}
		replies = append(replies, r)
	}
	merged, delivered := mergeReplies(replies)
	if delivered > 0 && !merged.Positive() {
		c.srv.conf.Log.Warn("message is delivered to some recipients only", "server", c.srv.name,
			"delivered", delivered, "recipients", len(replies), "reply", clip(merged.String()))
	}
	return merged, nil
}

// mergeReplies makes one reply of those for all recipients, by the table above.
func mergeReplies(replies []smtp.Reply) (merged smtp.Reply, delivered int) {
	var good, temporary, permanent *smtp.Reply
	for i := range replies {
		r := &replies[i]
		switch {
		case r.Positive():
			delivered++
			if good == nil {
				good = r
			}
		case r.Temporary() && temporary == nil:
			temporary = r
		case r.Permanent() && permanent == nil:
			permanent = r
		}
	}
	switch {
	case temporary != nil && good != nil:
		return smtp.NewReply(451, "4.3.0", "Message is not delivered to all recipients, try again later"), delivered
	case temporary != nil:
		return *temporary, delivered
	case permanent != nil:
		return *permanent, delivered
	}
	return *good, delivered
}
