package upstream

import (
	"reflect"
	"slices"
	"strconv"
	"strings"

	"postern/internal/smtp"
)

// Capabilities are the EHLO keywords of a server that this package knows, with their values checked.
// Whatever else the server lists is not here, so that nobody can pass it on.
type Capabilities struct {
	Pipelining          bool
	HasSize             bool
	Size                int64 // largest message in bytes; 0 if the server names none
	EightBitMIME        bool
	SMTPUTF8            bool
	DSN                 bool
	EnhancedStatusCodes bool
	Chunking            bool
	BinaryMIME          bool
	StartTLS            bool
	Auth                []string // mechanisms, in capitals
	RcptMax             int      // recipients per transaction, RFC 9422; 0 if the server names no number
	MailMax             int      // transactions per connection, RFC 9422; 0 if the server names no number

	xclient []string // attributes that XCLIENT takes; nil if it is not offered
}

// equal reports whether two servers offer the same to clients.
func (c Capabilities) equal(d Capabilities) bool {
	c.xclient, d.xclient = nil, nil
	return reflect.DeepEqual(c, d)
}

// parseCapabilities reads the reply to EHLO; its first line is a greeting.
func parseCapabilities(r smtp.Reply) Capabilities {
	var c Capabilities
	for i, line := range r.Lines {
		if i == 0 {
			continue
		}
		keyword, value, _ := strings.Cut(line, " ")
		c.take(strings.ToUpper(keyword), strings.TrimSpace(value))
	}
	return c
}

func (c *Capabilities) take(keyword, value string) {
	switch keyword {
	case "PIPELINING":
		c.Pipelining = true
	case "SIZE":
		n, err := strconv.ParseInt(value, 10, 64)
		if value == "" || err == nil && n >= 0 {
			c.HasSize, c.Size = true, n
		}
	case "8BITMIME":
		c.EightBitMIME = true
	case "SMTPUTF8":
		c.SMTPUTF8 = true
	case "DSN":
		c.DSN = true
	case "ENHANCEDSTATUSCODES":
		c.EnhancedStatusCodes = true
	case "CHUNKING":
		c.Chunking = true
	case "BINARYMIME":
		c.BinaryMIME = true
	case "STARTTLS":
		c.StartTLS = true
	case "AUTH":
		c.takeAuth(value)
	case "XCLIENT":
		c.xclient = append([]string{}, strings.Fields(strings.ToUpper(value))...)
	case "LIMITS":
		c.takeLimits(value)
	default:
		// "AUTH=LOGIN PLAIN", as servers of the nineties had it.
		if first, ok := strings.CutPrefix(keyword, "AUTH="); ok {
			c.takeAuth(first + " " + value)
		}
	}
}

// takeAuth adds mechanisms: RFC 4422, 3.1: up to 20 capitals, digits, hyphens and underscores.
func (c *Capabilities) takeAuth(value string) {
	for mech := range strings.FieldsSeq(strings.ToUpper(value)) {
		valid := len(mech) <= 20
		for _, b := range []byte(mech) {
			valid = valid && ('A' <= b && b <= 'Z' || '0' <= b && b <= '9' || b == '-' || b == '_')
		}
		if valid && len(c.Auth) < 32 && !slices.Contains(c.Auth, mech) {
			c.Auth = append(c.Auth, mech)
		}
	}
}

func (c *Capabilities) takeLimits(value string) {
	for word := range strings.FieldsSeq(value) {
		name, number, _ := strings.Cut(word, "=")
		n, err := strconv.ParseInt(number, 10, 32)
		if err != nil || n <= 0 {
			continue
		}
		switch strings.ToUpper(name) {
		case "RCPTMAX":
			c.RcptMax = int(n)
		case "MAILMAX":
			c.MailMax = int(n)
		}
	}
}
