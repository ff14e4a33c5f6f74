package header

import (
	"net/netip"
	"strings"
	"time"
)

// Received is what our Received field says: RFC 5321, 4.4.
type Received struct {
	Helo   string
	Name   string // client name from the DNS, if known
	Client netip.Addr
	Host   string // us
	With   string // protocol: RFC 3848, RFC 6531
	ID     string
	Rcpt   string // only if there is exactly one
	When   time.Time
}

// AppendTo writes the field, folded, without its last line end. Names that came from outside are
// cut down to what may stand there.
func (r *Received) AppendTo(dst []byte) []byte {
	dst = append(dst, ReceivedName+": from "...)
	dst = append(dst, heloToken(r.Helo)...)
	dst = append(dst, " ("...)
	if r.Name != "" && !strings.HasPrefix(r.Name, "[") {
		dst = append(dst, safeToken(r.Name)...)
		dst = append(dst, ' ')
	}
	dst = append(dst, addressLiteral(r.Client)...)
	dst = append(dst, ")\r\n\tby "...)
	dst = append(dst, r.Host...)
	dst = append(dst, " (Postern) with "...)
	dst = append(dst, r.With...)
	dst = append(dst, " id "...)
	dst = append(dst, r.ID...)
	if r.Rcpt != "" {
		dst = append(dst, "\r\n\tfor "...)
		dst = append(dst, r.Rcpt...)
	}
	dst = append(dst, ";\r\n\t"...)
	return r.When.AppendFormat(dst, "Mon, 2 Jan 2006 15:04:05 -0700")
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
	return safeToken(s)
}

// maxToken is the longest name of a client in the field, in bytes.
const maxToken = 255

// safeToken keeps letters, digits and the marks of host names and address literals; all else, what is beyond ASCII
// too, becomes ?.
func safeToken(s string) string {
	s = s[:min(len(s), maxToken)]
	out := []byte(s)
	for i, b := range out {
		ok := 'a' <= b|0x20 && b|0x20 <= 'z' || '0' <= b && b <= '9' || strings.IndexByte("-._[]:", b) >= 0
		if !ok {
			out[i] = '?'
		}
	}
	return string(out)
}
