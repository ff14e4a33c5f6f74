package upstream

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"postern/internal/smtp"
)

// expect says what a reply that is due answers, and so what it may be.
type expect uint8

const (
	expectOther   expect = iota
	expectReset          // RSET of ours, in front of another session's commands: nobody else sees the reply
	expectMail           //
	expectRcpt           //
	expectData           // 3xx says go on
	expectAuth           // AUTH and the lines of its dialog; 3xx says go on
	expectContent        // the end of data
)

// due is a reply that was not read yet.
type due struct {
	expect expect
	held   bool // the command was not sent yet
	full   bool // nor will it be: the reply is ours
}

// phase says what a Conn is in the middle of.
type phase uint8

const (
	phaseCommands phase = iota
	phaseContent        // behind 354, until EndContent
	phaseEnd            // the end of data was sent, its reply is due
)

// Conn is a connection to a server, greeted and ready for MAIL. It is for one goroutine, and must be given
// back by Release or Abort.
type Conn struct {
	srv    *server
	stream *stream
	setup  *tlsSetup    // as it was when the connection was opened
	client Client       // who the server thinks we speak for; only with ClientIP
	origin netip.Prefix // whose share it is of; Client.Origin
	caps   Capabilities
	log    *slog.Logger // nil unless the dialog is logged

	born   time.Time
	idle   time.Time // since when
	spent  bool      // must not be used for another session
	no     int       // senders and recipients that the server refused since it took a message
	looked time.Time // up to then nothing was said, and nothing was asked since; zero if it was not looked
	ended  bool
	err    error // sticky

	due    []due
	held   []string // commands that wait for earlier replies
	phase  phase
	open   bool // the server may have a transaction
	mails  int  // messages sent on it
	rcpts  int  // recipients the server took in this transaction
	asked  int  // RCPT commands whose replies are due
	most   int  // recipients that the transaction may have in any case
	sent   int  // replies that are due to commands that were sent
	inAuth bool // the server waits for a line of an AUTH dialog
	dot    smtp.DotWriter
}

// Server gives the URL of the server.
func (c *Conn) Server() string { return c.srv.name }

// Capabilities gives what the server offers, after TLS and XCLIENT.
func (c *Conn) Capabilities() Capabilities { return c.caps }

// Command adds a command, without its line end, to those that Flush sends. Each must be followed by a
// call of Reply some time, and DATA before another command (RFC 2920, 3.1). Those that the server must not get
// yet, because it does not pipeline or for the reasons of lmtp.go, are sent when the replies in front of theirs
// are read. An error shows at Flush.
func (c *Conn) Command(line string) {
	switch {
	case c.err != nil:
		return
	case c.phase != phaseCommands:
		c.fail(fmt.Errorf("%w: command within content", ErrMisuse), replyProtocol)
		return
	case len(c.due) > 0 && c.due[len(c.due)-1].expect == expectData: // the server might take it for content
		c.fail(fmt.Errorf("%w: command behind DATA", ErrMisuse), replyProtocol)
		return
	case strings.ContainsAny(line, "\r\n\x00"):
		c.fail(fmt.Errorf("%w: command of more than one line", ErrMisuse), replyProtocol)
		return
	}
	verb, _, _ := strings.Cut(line, " ")
	if strings.EqualFold(verb, smtp.Auth) && !c.private() {
		c.fail(errInClear, replyNoTLS)
		return
	}
	d := due{expect: c.expectation(strings.ToUpper(verb))}
	if c.srv.network == "maildir" {
		line = withDomain(line, c.srv.conf.Helo)
	}
	c.debug("command", d.expect, line)
	if len(c.held) > 0 || !c.caps.Pipelining && len(c.due) > 0 || c.srv.lmtp && d.expect == expectRcpt {
		d.held = true
		c.due = append(c.due, d)
		c.held = append(c.held, line)
		c.sendHeld()
		return
	}
	c.due = append(c.due, d)
	c.put(d.expect, line)
}

// expectation gives what the reply to a verb may be, and notes what the verb means for the connection.
func (c *Conn) expectation(verb string) expect {
	if c.inAuth {
		return expectAuth // a line of its dialog
	}
	switch verb {
	case smtp.Mail:
		return expectMail
	case smtp.Rcpt:
		return expectRcpt
	case smtp.Data:
		return expectData
	case smtp.Auth:
		c.spent = true
		return expectAuth
	case smtp.Rset, smtp.Noop, smtp.Vrfy, smtp.Help, smtp.Expn:
		return expectOther
	}
	c.spent = true // QUIT, or what we do not know the effect of
	return expectOther
}

// put writes a command.
func (c *Conn) put(e expect, line string) {
	switch e {
	case expectMail:
		c.open, c.rcpts, c.asked = true, 0, 0
	case expectRcpt:
		c.asked++
	}
	c.stream.command(line)
}

// Flush sends all commands in one write. If no reply is due to earlier ones, the server must not have said
// anything since; if it has, or the connection ended, the error says so and nothing was sent.
func (c *Conn) Flush() error {
	if c.err != nil {
		return c.err
	}
	if c.stream.unsent() == 0 {
		return nil
	}
	if c.sent == 0 && time.Since(c.looked) >= lookTime {
		if err := c.quiet(); err != nil {
			return err
		}
	}
	c.looked = time.Time{}
	if err := c.stream.flush(c.srv.conf.WriteTimeout); err != nil {
		return c.failWrite(err)
	}
	c.sent = c.inFlight()
	return nil
}

// lookTime is how long a look at what the server has said counts: as long as it takes to put commands
// together, but not while a filter is asked between them.
const lookTime = 5 * time.Millisecond

// inFlight counts the replies that are due to commands that are sent or on their way.
func (c *Conn) inFlight() int {
	n := 0
	for _, d := range c.due {
		if !d.held && !d.full {
			n++
		}
	}
	return n
}

// sendHeld sends commands that were held back, as far as now is the time. Commands are sent, and answered, in
// the caller's order.
func (c *Conn) sendHeld() {
	for len(c.held) > 0 {
		if !c.caps.Pipelining && c.inFlight() > 0 {
			return
		}
		d := &c.due[len(c.due)-len(c.held)]
		switch send, refuse := c.mayAskFor(d.expect); {
		case refuse:
			d.full = true
		case !send:
			return
		default:
			c.put(d.expect, c.held[0])
		}
		d.held = false
		c.held = c.held[1:]
	}
	c.held = nil
}

// Reply reads the next reply that is due, in the order of the commands; commands not yet sent are sent. Of a
// server that does not answer within timeout nothing more is expected. An error is an [*Error], and the
// connection is of no more use behind it.
func (c *Conn) Reply(timeout time.Duration) (smtp.Reply, error) {
	deadline := time.Now().Add(timeout)
	for {
		switch {
		case c.err != nil:
			return smtp.Reply{}, c.err
		case len(c.due) == 0 || c.phase == phaseContent:
			return smtp.Reply{}, c.fail(fmt.Errorf("%w: no reply is due", ErrMisuse), replyProtocol)
		}
		d := c.due[0]
		if d.full {
			c.shift()
			return replyOneRecipient, nil
		}
		if err := c.Flush(); err != nil {
			return smtp.Reply{}, err
		}
		r, err := c.read(d, deadline)
		if err != nil {
			return smtp.Reply{}, err
		}
		if d.expect != expectReset {
			c.debugReply(r)
			return r, nil
		}
	}
}

// read reads the reply to d and sees that it can be one.
func (c *Conn) read(d due, deadline time.Time) (smtp.Reply, error) {
	var r smtp.Reply
	var err error
	if d.expect == expectContent && c.srv.lmtp {
		r, err = c.readRecipients(deadline)
	} else {
		r, err = c.stream.readReply(deadline)
	}
	if err != nil {
		return r, c.fail(fmt.Errorf("read reply: %w", err), replyFor(err))
	}
	if r.Code == 421 {
		c.spent = true
	}
	if !d.expect.allows(r) {
		return r, c.fail(fmt.Errorf("%w: %q is no reply to %s", ErrProtocol, clip(r.String()), d.expect), replyProtocol)
	}
	c.shift()
	c.after(d.expect, r)
	return r, c.overrun(d.expect)
}

// shift takes the first reply off those that are due.
func (c *Conn) shift() {
	if !c.due[0].held && !c.due[0].full {
		c.sent--
	}
	c.due = c.due[:copy(c.due, c.due[1:])]
}

// overrun sees that no more came than was asked for (CMD-27). Behind the reply to a message it is too late
// to take that back: what the server said first about the message stands, and only the connection is lost.
func (c *Conn) overrun(e expect) error {
	if len(c.due) > 0 || c.stream.r == nil {
		return nil
	}
	err := c.fail(fmt.Errorf("%w: %w", ErrProtocol, errTalks), replyProtocol)
	if e == expectContent {
		return nil
	}
	return err
}

// allows says whether a reply can be the answer.
func (e expect) allows(r smtp.Reply) bool {
	switch e {
	case expectData:
		return r.Code == 354 || r.Temporary() || r.Permanent()
	case expectAuth:
		return r.Code == 334 || !r.Intermediate()
	case expectReset:
		return r.Positive()
	}
	return !r.Intermediate()
}

// String names what was asked.
func (e expect) String() string {
	return [...]string{"a command", "RSET", "MAIL", "RCPT", "DATA", "AUTH", "the end of data"}[e]
}

// after notes what a reply means for the connection.
func (c *Conn) after(e expect, r smtp.Reply) {
	switch e {
	case expectMail:
		c.open = c.open && r.Positive()
		c.refused(r)
	case expectRcpt:
		c.asked--
		if r.Positive() {
			c.rcpts++
		}
		c.refused(r)
	case expectData:
		if r.Code == 354 {
			c.phase = phaseContent
			c.dot = smtp.DotWriter{W: contentWriter{c}}
		}
	case expectAuth:
		c.inAuth = r.Code == 334
	case expectContent:
		c.phase = phaseCommands
		c.open, c.rcpts, c.most = false, 0, 0
		if r.Positive() {
			c.no = 0
		}
		if c.mails++; c.caps.MailMax > 0 && c.mails >= c.caps.MailMax {
			c.spent = true // RFC 9422: another one would be refused
		}
	}
	if len(c.held) > 0 {
		c.sendHeld()
	}
}

// Release gives the connection back, to be kept for other sessions if it is good for that; a transaction
// that is open is ended by RSET, for which the server gets a few seconds.
func (c *Conn) Release() {
	if c.ended {
		return
	}
	if len(c.due) == 1 && c.due[0].expect == expectReset && c.sent == 0 {
		c.stream.giveBackOut() // nothing was asked of it
		c.due = nil
	}
	if c.err == nil && !c.spent && c.phase == phaseCommands && len(c.due) == 0 && c.open {
		c.Command(smtp.Rset)
		if r, err := c.Reply(resetTime); err == nil && r.Positive() {
			c.open = false
		}
	}
	c.ended = true
	defer c.srv.leave(c.origin)
	switch {
	case c.err != nil || c.phase != phaseCommands || len(c.due) > 0 || c.open:
		c.close()
		return
	case c.spent, c.no >= mostRefused:
		c.quit()
		return
	}
	c.rcpts, c.asked, c.most, c.due, c.held = 0, 0, 0, nil, nil
	c.srv.put(c)
}

// Return is Release for a connection whose place at the server others are to have: it is not kept.
func (c *Conn) Return() {
	c.spent = true
	c.Release()
}

// refused counts what the server refused.
func (c *Conn) refused(r smtp.Reply) {
	if !r.Positive() {
		c.no++
	}
}

// mostRefused is how many refusals end the use of a connection for others: servers hold them against whoever
// speaks, answer later and later, and hang up in the end. Postfix begins with that at ten.
const mostRefused = 5

// resetTime bounds how long Release waits for the reply to RSET.
const resetTime = 5 * time.Second

// Abort closes the connection at once. What the server has got of a message is void without its end.
func (c *Conn) Abort() {
	if !c.ended {
		c.ended = true
		c.close()
		c.srv.leave(c.origin)
	}
}

func (c *Conn) close() {
	c.stream.close()
	c.srv.open.Add(-1)
}

// quit closes a connection that is in order, and says so to the server.
func (c *Conn) quit() {
	c.stream.quit()
	c.srv.open.Add(-1)
}

// clip shortens what a server said, for errors.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

// debug writes the dialog to the log. What is said in AUTH is nobody's business.
func (c *Conn) debug(what string, e expect, line string) {
	if c.log == nil {
		return
	}
	if e == expectAuth {
		line = "AUTH ..."
	}
	c.log.Debug(what, "server", c.srv.name, "text", clip(line))
}

func (c *Conn) debugReply(r smtp.Reply) {
	if c.log != nil {
		c.log.Debug("reply", "server", c.srv.name, "text", clip(r.String()))
	}
}
