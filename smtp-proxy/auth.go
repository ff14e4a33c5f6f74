package main

import (
	"encoding/base64"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"postern/internal/smtp"
	"postern/smtp-proxy/upstream"
)

// maxAuthSteps bounds the dialog of one AUTH.
const maxAuthSteps = 20

// authMechanisms gives the mechanisms offered: those of the server behind, within TLS only unless the
// settings say otherwise.
func (s *session) authMechanisms(caps upstream.Capabilities) string {
	if s.client.tls == nil && (bool(s.conf.AuthRequiresTLS) || s.mustSecure()) {
		return ""
	}
	return strings.Join(caps.Auth, " ")
}

// doAuth is AUTH: RFC 4954. The dialog is between the client and the server behind; from then on the
// connection to the server is the client's own.
func (s *session) doAuth(arg string) {
	mech, initial, _ := strings.Cut(arg, " ")
	mech = strings.ToUpper(mech)
	switch {
	case s.client.helo == "" || !s.client.esmtp:
		s.fail(reply(503, "5.5.1", "Say EHLO first"))
		return
	case s.tx != nil || s.client.authed:
		s.fail(reply(503, "5.5.1", "Not now"))
		return
	case mech == "":
		s.fail(reply(501, "5.5.4", "Syntax: AUTH mechanism"))
		return
	}
	if s.shutOut() {
		return
	}
	caps, err := s.capabilities()
	if err != nil {
		s.upstreamFault("capabilities", err)
		s.say(reply(454, "4.7.0", "Temporary authentication failure ("+s.id+")"))
		return
	}
	if s.client.tls == nil && bool(s.conf.AuthRequiresTLS) {
		s.fail(reply(538, "5.7.11", "Encryption is required for authentication"))
		return
	}
	if !contains(caps.Auth, mech) {
		s.fail(reply(504, "5.5.4", "Mechanism is not offered"))
		return
	}
	if strings.Contains(initial, " ") || !isBase64(initial) {
		s.fail(reply(501, "5.5.2", "Initial response is malformed"))
		return
	}
	s.status("AUTH " + mech)
	if err := s.connectForAuth(mech); err != nil {
		s.upstreamFault("connect", err)
		s.say(reply(454, "4.7.0", "Temporary authentication failure ("+s.id+")"))
		return
	}
	command := smtp.Auth + " " + mech
	if initial != "" {
		command += " " + initial
	}
	s.authDialog(mech, command, initial, initial != "")
}

// connectForAuth connects to a server that offers the mechanism on a connection where the client's password may go.
func (s *session) connectForAuth(mech string) error {
	if err := s.connectBy(s.srv.ups.GetForAuth); err != nil {
		return err
	}
	if contains(s.up.Capabilities().Auth, mech) {
		return nil
	}
	s.up.Release()
	s.up = nil
	return fmt.Errorf("server offers no AUTH %s on this connection", mech)
}

// authDialog carries the lines of both sides until the server decides. response is the client's first
// one, if it has come already: what comes behind it may be the password, whatever the first one was.
func (s *session) authDialog(mech, send, response string, first bool) {
	for range maxAuthSteps {
		r, err := s.exchange(send)
		if err != nil {
			s.upstreamFault("auth", err)
			s.abandonUpstream()
			s.say(reply(454, "4.7.0", "Temporary authentication failure ("+s.id+")"))
			return
		}
		s.say(r)
		switch {
		case r.Code == 334:
		case r.Positive():
			s.client.logIn(mech, authName(mech, response))
			s.srv.meters.login(loginAccepted)
			s.srv.logins.Succeeded(s.client.addr.Addr(), strings.ToLower(s.client.login))
			return
		default:
			s.abandonUpstream() // a connection that has seen a password is nobody else's
			if send != "*" && isGuess(r) {
				s.loginFailed(mech, authName(mech, response), r)
			}
			s.failed()
			return
		}
		var ok bool
		if send, ok = s.authLine(); !ok {
			s.abandonUpstream()
			return
		}
		if !first {
			response, first = send, true
		}
	}
	s.abandonUpstream()
	s.close(gateErrors, reply(421, "4.7.0", "Authentication takes too long"))
}

// authName finds out, for the filter, who the client is by its first response: RFC 4616 for PLAIN, the
// name alone for LOGIN. Other mechanisms keep it to themselves.
func authName(mech, response string) string {
	text, err := base64.StdEncoding.DecodeString(response)
	if err != nil {
		return ""
	}
	name := string(text)
	switch mech {
	case "PLAIN":
		parts := strings.Split(name, "\x00")
		if len(parts) != 3 {
			return ""
		}
		name = parts[1]
	case "LOGIN":
	default:
		return ""
	}
	if len(name) > 255 || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return ""
	}
	return name
}

// authLine reads the client's next line: base64, or * to give up.
func (s *session) authLine() (string, bool) {
	if !s.flush() || !s.rest() {
		s.closing = true
		return "", false
	}
	text, _, err := s.conn.ReadLine(smtp.MaxAuth)
	s.awake()
	if err != nil {
		s.closing = !s.readFailed(err) || s.closing
		return "", false
	}
	line := string(text)
	if line != "*" && !isBase64(line) {
		s.fail(reply(501, "5.5.2", "Response is malformed"))
		return "", false
	}
	return line, true
}

// isBase64 also takes "=", the empty initial response, and the empty line.
func isBase64(s string) bool {
	for i := range len(s) {
		b := s[i]
		ok := 'a' <= b|0x20 && b|0x20 <= 'z' || '0' <= b && b <= '9' || b == '+' || b == '/' || b == '='
		if !ok {
			return false
		}
	}
	return true
}

func contains(words []string, word string) bool {
	for _, w := range words {
		if strings.EqualFold(w, word) {
			return true
		}
	}
	return false
}
