package main

import (
	"cmp"
	"crypto/tls"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"postern/internal/logging"
	"postern/internal/smtp"
)

// The lines that tell what became of a session, a message, and who was refused before there was one. Their
// fields are described in smtp-proxy(8), LOG.

// logEnd writes the line of a session.
func (s *session) logEnd(took time.Duration) {
	if !s.srv.log.Enabled(s.srv.ctx, slog.LevelInfo) {
		return
	}
	attrs := []any{"session", s.id, "listener", s.client.listener, "client", s.client.addr.String(), "helo", clip(s.client.helo), "messages", s.messages,
		"errors", s.limits.total, "duration", took.Round(time.Millisecond)}
	if s.client.peer != s.client.addr {
		attrs = append(attrs, "peer", s.client.peer.String())
	}
	if s.client.authType != "" {
		attrs = append(attrs, "auth", clip(s.client.authType), "login", clip(s.client.login))
	}
	if s.client.tls != nil {
		attrs = append(attrs, "tls", tls.VersionName(s.client.tls.Version), "cipher", tls.CipherSuiteName(s.client.tls.CipherSuite))
	}
	attrs = append(attrs, s.client.cert.log()...)
	ctx := s.srv.ctx
	if s.closing.gate != "" {
		attrs = append(attrs, "gate", s.closing.gate)
	}
	if s.messages > 0 {
		ctx = logging.Earned(ctx)
	}
	s.srv.log.InfoContext(ctx, "session", attrs...)
}

// logMessage writes the line of a message. queueID is the server's name for it.
func (s *session) logMessage(tx *transaction, outcome string, r smtp.Reply, size int64, queueID string) {
	if !s.srv.log.Enabled(s.srv.ctx, slog.LevelInfo) {
		return
	}
	attrs := append(s.whose(tx), "outcome", outcome, "recipients", len(tx.accepted), "size", size,
		"duration", time.Since(tx.started).Round(time.Millisecond))
	if len(tx.accepted) > 0 {
		attrs = append(attrs, "to", clip(tx.accepted[0].Path.Address))
	}
	if r.Code != 0 {
		attrs = append(attrs, "reply", clip(r.String()))
	}
	if queueID != "" {
		attrs = append(attrs, "queue", clip(queueID))
	}
	if tx.held != "" {
		attrs = append(attrs, "reason", clip(tx.held))
	}
	if tx.server != "" {
		attrs = append(attrs, "server", tx.server)
	}
	if gate := cmp.Or(tx.gate, s.closing.gate); gate != "" && !r.Positive() {
		attrs = append(attrs, "gate", gate)
	}
	ctx := s.srv.ctx
	if r.Positive() {
		ctx = logging.Earned(ctx)
	}
	s.srv.log.InfoContext(ctx, "message", attrs...)
}

// logRefusedHost writes the line of a client that the filter refused, by its address or by its name in HELO.
func (s *session) logRefusedHost(helo string, r smtp.Reply) {
	s.srv.log.Info("refused", "session", s.id, "client", s.client.addr.Addr().String(), "helo", clip(helo), "reply", clip(r.String()), "gate", gateFilter)
}

// logRefused writes the line of a sender or recipient that was refused, for now or for good: there may never
// be a message whose line tells of it. gate is empty if it was the server.
func (s *session) logRefused(tx *transaction, gate, to string, r smtp.Reply) {
	attrs := s.whose(tx)
	if to != "" {
		attrs = append(attrs, "to", clip(to))
	}
	attrs = append(attrs, "reply", clip(r.String()))
	switch {
	case gate != "":
		attrs = append(attrs, "gate", gate)
	case s.relay.hop != nil:
		attrs = append(attrs, "server", s.relay.hop.Server())
	}
	s.srv.log.Info("refused", attrs...)
}

// whose returns the fields that say whose message it is.
func (s *session) whose(tx *transaction) []any {
	attrs := append(make([]any, 0, 32), "session", s.id, "client", s.client.addr.Addr().String(), "helo", clip(s.client.helo))
	if s.client.forward != nil {
		attrs = append(attrs, "forwarded", s.client.ip())
	}
	if tx != nil {
		attrs = append(attrs, "qid", tx.qid, "from", clip(tx.from.Address))
	}
	if s.client.tls != nil {
		attrs = append(attrs, "tls", tls.VersionName(s.client.tls.Version))
	}
	if s.client.authType != "" {
		attrs = append(attrs, "login", clip(s.client.login))
	}
	return attrs
}

// clip shortens a text from outside for the log.
func clip(text string) string {
	const limit = 200
	if len(text) > limit {
		return text[:limit] + "..."
	}
	return text
}

// logCommand writes a command to the log. Behind AUTH a line that is no command is what the client would
// have said in its dialog.
func (s *session) logCommand(cmd smtp.Command) {
	if cmd.Verb == smtp.Auth {
		s.secrets = true
	} else if commands[cmd.Verb].public {
		s.secrets = false
	}
	if s.secrets && cmd.Verb != smtp.Auth {
		cmd = smtp.Command{Verb: "?"}
	}
	s.srv.log.Debug("command", "session", s.id, "verb", cmd.Verb, "argument", maskArgument(cmd))
}

// maskArgument returns the argument of a command as it may be logged: never a secret.
func maskArgument(cmd smtp.Command) string {
	if cmd.Verb != smtp.Auth {
		return clip(cmd.Arg)
	}
	mechanism, _, more := strings.Cut(cmd.Arg, " ")
	if more {
		return clip(mechanism) + " ****"
	}
	return clip(mechanism)
}

func seconds(d time.Duration) string {
	return strconv.FormatFloat(d.Seconds(), 'f', 3, 64)
}
