package upstream

import (
	"strings"

	"postern/internal/smtp"
)

// QueueID finds the name under which a server has taken a message in its reply to the end of data, or gives
// "". It knows what common servers say:
//
//	250 2.0.0 Ok: queued as 4XyZ123                     Postfix, maildir:
//	250 OK id=1tE7xX-0000000001-abcd                    Exim
//	250 2.0.0 5BMAxxxx012345 Message accepted for delivery   Sendmail; OpenSMTPD
//	250 2.0.0 <a@b> QmF+YWFhYWFhYWE Saved               Dovecot LMTP
//	250 2.6.0 <id@host> [InternalId=12345, ...] Queued mail for delivery   Exchange
//	250 2.0.0 OK 1700000000 abc123.45 - gsmtp           Gmail
func QueueID(r smtp.Reply) string {
	if !r.Positive() || len(r.Lines) == 0 {
		return ""
	}
	words := strings.Fields(r.Lines[len(r.Lines)-1])
	for i, w := range words {
		switch lower := strings.ToLower(w); {
		case lower == "as" && i > 0 && strings.EqualFold(words[i-1], "queued") && i+1 < len(words):
			return queueWord(words[i+1])
		case strings.HasPrefix(lower, "id="):
			return queueWord(w[len("id="):])
		case strings.HasPrefix(lower, "[internalid="):
			return queueWord(w[len("[internalid="):])
		case lower == "saved" && i > 0, lower == "message" && i > 0:
			return queueWord(words[i-1])
		case lower == "gsmtp" && i >= 3:
			return queueWord(words[i-2])
		}
	}
	return ""
}

// queueWord gives a word that can stand in a log line, or "".
func queueWord(s string) string {
	s = strings.Trim(s, "<>(),;.\"'")
	if len(s) > 128 || !isPlain(s) {
		return ""
	}
	return s
}
