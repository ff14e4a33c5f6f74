package upstream

import (
	"errors"
	"fmt"
	"time"

	"postern/internal/smtp"
)

// quiet fails the connection if the server said something out of turn.
func (c *Conn) quiet() error {
	err := c.stream.quiet()
	if err == nil {
		return nil
	}
	if errors.Is(err, errTalks) {
		return c.lastWord(fmt.Errorf("%w: %w", ErrProtocol, err))
	}
	return c.fail(err, replyLost)
}

// failWrite fails the connection because a write failed. Often the server has said why.
func (c *Conn) failWrite(err error) error {
	err = fmt.Errorf("write: %w", err)
	if c.err == nil && errors.Is(c.stream.quiet(), errTalks) {
		return c.lastWord(err)
	}
	return c.fail(err, replyLost)
}

// lastWord fails the connection because of err. If the server has refused out of turn, such as by a 421 or by
// a 552 in the middle of the content, its reply is the one for the client: nothing was accepted, as neither
// commands nor the content had been sent to their end. A positive one counts for nothing.
func (c *Conn) lastWord(err error) error {
	const patience = time.Second // its first bytes are here
	r, readErr := c.stream.readReply(time.Now().Add(patience))
	if readErr != nil || !r.Temporary() && !r.Permanent() {
		return c.fail(err, replyProtocol)
	}
	if c.phase != phaseContent {
		return c.fail(fmt.Errorf("it said %q out of turn", clip(r.String())), replyLost)
	}
	return c.fail(fmt.Errorf("it refused within the content: %q", clip(r.String())), r)
}

// fail makes the connection useless. The first cause stays.
func (c *Conn) fail(err error, r smtp.Reply) error {
	if c.err == nil {
		c.err = &Error{Server: c.srv.name, Reply: r, Err: err}
	}
	c.spent = true
	return c.err
}

// replyFor chooses the reply for an error of reading.
func replyFor(err error) smtp.Reply {
	if errors.Is(err, ErrProtocol) {
		return replyProtocol
	}
	return replyLost
}
