package main

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"slices"
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

// headerGate is the first part of a message on its way through: it holds the content back until the
// header is whole, counts hops, removes Received fields or adds ours, and lets the rest pass in the
// pieces it comes in.
type headerGate struct {
	next    io.Writer
	limit   int    // of the header, in bytes
	hops    int    // Received fields at most
	drop    bool   // remove them all
	add     []byte // our field, without its line end; nil for none
	held    []byte
	boxes   int  // bytes of mbox lines at the beginning, made fields
	begun   bool // what follows them is known
	again   int  // look for the end of the header when so much is held, so that tiny pieces cost no more
	passing bool
}

// Write takes decoded content with CR LF. errHops and errHeaderTooLong are refusals of the message.
func (g *headerGate) Write(p []byte) (int, error) {
	if g.passing {
		return g.next.Write(p)
	}
	data := p
	if g.held != nil {
		g.held = append(g.held, p...)
		data = g.held
	}
	if len(data) < g.again {
		return len(p), nil
	}
	if !g.begun {
		data = g.mailboxLines(data)
	}
	h, body, more := splitHeader(data)
	if more && len(data) > g.limit || body > g.limit {
		return 0, errHeaderTooLong
	}
	if more = more || !g.begun; more {
		if g.held == nil {
			g.held = append(make([]byte, 0, 2*len(p)), p...)
		}
		g.again = min(2*len(data), g.limit+1)
		return len(p), nil
	}
	if err := g.pass(data, h, body); err != nil {
		return 0, err
	}
	return len(p), nil
}

// mailboxLines makes fields of mbox lines ("From ") at the very beginning, as Postfix does and as the filter sees them: else
// the header behind them would be part of the body.
func (g *headerGate) mailboxLines(data []byte) []byte {
	const name = "X-Mailbox-Line: "
	for {
		rest := data[g.boxes:]
		text := bytes.TrimLeft(rest, ">")
		if len(text) < len("From ") && bytes.HasPrefix([]byte("From "), text) {
			return data // may become one
		}
		if g.begun = !bytes.HasPrefix(text, []byte("From ")); g.begun {
			return data
		}
		end := bytes.IndexByte(rest, '\n') + 1
		if end == 0 {
			return data
		}
		data = slices.Concat(data[:g.boxes], []byte(name), rest)
		g.held = data
		g.boxes += len(name) + end
	}
}

// Close ends a message that has no body and whose header may lack the empty line.
func (g *headerGate) Close() error {
	if g.passing {
		return nil
	}
	data := g.held
	if len(data) > 0 && !bytes.HasSuffix(data, []byte("\n")) {
		data = append(data, '\r', '\n')
	}
	if !g.begun {
		data = g.mailboxLines(data)
	}
	whole := append(data, '\r', '\n')
	h, body, _ := splitHeader(whole)
	if (g.add != nil || g.drop) && body == len(whole) {
		return g.pass(whole, h, body)
	}
	return g.pass(data, h, min(body, len(data)))
}

// pass sends on what was held back and opens the way. The original bytes go on wherever they need no
// change.
func (g *headerGate) pass(data []byte, h header, body int) error {
	g.passing, g.held = true, nil
	hops := h.count("Received")
	if hops > g.hops {
		return errHops
	}
	var head []byte
	rest := data
	switch {
	case g.drop && hops > 0:
		head, rest = g.withoutReceived(data[:body], h), data[body:]
	case g.add != nil:
		head = append(append(make([]byte, 0, len(g.add)+4), g.add...), '\r', '\n')
		if len(h.fields) == 0 && body == 0 {
			head = append(head, '\r', '\n') // the content begins with a body
		}
	}
	if len(head) > 0 {
		if _, err := g.next.Write(head); err != nil {
			return err
		}
	}
	if len(rest) == 0 {
		return nil
	}
	_, err := g.next.Write(rest)
	return err
}

// withoutReceived gives the header without its Received fields. It ends in an empty line if it had one, or if
// nothing is left: what follows is body and must not become header.
func (g *headerGate) withoutReceived(head []byte, h header) []byte {
	h.removeAll("Received")
	out := h.appendTo(make([]byte, 0, len(head)+2))
	if len(h.fields) > 0 && !endsHeader(head) {
		out = out[:len(out)-2]
	}
	return out
}

// endsHeader says whether head ends in an empty line.
func endsHeader(head []byte) bool {
	return bytes.HasSuffix(head, []byte("\n\r\n")) || bytes.HasSuffix(head, []byte("\n\n")) || string(head) == "\r\n" || string(head) == "\n"
}
