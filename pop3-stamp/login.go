package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
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
		s.doCapa(c.arg)
	case "QUIT":
		s.end("quit", "+OK bye")
	case "STAT", "LIST", "RETR", "UIDL", "DELE", "TOP", "LAST", "NOOP", "RSET":
		s.mistake("log in first")
	default:
		s.unknown()
	}
}

func (s *session) unknown() {
	s.log.Info("unknown command")
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
		s.user, s.hasUser = arg, true
		s.say("+OK")
	}
}

// doPass logs in at the server behind.
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
	s.hasUser = false
	s.login(ctx, func(b *backend) (answer, error) {
		a, err := b.ask("USER " + s.user)
		if err != nil || !a.ok {
			return a, err
		}
		return b.ask("PASS " + password)
	})
}

func (s *session) doAPOP(ctx context.Context, arg string) {
	name, digest, ok := strings.Cut(arg, " ")
	switch {
	case !bool(s.conf.APOP) || s.server == nil || timestamp(s.server.greeting) == "":
		s.mistake("APOP is not available")
	case !ok || name == "" || len(digest) != 32 || strings.Trim(strings.ToLower(digest), "0123456789abcdef") != "":
		s.mistake("syntax: APOP name digest")
	default:
		s.user = name
		s.login(ctx, func(b *backend) (answer, error) { return b.ask("APOP " + name + " " + digest) })
	}
}

// doAuth passes a SASL exchange through. RFC 5034.
func (s *session) doAuth(ctx context.Context, arg string) {
	mechanism, initial, _ := strings.Cut(arg, " ")
	mechanism = strings.ToUpper(mechanism)
	switch {
	case s.needTLS():
		return
	case !slices.Contains(s.conf.SASL, mechanism):
		s.mistake("[AUTH] mechanism is not available")
		return
	case initial != "" && !validBase64(initial):
		s.mistake("syntax: AUTH mechanism [response]")
		return
	}
	s.user = "-"
	responses := 0
	if initial != "" {
		s.noteUser(mechanism, initial, responses)
		responses++
	}
	s.login(ctx, func(b *backend) (answer, error) {
		a, err := b.askSASL(strings.TrimSuffix("AUTH "+mechanism+" "+initial, " "))
		for rounds := 0; err == nil && a.more; rounds++ {
			if rounds == 10 || a.text != "" && !validBase64(a.text) {
				return answer{}, fmt.Errorf("SASL exchange: %w", errProtocol)
			}
			a, err = s.challenge(ctx, b, mechanism, a.text, responses+rounds)
		}
		return a, err
	})
}

// errClient is wrapped by errors of the client within an exchange.
var errClient = errors.New("client")

// challenge passes a challenge to the client and its response to the server.
func (s *session) challenge(ctx context.Context, b *backend, mechanism, text string, round int) (answer, error) {
	s.say("+ %s", text)
	if !s.flush() {
		return answer{}, errClient
	}
	if err := s.conn.SetReadDeadline(s.deadline); err != nil {
		return answer{}, errors.Join(err, errClient)
	}
	if ctx.Err() != nil {
		return answer{}, errors.Join(ctx.Err(), errClient)
	}
	response, err := readLine(s.r, maxAuth) // not logged
	if err != nil {
		return answer{}, errors.Join(err, errClient)
	}
	if response != "*" && response != "" && !validBase64(response) {
		response = "*" // RFC 5034, 4: cancels
	}
	s.noteUser(mechanism, response, round)
	return b.askSASL(response)
}

// noteUser takes the name of the user out of a response of the client, the number round of its exchange. Some
// mechanisms do not show it; then it stays "-".
func (s *session) noteUser(mechanism, response string, round int) {
	decoded, err := base64.StdEncoding.DecodeString(response)
	if err != nil || len(decoded) == 0 {
		return
	}
	name, data := "", string(decoded)
	switch mechanism {
	case "PLAIN": // RFC 4616
		if parts := strings.Split(data, "\x00"); len(parts) == 3 {
			name = parts[1]
		}
	case "LOGIN":
		if round == 0 {
			name = data
		}
	case "CRAM-MD5": // RFC 2195; the name may have spaces
		if i := strings.LastIndexByte(data, ' '); i > 0 {
			name = data[:i]
		}
	case "SCRAM-SHA-1", "SCRAM-SHA-256": // RFC 5802, 5.1
		if _, rest, ok := strings.Cut(data, ",n="); ok && round == 0 {
			name, _, _ = strings.Cut(rest, ",")
		}
	case "XOAUTH2":
		if rest, ok := strings.CutPrefix(data, "user="); ok {
			name, _, _ = strings.Cut(rest, "\x01")
		}
	case "OAUTHBEARER": // RFC 7628, 3.1
		if _, rest, ok := strings.Cut(data, "a="); ok {
			name, _, _ = strings.Cut(rest, ",")
		}
	}
	if name != "" {
		s.user = name
	}
}

func validBase64(s string) bool {
	return s == "=" || len(s) <= maxAuth && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=") == ""
}

// login has try log in at the server behind. Only the +OK that answers the password, digest or last response makes a
// stamp.
func (s *session) login(ctx context.Context, try func(*backend) (answer, error)) {
	if !s.connect(ctx) {
		return
	}
	a, err := try(s.server)
	switch {
	case errors.Is(err, errClient):
		s.lost(ctx, err)
	case err != nil:
		s.srv.meters.upstreamFault()
		s.log.Error("login", "user", clip(s.user), "server", s.server.name, "error", err)
		s.end("server behind failed", "-ERR [SYS/TEMP] mail server is not available")
	case a.ok:
		s.loggedIn = true
		s.errors = 0
		s.srv.crowd.succeeded(s.client.Addr())
		s.srv.meters.login("success")
		s.srv.touch(ctx, s.client.Addr(), s.user, s.server.name)
		s.log.InfoContext(logging.Earned(ctx), "login", "user", clip(s.user), "server", s.server.name, "tls", s.tls)
		_ = s.stat.Change(func(f *statfile.Fields) { f.User, f.Status = s.user, "READY" })
		s.say("%s", strings.TrimSpace("+OK "+a.text))
	default:
		s.refused(ctx, a)
	}
}

// passedCodes are the response codes of a refusal that a client is told. RFC 2449, 8 and RFC 3206.
var passedCodes = []string{"IN-USE", "LOGIN-DELAY", "SYS/TEMP", "SYS/PERM", "AUTH"}

// refused answers a login that failed. The server behind is left, so that each try is the first it sees.
func (s *session) refused(ctx context.Context, a answer) {
	s.server.close()
	s.server = nil
	code := "AUTH"
	if c, _, ok := strings.Cut(strings.TrimPrefix(a.text, "["), "]"); ok && strings.HasPrefix(a.text, "[") && slices.Contains(passedCodes, strings.ToUpper(c)) {
		code = strings.ToUpper(c)
	}
	s.log.Info("login failed", "user", clip(s.user), "code", code)
	s.tries++
	if code != "AUTH" {
		s.srv.meters.login("deferred")
		s.say("-ERR [%s] login is not possible now", code)
	} else {
		s.srv.meters.login("failure")
		delay := s.srv.crowd.failed(s.client.Addr())
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
		s.say("-ERR [AUTH] bad login")
	}
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
	case s.r.Buffered() > 0 || pending(s.raw):
		// What follows in clear would be read by one side as clear and by the other as protected.
		s.end("talks before TLS", "-ERR protocol error")
	default:
		s.say("+OK begin TLS")
		if s.flush() {
			s.user, s.hasUser = "", false
			s.handshake(ctx)
		}
	}
}

// doCapa says what can be asked, RFC 2449. The list is ours; the server behind is not asked.
func (s *session) doCapa(arg string) {
	if arg != "" {
		s.mistake("syntax: CAPA")
		return
	}
	s.say("+OK")
	for _, c := range []string{"TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING"} {
		s.say("%s", c)
	}
	if !s.loggedIn {
		if s.mayLogIn() {
			s.say("USER")
			if len(s.conf.SASL) > 0 {
				s.say("SASL %s", strings.Join(s.conf.SASL, " "))
			}
		}
		if !s.tls && s.tlsHere() != nil {
			s.say("STLS")
		}
	}
	s.say(".")
}

// clip shortens what a client calls itself, for the log.
func clip(s string) string {
	const most = 100
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
