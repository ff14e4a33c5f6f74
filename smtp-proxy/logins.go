package main

import (
	"strings"

	"postern/internal/notify"
	"postern/internal/percent"
	"postern/internal/smtp"
)

// Logins that failed, and what that leads to: internal/connlimit has the rule, which pop3-stamp shares.

// isGuess reports whether the server's reply to AUTH means that the password was wrong. Other refusals are
// about the command or the mechanism (RFC 4954, 4 and 6) or are for now, and tell nothing about a password.
func isGuess(r smtp.Reply) bool {
	switch r.Code {
	case 500, 501, 502, 503, 504, 530, 534, 538:
		return false
	}
	return r.Permanent()
}

// shutOut reports whether AUTH is refused to the client's address, for too many failed logins; the next hop
// is not asked.
func (s *session) shutOut() bool {
	addr := s.client.addr.Addr()
	return !s.conf.limitExemptNets.Has(addr) && s.srv.logins.ShutByAny(s.background(), addr)
}

// loginFailed notes that a login failed. The client's answer, which waits to be sent, waits longer each time.
func (s *session) loginFailed(mech, user string, r smtp.Reply) {
	addr := s.client.addr.Addr()
	s.srv.metrics.login(loginRefused)
	word := "-"
	if user != "" {
		word = percent.Encode(user)
	}
	s.srv.publish(notify.LetterWrongLogin, s.id, addressText(addr), percent.Encode(mech), word)
	s.srv.log.Info("login failed", "session", s.id, "listener", s.client.listener, "client", addressText(addr),
		"mechanism", clip(mech), "user", clip(user), "reply", clip(r.String()))
	if !addr.IsValid() || s.conf.limitExemptNets.Has(addr) {
		return
	}
	s.srv.pause(s.srv.logins.Failed(s.background(), addr, strings.ToLower(user)))
}
