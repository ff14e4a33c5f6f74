package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"postern/internal/logging"
	"postern/internal/statfile"
)

// authorization carries out a command of a client that is not logged in. RFC 1939, 4 and 7.
func (s *session) authorization(ctx context.Context, line string) {
	c := parseCommand(line)
	switch c.verb {
	case "USER":
		s.doUser(c.arg)
	case "PASS":
		s.doPass(ctx, c.arg)
	case "APOP":
		s.doAPOP(ctx, c.arg)
	case "AUTH":
		s.doAuth(ctx, c.arg)
	case "STLS":
		s.doSTLS(ctx, c.arg)
	case "CAPA":
		s.doCapa(ctx, c.arg)
	case "UTF8":
		s.doUTF8(ctx, c.arg)
	case "LANG":
		s.doLang(ctx, c.arg)
	case "QUIT":
		s.end(whyQuit, "+OK bye")
	case "STAT", "LIST", "RETR", "UIDL", "DELE", "TOP", "LAST", "NOOP", "RSET":
		s.mistake("log in first")
	default:
		s.unknown()
	}
}

func (s *session) unknown() {
	s.log(slog.LevelInfo, "unknown command")
	s.mistake("unknown command")
}

// mayLogIn says whether the connection is one for secrets.
func (s *session) mayLogIn() bool {
	here := s.tlsHere()
	return s.tls || !bool(s.conf.LoginRequiresTLS) && (here == nil || !here.Required)
}

// needTLS refuses what is secret when it must not come in clear.
func (s *session) needTLS() bool {
	if s.mayLogIn() {
		return false
	}
	s.mistake("[AUTH] use STLS first")
	return true
}

func (s *session) doUser(arg string) {
	switch {
	case s.needTLS():
	case arg == "":
		s.mistake("syntax: USER name")
	default:
		_, server := s.conf.choose(arg)
		s.at(server)
		s.user, s.hasUser = arg, true
		s.say("+OK")
	}
}

// at chooses the server for the next login; nil for the usual ones. To leave one that is connected counts as an
// error: who goes to and fro has the proxy connect each time.
func (s *session) at(t *target) {
	if t != s.chosen && s.server != nil {
		s.leaveServer()
		s.errors++
	}
	s.chosen = t
}

// leaveServer ends the connection to the upstream server.
func (s *session) leaveServer() {
	if s.server != nil {
		s.server.close()
		s.server = nil
	}
}

// forget forgets what the client has said in clear. RFC 2595, 4.
func (s *session) forget() {
	s.user, s.hasUser = "", false
	s.at(nil)
	if len(s.agreed) > 0 {
		s.agreed = nil
		s.leaveServer()
	}
}

// doPass logs in at the upstream server.
func (s *session) doPass(ctx context.Context, password string) {
	switch {
	case s.needTLS():
		return
	case !s.hasUser:
		s.mistake("USER first")
		return
	case password == "":
		s.mistake("syntax: PASS password")
		return
	}
	s.login(ctx, "USER", s.user, func(b *backend) (answer, error) {
		a, err := b.ask("USER " + s.nameThere())
		if err != nil || !a.ok {
			return a, err
		}
		return b.ask("PASS " + password)
	})
}

// nameThere is the name of the user as the server was told it. Only that of USER may name a server.
func (s *session) nameThere() string {
	user, _ := s.conf.choose(s.user)
	return user
}

func (s *session) doAPOP(ctx context.Context, arg string) {
	s.at(nil)
	name, digest, ok := strings.Cut(arg, " ")
	_, elsewhere := s.conf.choose(name)
	switch {
	case !bool(s.conf.APOP) || s.server == nil || s.server.apopStamp == "":
		s.mistake("APOP is not available")
	case !ok || name == "" || len(digest) != 32 || strings.Trim(strings.ToLower(digest), "0123456789abcdef") != "":
		s.mistake("syntax: APOP name digest")
	case elsewhere != nil:
		s.mistake("APOP is not available at that server")
	default:
		s.login(ctx, "APOP", name, func(b *backend) (answer, error) { return b.ask("APOP " + name + " " + digest) })
	}
}

// doAuth passes a SASL exchange through. RFC 5034.
func (s *session) doAuth(ctx context.Context, arg string) {
	mechanism, initial, _ := strings.Cut(arg, " ")
	mechanism = strings.ToUpper(mechanism)
	switch {
	case s.needTLS():
		return
	case !s.conf.passes(mechanism):
		s.mistake("[AUTH] mechanism is not available")
		return
	case initial != "" && !validBase64(initial):
		s.mistake("syntax: AUTH mechanism [response]")
		return
	}
	s.at(nil)
	x := &exchange{session: s, mechanism: mechanism}
	s.login(ctx, mechanism, "-", func(b *backend) (answer, error) { return x.run(ctx, b, initial) })
}

// login has try log in at the upstream server. Only the +OK that answers the password, digest or last response
// makes a stamp. USER before counts no more.
func (s *session) login(ctx context.Context, mechanism, user string, try func(*backend) (answer, error)) {
	s.user, s.hasUser = user, false
	if s.srv.limits.logins.ShutByAny(ctx, s.client.Addr()) {
		s.srv.meters.login("deferred")
		s.end(string(tooManyFailures), "-ERR [SYS/TEMP] "+string(tooManyFailures))
		return
	}
	if !s.connect(ctx) {
		return
	}
	a, err := try(s.server)
	switch {
	case errors.Is(err, errClient):
		s.lost(ctx, err)
	case err != nil:
		s.srv.meters.upstreamFault()
		s.log(slog.LevelError, "login", "user", clip(s.user), "server", s.server.name, "error", err)
		s.end("upstream server failed", "-ERR [SYS/TEMP] mail server is not available")
	case a.ok:
		s.loggedIn, s.loginAt = true, time.Now()
		s.errors = 0
		s.srv.limits.logins.Succeeded(ctx, s.client.Addr(), s.known())
		s.srv.meters.login("success")
		s.stamped = s.srv.touch(ctx, s.client.Addr(), s.user, s.server.name) == nil
		s.logAs(logging.Earned(ctx), slog.LevelInfo, "login", "user", clip(s.user), "server", s.server.name, "tls", s.tls)
		_ = s.stat.Change(func(f *statfile.Fields) { f.User, f.Status = s.user, "READY" })
		s.say("%s", strings.TrimSpace("+OK "+a.text))
	default:
		s.refused(ctx, mechanism, a)
	}
}

// known is the name of the user as logins are counted by, "" where the login did not show it.
func (s *session) known() string {
	if s.user == "-" {
		return ""
	}
	return strings.ToLower(s.user)
}

// refused answers a login that failed, with what the server says. The upstream server is left, so that each try
// is the first it sees.
func (s *session) refused(ctx context.Context, mechanism string, a answer) {
	s.leaveServer()
	s.tries++
	code := responseCode(a.text)
	guess := !a.canceled && isWrongPassword(a.text, s.nameThere())
	s.log(slog.LevelInfo, "login failed", "mechanism", mechanism, "user", clip(s.user), "code", code, "counts", guess)
	if guess {
		s.srv.meters.login("failure")
		s.srv.wrongPassword(s, mechanism)
		delay := s.srv.limits.logins.Failed(ctx, s.client.Addr(), s.known())
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
		if code == "" {
			a.text = strings.TrimSpace("[AUTH] " + a.text) // RFC 3206 promises it
		}
	} else {
		s.srv.meters.login("deferred")
	}
	s.say("%s", strings.TrimSpace("-ERR "+a.text))
	if s.tries >= s.conf.MaxLoginTries || bool(s.conf.APOP) {
		s.end("login failed", "")
	}
}

// doSTLS begins TLS within the session. RFC 2595, 4.
func (s *session) doSTLS(ctx context.Context, arg string) {
	switch {
	case s.tlsHere() == nil:
		s.mistake("TLS is not available")
	case s.tls:
		s.mistake("TLS is in use already")
	case arg != "":
		s.mistake("syntax: STLS")
	case s.reader().Buffered() > 0 || pending(s.raw):
		// What follows in clear would be read by one side as clear and by the other as protected.
		s.end("talks before TLS", "-ERR protocol error")
	default:
		s.say("+OK begin TLS")
		if s.flush() {
			s.forget()
			s.handshake(ctx)
		}
	}
}

// clip shortens what a client calls itself, for the log.
func clip(s string) string {
	const most = 100
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
