package main

import (
	"errors"
	"net/netip"
	"strings"
	"time"
)

var errHops = errors.New("too many Received fields")

// trace is what our Received field says: RFC 5321, 4.4.
type trace struct {
	helo   string
	name   string // client name from the DNS, if known
	client netip.Addr
	host   string // us
	with   string // protocol: RFC 3848, RFC 6531
	id     string
	rcpt   string // only if there is exactly one
	when   time.Time
}

// appendTo writes the field, folded, without its last line end. Names that came from outside are
// cut down to what may stand there.
func (t *trace) appendTo(dst []byte) []byte {
	dst = append(dst, "Received: from "...)
	dst = append(dst, heloToken(t.helo)...)
	dst = append(dst, " ("...)
	if t.name != "" && !strings.HasPrefix(t.name, "[") {
		dst = append(dst, safeToken(t.name, 255)...)
		dst = append(dst, ' ')
	}
	dst = append(dst, addressLiteral(t.client)...)
	dst = append(dst, ")\r\n\tby "...)
	dst = append(dst, t.host...)
	dst = append(dst, " (Postern) with "...)
	dst = append(dst, t.with...)
	dst = append(dst, " id "...)
	dst = append(dst, t.id...)
	if t.rcpt != "" {
		dst = append(dst, "\r\n\tfor "...)
		dst = append(dst, t.rcpt...)
	}
	dst = append(dst, ";\r\n\t"...)
	return t.when.AppendFormat(dst, "Mon, 2 Jan 2006 15:04:05 -0700")
}

func addressLiteral(addr netip.Addr) string {
	switch {
	case !addr.IsValid():
		return "[local]"
	case addr.Is6():
		return "[IPv6:" + addr.WithZone("").String() + "]"
	}
	return "[" + addr.String() + "]"
}

// heloToken makes the client's greeting a word of the From-domain, so that no comment, space or second
// field can come out of it.
func heloToken(s string) string {
	if s == "" {
		return "unknown"
	}
	return safeToken(s, 255)
}

// safeToken keeps letters, digits and the marks of host names and address literals (and what is beyond
// ASCII, for SMTPUTF8, only if it is a letter of some script is not decided here: it becomes ?).
func safeToken(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit]
	}
	out := []byte(s)
	for i, b := range out {
		ok := 'a' <= b|0x20 && b|0x20 <= 'z' || '0' <= b && b <= '9' || strings.IndexByte("-._[]:", b) >= 0
		if !ok {
			out[i] = '?'
		}
	}
	return string(out)
}
