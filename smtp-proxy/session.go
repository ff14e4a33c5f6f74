package main

import (
	"errors"
	"io"
	"net"
	"os"
	"time"

	"postern/internal/notify"
	"postern/internal/smtp"
)

// session is one client on one connection. It is run by one goroutine; only wait is for others as well.
type session struct {
	srv      *server
	conf     *live // as it was when the session began
	conn     *smtp.Conn
	id       string
	started  time.Time
	client   client
	tx       *transaction // nil: none
	wait     waiter
	relay    relay
	limits   errorLimits
	presence presence
	closing  closing
	messages int  // that were answered
	secrets  bool // the last command was AUTH: what follows and is no command is not logged
}

// reply makes a reply of one line.
func reply(code int, enhanced, text string) smtp.Reply { return smtp.NewReply(code, enhanced, text) }

// run leads the session from the first byte to the last.
func (s *session) run() {
	defer s.leave()
	s.answer(s.begin())
	for !s.closing.due() {
		s.step()
	}
	s.settle()
	s.flush()
}

// step waits for one command and carries it out.
func (s *session) step() {
	if s.limits.delays > 0 && !s.tarpit() {
		s.closing.begin("")
		return
	}
	if !s.conn.HasLine() {
		s.settle()
	}
	if s.tx == nil && s.limits.refusedTooOften() {
		s.endRefused() // no message came of it
	}
	if s.closing.due() {
		return
	}
	if !s.conn.HasLine() {
		if o, ok := s.rest(); !ok {
			s.answer(o)
			return
		}
	}
	text, bare, err := s.conn.ReadLine(smtp.MaxAuth)
	s.wait.end()
	if s.mayReturn() && errors.Is(err, os.ErrDeadlineExceeded) && !s.srv.draining.Load() {
		s.returnUpstream()
		return // and wait on
	}
	s.wait.idle = 0
	s.answer(s.line(text, bare, err))
}

// line carries out a line of the client, if it is a command.
func (s *session) line(text []byte, bare bool, err error) outcome {
	if err != nil {
		return s.readFailed(err)
	}
	if bare && s.strict() {
		return closed(gateNewline, reply(500, "5.5.2", "Bare <LF> received"))
	}
	cmd, err := smtp.ParseCommand(text)
	if err != nil {
		return malformed(text, err)
	}
	if len(text)+2 > smtp.LineLimit(cmd.Verb) {
		return failed(lineTooLong)
	}
	if s.srv.debug {
		s.logCommand(cmd)
	}
	return s.do(cmd)
}

var lineTooLong = reply(500, "5.5.2", "Line too long")

// readFailed is the end of a session that could not read a line, unless it stayed in step.
func (s *session) readFailed(err error) outcome {
	switch {
	case errors.Is(err, smtp.ErrLineTooLong):
		return failed(lineTooLong)
	case errors.Is(err, smtp.ErrNotText):
		return closed(gateForeign, notSMTP) // such as a TLS ClientHello
	case errors.Is(err, smtp.ErrLineEndless):
		return closed(gateLine, reply(421, "4.7.0", "Line too long, closing the connection"))
	case errors.Is(err, os.ErrDeadlineExceeded) && s.srv.draining.Load():
		return closed(gateDrain, goingDown)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return closed(gateTimeout, reply(421, "4.4.2", "Timeout, closing the connection"))
	case errors.Is(err, io.EOF):
		s.srv.log.Debug("client left", "session", s.id)
	default:
		s.srv.log.Debug("read from client", "session", s.id, "error", err)
	}
	return gone
}

// tarpit has the client wait for what it did wrong; false says that it does not read its replies.
func (s *session) tarpit() bool {
	s.settle()
	ok := s.flush()
	if d := s.limits.takeDelay(); !s.closing.due() && d > 0 {
		if s.mayReturn() && d >= s.conf.UpstreamIdle {
			s.returnUpstream()
		}
		s.srv.pause(d)
	}
	return ok
}

// say gives the client a reply, behind those that still wait for the next hop.
func (s *session) say(r smtp.Reply) {
	if s.closing.state == stateSilent {
		return
	}
	if !s.relay.say(r) {
		s.put(r)
	}
}

// put writes a reply and counts it: in ASCII, unless the client has asked for more by SMTPUTF8.
func (s *session) put(r smtp.Reply) {
	if s.tx == nil || !s.tx.utf8 {
		r = r.ASCII()
	}
	s.conn.Reply(r)
	s.srv.metrics.reply(r.Code)
}

// flush sends the replies that wait; false says that the client does not read them.
func (s *session) flush() bool {
	d := s.conf.WriteTimeout
	if s.srv.draining.Load() {
		d = min(d, s.srv.drainGrace)
	}
	err := s.conn.Flush(time.Now().Add(d))
	if err != nil {
		s.srv.log.Debug("write to client", "session", s.id, "error", err)
	}
	return err == nil
}

// leave gives back everything and says in one line what the session was.
func (s *session) leave() {
	if s.relay.bound {
		s.relay.letGo(forgotten) // it is of no use to others, so that nothing there need be brought to an end
	}
	s.dropTransaction()
	s.relay.letGo(forgotten)
	closeGently(s.conn)
	s.presence.end()
	if s.closing.gate == gateProxy && s.client.addr == s.client.peer {
		return // health checks of load balancers: counted, not logged
	}
	took := time.Since(s.started)
	if s.presence.announced {
		s.srv.publish(notify.LetterDisconnected, s.id, addressText(s.client.addr.Addr()), seconds(took))
	}
	s.logEnd(took)
}

// closeGently ends a TCP connection so that the last reply arrives: unread input at close time would
// make the kernel reset it.
func closeGently(conn *smtp.Conn) {
	if tcp, ok := conn.Net().(*net.TCPConn); ok && conn.Pending() {
		_ = tcp.CloseWrite()
		_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
		for left := 256 << 10; left > 0; {
			window, err := conn.Window()
			if err != nil {
				break
			}
			left -= len(window)
			conn.Discard(len(window))
		}
	}
	_ = conn.Close()
}
