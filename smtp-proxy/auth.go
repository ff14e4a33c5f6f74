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

// authMechanisms returns the mechanisms offered: those of the next hop, within TLS only unless the
// settings say otherwise.
func (s *session) authMechanisms(caps upstream.Capabilities) string {
	if s.client.tls == nil && (bool(s.conf.AuthRequiresTLS) || s.mustSecure()) {
		return ""
	}
	return strings.Join(caps.Auth, " ")
}

// doAuth is AUTH: RFC 4954. The dialog is between the client and the next hop; from then on the
// connection to the server is the client's own.
func (s *session) doAuth(arg string) outcome {
	mech, initial, _ := strings.Cut(arg, " ")
	mech = strings.ToUpper(mech)
	switch {
	case s.client.helo == "" || !s.client.esmtp:
		return failed(reply(503, "5.5.1", "Say EHLO first"))
	case s.tx != nil || s.client.authed:
		return failed(reply(503, "5.5.1", "Not now"))
	case mech == "":
		return failed(reply(501, "5.5.4", "Syntax: AUTH mechanism"))
	case s.shutOut():
		s.srv.metrics.login(loginShutOut)
		return closed(gateLogins, reply(421, "4.7.0", "Too many failed logins from your address, try again later"))
	}
	caps, err := s.capabilities()
	if err != nil {
		return s.authFault("capabilities", err)
	}
	switch {
	case s.client.tls == nil && bool(s.conf.AuthRequiresTLS):
		return failed(reply(538, "5.7.11", "Encryption is required for authentication"))
	case !contains(caps.Auth, mech):
		return failed(reply(504, "5.5.4", "Mechanism is not offered"))
	case strings.Contains(initial, " ") || !isBase64(initial):
		return failed(reply(501, "5.5.2", "Initial response is malformed"))
	}
	s.status("AUTH " + mech)
	if err := s.connectForAuth(mech); err != nil {
		return s.authFault("connect", err)
	}
	command := smtp.Auth + " " + mech
	if initial != "" {
		command += " " + initial
	}
	o := s.authDialog(mech, command, initial, initial != "")
	if !s.client.authed {
		s.relay.letGo(broken) // a connection that has seen a password is nobody else's
	}
	return o
}

// authFault is AUTH that failed because the next hop did.
func (s *session) authFault(act string, err error) outcome {
	s.upstreamFault(act, s.relay.hop, err)
	return done(reply(454, "4.7.0", "Temporary authentication failure ("+s.id+")"))
}

// connectForAuth connects to a server that offers the mechanism on a connection where the client's password
// may go.
func (s *session) connectForAuth(mech string) error {
	up, err := s.srv.ups.GetForAuth(s.background(), s.client.upstream(s.conf.limitExemptNets))
	if err != nil {
		return err
	}
	if !contains(up.Capabilities().Auth, mech) {
		up.Release()
		return fmt.Errorf("server offers no AUTH %s on this connection", mech)
	}
	s.relay.hop = up
	return nil
}

// authDialog carries the lines of both sides until the next hop decides. response is the client's first
// one, if it has come already: what comes behind it may be the password, whatever the first one was.
func (s *session) authDialog(mech, send, response string, first bool) outcome {
	for range maxAuthSteps {
		r, err := s.relay.exchange(send)
		switch {
		case err != nil:
			return s.authFault("auth", err)
		case r.Code == 334:
			s.say(r)
		case r.Positive():
			s.relay.bound = true
			s.client.logIn(mech, authName(mech, response))
			s.srv.metrics.login(loginAccepted)
			s.srv.logins.Succeeded(s.background(), s.client.addr.Addr(), strings.ToLower(s.client.login))
			return done(r)
		default:
			if send != "*" && isGuess(r) {
				s.loginFailed(mech, authName(mech, response), r)
			}
			return failed(r)
		}
		var o outcome
		if send, o = s.authLine(); o.class != classPending {
			return o
		}
		if !first {
			response, first = send, true
		}
	}
	return closed(gateErrors, reply(421, "4.7.0", "Authentication takes too long"))
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

// authLine reads the client's next line: base64, or * to give up. The outcome says what is the end of the
// dialog.
func (s *session) authLine() (string, outcome) {
	if o, ok := s.rest(); !ok {
		return "", o
	}
	text, _, err := s.conn.ReadLine(smtp.MaxAuth)
	s.wait.end()
	if err != nil {
		return "", s.readFailed(err)
	}
	line := string(text)
	if line != "*" && !isBase64(line) {
		return "", failed(reply(501, "5.5.2", "Response is malformed"))
	}
	return line, pending
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
