package main

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"postern/internal/smtp"
	"postern/internal/statfile"
	"postern/smtp-proxy/upstream"
)

// session is one client on one connection. It is run by one goroutine, which owns everything here but
// what mu guards.
type session struct {
	srv       *server
	conf      *live // as it was when the session began
	conn      *smtp.Conn
	id        string
	started   time.Time
	client    client
	offered   offer // in reply to EHLO
	tx        *transaction
	holding   bool // up is not the server behind, but where messages are held
	up        *upstream.Conn
	pending   []pendingReply
	wrong     int // errors and refusals in all
	errors    int // commands in error since a message was accepted; so for the next two
	refusals  int // senders, recipients and messages that were refused for good
	junk      int // commands of no use
	owed      int // errors and refusals that the client has not waited for yet
	messages  int
	strict    bool          // a bare LF is refused
	open      bool          // filter accepted the client's address: no more filtering on this connection
	openName  bool          // filter accepted the name in HELO: no more filtering until the client says another
	idle      time.Duration // how long the client has said nothing before its connection to the server was given back
	counted   bool          // the address is counted in the crowd
	gate      string
	announced bool // listeners were told that it began
	barred    bool // greeted with a 5xx: only QUIT is left
	closing   bool // end the session once replies are flushed
	silent    bool // the last words are said
	fruitless bool // the command of the moment led to nothing
	secrets   bool // the last command was AUTH: what follows and is no command is not logged
	stat      *statfile.File

	raw   net.Conn // below TLS, if there is TLS
	mu    sync.Mutex
	waits waits
}

// reply makes a reply of one line.
func reply(code int, enhanced, text string) smtp.Reply { return smtp.NewReply(code, enhanced, text) }

// run leads the session from the first byte to the last.
func (s *session) run() {
	defer s.end()
	if !s.begin() {
		return
	}
	for !s.closing && s.step() {
	}
	s.settle()
	s.flush()
}

// step waits for one command and carries it out; false ends the session without another word.
func (s *session) step() bool {
	if s.owed > 0 && !s.penance() {
		return false
	}
	if !s.conn.HasLine() {
		s.settle()
	}
	if s.tx == nil && s.refusals >= s.conf.MaxRefusals {
		s.endRefused() // no message came of it
	}
	if s.closing {
		return true
	}
	if !s.conn.HasLine() && (!s.flush() || !s.rest()) {
		return false
	}
	text, bare, err := s.conn.ReadLine(smtp.MaxAuth)
	s.awake()
	if s.mayReturn() && errors.Is(err, os.ErrDeadlineExceeded) && !s.srv.draining.Load() {
		s.returnUpstream()
		return true // and wait on
	}
	s.idle = 0
	if err != nil {
		return s.readFailed(err)
	}
	if bare && s.strict {
		s.close(gateNewline, reply(500, "5.5.2", "Bare <LF> received"))
		return true
	}
	cmd, err := smtp.ParseCommand(text)
	if err != nil {
		s.malformed(text, err)
		return true
	}
	if len(text)+2 > smtp.LineLimit(cmd.Verb) {
		s.fail(reply(500, "5.5.2", "Line too long"))
		return true
	}
	if s.srv.debug {
		s.logCommand(cmd)
	}
	s.do(cmd)
	return true
}

// readFailed is the end of a session that could not read a command, unless it stayed in step.
func (s *session) readFailed(err error) bool {
	switch {
	case errors.Is(err, smtp.ErrLineTooLong):
		s.fail(reply(500, "5.5.2", "Line too long"))
		return true
	case errors.Is(err, smtp.ErrNotText):
		// Whatever speaks here, such as a TLS ClientHello, does not speak SMTP.
		s.close(gateForeign, reply(554, "5.5.1", "This is a mail server"))
		return true
	case errors.Is(err, smtp.ErrLineEndless):
		s.close(gateLine, reply(421, "4.7.0", "Line too long, closing the connection"))
		return true
	case errors.Is(err, os.ErrDeadlineExceeded) && s.srv.draining.Load():
		s.close(gateDrain, goingDown)
		return true
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.close(gateTimeout, reply(421, "4.4.2", "Timeout, closing the connection"))
		return true
	case errors.Is(err, io.EOF):
		s.srv.log.Debug("client left", "session", s.id)
	default:
		s.srv.log.Debug("read from client", "session", s.id, "error", err)
	}
	return false
}

// say queues a reply behind those that still wait for the server.
func (s *session) say(r smtp.Reply) {
	if s.silent {
		return
	}
	if len(s.pending) == 0 {
		s.put(r)
		s.srv.meters.reply(r.Code)
		return
	}
	s.pending = append(s.pending, pendingReply{kind: replyKnown, reply: r})
}

// put writes a reply: in ASCII, unless the client has asked for more by SMTPUTF8.
func (s *session) put(r smtp.Reply) {
	if s.tx == nil || !s.tx.utf8 {
		r = r.ASCII()
	}
	s.conn.Reply(r)
}

// close ends the session with a reply that counts for a gate.
func (s *session) close(gate string, r smtp.Reply) {
	if !s.silent {
		s.srv.meters.gate(gate)
		s.hangUp(gate, r)
	}
}

// hangUp says the last words of a session that a gate ends.
func (s *session) hangUp(gate string, r smtp.Reply) {
	s.say(s.conf.named(r))
	s.gate, s.closing, s.silent = gate, true, true
}

// verdict answers a command with what the filter, or a gate, makes of it. 421 from a filter ends the session; one for a
// server that left has done so already, see lost.
func (s *session) verdict(r smtp.Reply) {
	if r.Code == 421 && !s.closing {
		s.hangUp(gateFilter, r)
		return
	}
	s.say(r)
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

// end gives back everything and says in one line what the session was.
func (s *session) end() {
	if s.up != nil && s.client.authed {
		s.up.Abort() // it is of no use to others, so that nothing there need be brought to an end
		s.up = nil
	}
	s.dropTransaction()
	if s.up != nil {
		s.up.Abort()
		s.up = nil
	}
	closeGently(s.conn)
	if s.stat != nil {
		s.stat.Remove()
	}
	if s.counted {
		s.srv.crowd.leaveAddress(s.client.addr.Addr())
	}
	if s.gate == gateProxy && s.client.addr == s.client.peer {
		return // health checks of load balancers: counted, not logged
	}
	took := time.Since(s.started)
	if s.announced {
		s.srv.publish('D', s.id, addressText(s.client.addr.Addr()), seconds(took))
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

// status notes what the session is doing in its status file.
func (s *session) status(text string) {
	if s.stat == nil {
		return
	}
	_ = s.stat.Update(text) // the directory tells of its own troubles, once per change
}
