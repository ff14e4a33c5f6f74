package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"postern/internal/logging"
	"postern/internal/sockspec"
	"postern/internal/statfile"
	"postern/internal/tlsconf"
)

// session is one client.
type session struct {
	srv      *server
	conf     *settings
	listener string
	id       uint64

	raw     net.Conn // as accepted
	conn    net.Conn // raw, or TLS over it
	in      input
	tryRead func(fd uintptr) bool // readNow
	r       *bufio.Reader         // nil while nothing is in it, as w
	w       *bufio.Writer

	client, local netip.AddrPort
	balancer      netip.Addr // that has said so; not valid if nobody has
	stat          *statfile.File
	deadline      time.Time // for the login as a whole
	server        *backend  // nil if there is no connection
	chosen        *target   // the server that the user has named; nil for the usual ones
	agreed        []string  // UTF8 and LANG, as the server has taken them
	user          string    // given with USER, or of the last login
	loginAt       time.Time
	tries, errors int
	sent          int64 // bytes of mail and lists
	reason        string
	tls           bool // flags side by side take a word, and not one each
	hasUser       bool // user was given with USER, and PASS may follow
	loggedIn      bool
	stamped       bool // at loginAt
	over          bool // the session ends after what is written
}

func newSession(srv *server, listener string, conn net.Conn) *session {
	s := &session{srv: srv, conf: srv.inForce.Load(), listener: listener, id: srv.number.Add(1), raw: conn,
		client: sockspec.AddrPort(conn.RemoteAddr()), local: sockspec.AddrPort(conn.LocalAddr())}
	s.tryRead = s.readNow // kept, so that a wait allocates nothing
	s.use(direct(conn))
	return s
}

// log writes a line about the session. What stands in all of them is put together for each: kept, it would take a quarter
// of a KiB of a session that waits.
func (s *session) log(level slog.Level, text string, args ...any) {
	s.logAs(context.Background(), level, text, args...)
}

func (s *session) logAs(ctx context.Context, level slog.Level, text string, args ...any) {
	if !s.srv.log.Enabled(ctx, level) {
		return
	}
	who := []any{"session", s.id, "client", s.clientText()}
	if s.balancer.IsValid() {
		who = append(who, "balancer", s.balancer.String())
	}
	s.srv.log.Log(ctx, level, text, append(who, args...)...)
}

func (s *session) clientText() string {
	if !s.client.IsValid() {
		return "local"
	}
	return s.client.Addr().WithZone("").String()
}

func (s *session) use(conn net.Conn) {
	s.forgetRead()
	s.forgetSaid()
	s.conn, s.in = conn, input{fd: -1}
}

// run leads the session from the connection to its end.
func (s *session) run(ctx context.Context) {
	s.srv.meters.connection(s.listener)
	if !s.identify(ctx) {
		return
	}
	addr := s.client.Addr()
	if why := s.srv.limits.enter(ctx, addr); why != "" {
		s.srv.meters.refused()
		s.log(slog.LevelDebug, "refused", "reason", string(why))
		s.deadline = time.Now().Add(5 * time.Second)
		if s.listener != listenPOP3S {
			s.say("-ERR [SYS/TEMP] %s", why)
			s.flush()
		}
		return
	}
	defer s.srv.limits.leave(addr)
	started := time.Now()
	s.deadline = started.Add(s.conf.LoginTimeout)
	if s.conf.StampOnConnect == "remove" {
		s.srv.revoke(ctx, addr)
	}
	s.openStatus(started)
	defer s.stat.Remove()
	defer s.leaveServer()
	if s.listener != listenPOP3S || s.handshake(ctx) {
		if s.greet(ctx) {
			s.loop(ctx)
		}
	}
	s.finish(ctx, started)
}

// finish ends the dialog and says in the log what the session was. It is apart from run, whose frame is on the stack of a
// session that waits: that is to shrink to 4 KiB.
func (s *session) finish(ctx context.Context, started time.Time) {
	s.flush()
	s.forgetRead()
	s.forgetSaid()
	s.linger()
	if s.loggedIn {
		ctx = logging.Earned(ctx)
	}
	s.logAs(ctx, slog.LevelInfo, "session ended", "user", clip(s.user), "loggedin", s.loggedIn, "reason", s.reason, "bytes", s.sent,
		"seconds", int(time.Since(started).Seconds()))
}

// linger lets the client read the last reply, and within TLS that it was the last (RFC 8446, 6.1): closing a connection
// whose input was not read throws away what the client has not read either.
func (s *session) linger() {
	if tc, ok := s.conn.(*tls.Conn); ok {
		_ = tc.CloseWrite()
	}
	quiet := s.reason == whyQuit && !s.tls && !pending(s.raw) // who has said QUIT says nothing more
	tc, ok := s.raw.(*net.TCPConn)
	if !ok || s.reason == clientLeft || quiet || tc.CloseWrite() != nil {
		return
	}
	_ = tc.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, tc, maxFlood)
}

// lingerTime bounds how long that takes.
const lingerTime = 500 * time.Millisecond

func (s *session) openStatus(started time.Time) {
	s.stat, _ = s.srv.stats.New(statfile.Fields{
		Type: programName, Start: started, Local: s.local, Client: s.client.Addr(), ClientName: s.clientText(), Status: "LOGIN",
	})
}

// loop reads commands until the session is over.
func (s *session) loop(ctx context.Context) {
	for !s.over {
		line, err := s.readCommand(ctx)
		if err == nil && s.srv.log.Enabled(ctx, slog.LevelDebug) {
			s.log(slog.LevelDebug, "command", "line", statfile.Command(masked(line, s.loggedIn)))
		}
		switch {
		case errors.Is(err, errLongLine):
			s.mistake("line too long")
		case errors.Is(err, errFlood):
			s.end("endless line", "-ERR line too long")
		case err != nil:
			s.lost(ctx, err)
		case hasControl(line):
			s.mistake("malformed command")
		case s.loggedIn:
			s.transaction(ctx, line)
		default:
			s.authorization(ctx, line)
		}
		if s.errors >= s.conf.MaxErrors {
			s.end("too many errors", "-ERR too many errors")
		}
	}
}

// readCommand waits for a line of the client. What was said is sent before, unless another whole command waits.
func (s *session) readCommand(ctx context.Context) (string, error) {
	if !s.hasLine() && !s.flush() {
		return "", net.ErrClosed
	}
	until := s.deadline
	if s.loggedIn {
		until = time.Now().Add(s.conf.IdleTimeout)
	}
	// The deadline is for the whole line, however slowly it comes.
	if err := s.conn.SetReadDeadline(until); err != nil {
		return "", err
	}
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err := s.await(); errors.Is(err, os.ErrDeadlineExceeded) {
		return "", errSilent
	} else if err != nil {
		return "", err
	}
	line, err := readLine(s.r, maxCommand+maxAuth)
	if err == nil && len(line) > maxCommand-len("\r\n") && parseCommand(line).verb != "AUTH" {
		err = errLongLine // a token in AUTH has often some kB
	}
	return line, err
}

// errSilent is the error of a client that has not sent a byte of its next line in time.
var errSilent = fmt.Errorf("client is silent: %w", os.ErrDeadlineExceeded)

// hasLine reports whether the client's next line was read already.
func (s *session) hasLine() bool {
	if s.r == nil {
		return false
	}
	waiting, _ := s.r.Peek(s.r.Buffered())
	return bytes.IndexByte(waiting, '\n') >= 0
}

// masked hides, of a client that is not logged in, what is no command: it may be a password where none is expected.
func masked(line string, loggedIn bool) string {
	verb := parseCommand(line).verb
	switch verb {
	case "USER", "PASS", "APOP", "AUTH", "CAPA", "STLS", "UTF8", "LANG", "QUIT", "STAT", "LIST", "RETR", "UIDL", "DELE", "TOP", "LAST", "NOOP", "RSET":
		return line
	}
	if !loggedIn {
		return "?"
	}
	return replyText(line[:min(len(line), 60)])
}

// lost ends a session whose client is gone or silent, or that the server ends.
func (s *session) lost(ctx context.Context, err error) {
	why := s.whyLost(ctx, err)
	s.end(why, map[string]string{whyShutdown: "-ERR [SYS/TEMP] server is shutting down", whyTimeout: "-ERR timeout"}[why])
}

// whyLost is the reason for which such a session ends.
func (s *session) whyLost(ctx context.Context, err error) string {
	switch {
	case ctx.Err() != nil:
		return whyShutdown
	case errors.Is(err, os.ErrDeadlineExceeded):
		return whyTimeout
	case errors.Is(err, errLeft), isEnd(err):
		return clientLeft
	}
	return fmt.Sprint("connection lost: ", err)
}

// isEnd reports whether the other side has ended the connection, also within TLS without saying so.
func isEnd(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// Reasons of sessions that end.
const (
	whyShutdown = "shutdown"
	whyTimeout  = "timeout"
	whyQuit     = "quit"
	clientLeft  = "client left" // without a word
)

// end has the session end, with a last line if there is one to say.
func (s *session) end(reason, line string) {
	if s.over {
		return
	}
	s.over, s.reason = true, reason
	if line != "" {
		s.say("%s", line)
	}
}

// mistake answers a command that is wrong.
func (s *session) mistake(text string) {
	s.errors++
	s.say("-ERR %s", text)
}

// say puts a line into the buffer.
func (s *session) say(format string, args ...any) {
	// A failed write shows when the buffer is flushed.
	_, _ = fmt.Fprintf(s.writer(), format+"\r\n", args...)
}

// flush sends what was said.
func (s *session) flush() bool {
	if s.w == nil {
		return true
	}
	if err := s.w.Flush(); err != nil {
		s.end(fmt.Sprint("connection lost: ", err), "")
		return false
	}
	return true
}

// tlsHere is TLS at the listener that the client came to; nil if there is none.
func (s *session) tlsHere() *tlsconf.Listener { return s.srv.tls.Load().clients[s.listener] }

// handshake begins TLS.
func (s *session) handshake(ctx context.Context) bool {
	here := s.tlsHere()
	if here == nil { // a reload has taken it away
		s.end("no TLS any more", "")
		return false
	}
	tc := tls.Server(s.conn, here.Config)
	until := time.Now().Add(s.conf.TLS.Timeout)
	if s.deadline.Before(until) {
		until = s.deadline
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	_ = s.raw.SetDeadline(until) // that of the PROXY header may still hold
	if err := tc.HandshakeContext(ctx); err != nil {
		s.end(fmt.Sprint("TLS: ", err), "")
		s.forgetSaid() // to a client that expects TLS
		return false
	}
	_ = s.raw.SetDeadline(time.Time{})
	s.use(tc)
	s.tls = true
	state := tc.ConnectionState()
	if cert, err := here.Peer(&state); cert != nil {
		s.log(slog.LevelInfo, "certificate of the client", "subject", clip(cert.Subject.String()), "fault", err)
	}
	return true
}

// greet says hello. With APOP the upstream server is asked for its timestamp first.
func (s *session) greet(ctx context.Context) bool {
	stampText := ""
	if s.conf.APOP {
		if !s.connect(ctx) {
			return false
		}
		stampText = s.server.apopStamp
	}
	s.say("+OK %s POP3 ready%s", s.conf.host, stampText)
	return true
}

// timestamp finds the "<...>" of a server that knows APOP, RFC 1939, 7, and puts a space before it.
func timestamp(greeting string) string {
	i := strings.IndexByte(greeting, '<')
	j := strings.LastIndexByte(greeting, '>')
	if i < 0 || j < i || j-i > 200 || strings.ContainsAny(greeting[i:j], " ?") {
		return ""
	}
	return " " + greeting[i:j+1]
}

// targets are the servers that the session is for, in their order.
func (s *session) targets() []target {
	if s.chosen != nil {
		return []target{*s.chosen}
	}
	return s.conf.servers
}

// connect connects to the upstream server.
func (s *session) connect(ctx context.Context) bool {
	if s.server != nil {
		return true
	}
	who := client{s.client, s.local, func() parting { return partingOf(s.raw) }}
	b, err := s.conf.connect(ctx, s.targets(), s.srv.tls.Load().behind, who)
	if err == nil {
		if err = s.repeat(b); err != nil {
			b.close()
		}
	}
	if errors.Is(err, errClient) {
		s.end(clientLeft, "")
		return false
	}
	if err != nil {
		s.srv.meters.upstreamFault()
		s.log(slog.LevelError, "upstream server is not available", "error", err)
		s.end("no upstream server", "-ERR [SYS/TEMP] mail server is not available")
		return false
	}
	s.server = b
	_ = s.stat.Change(func(f *statfile.Fields) { f.Server = b.name })
	return true
}
