package main

import (
	"bytes"
	"errors"
	"io"
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
	again   int // look for the end of the header when so much is held, so that tiny pieces cost no more
	passing bool
}

// Write takes decoded content with CR LF. errHops and errHeaderTooLong are refusals of the message.
func (g *headerGate) Write(p []byte) (int, error) {
	if g.passing {
		return g.next.Write(p)
	}
	g.held = append(g.held, p...)
	if len(g.held) < g.again {
		return len(p), nil
	}
	h, body, more := splitHeader(g.held)
	if more {
		if len(g.held) > g.limit {
			return 0, errHeaderTooLong
		}
		g.again = min(2*len(g.held), g.limit+1)
		return len(p), nil
	}
	if body > g.limit {
		return 0, errHeaderTooLong
	}
	if err := g.pass(h, body); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close ends a message that has no body and whose header may lack the empty line.
func (g *headerGate) Close() error {
	if g.passing {
		return nil
	}
	data := g.held
	if g.add == nil && !g.drop {
		h, body, _ := splitHeader(append(data, '\r', '\n'))
		return g.pass(h, min(body, len(data)))
	}
	if len(data) > 0 && !bytes.HasSuffix(data, []byte("\n")) {
		data = append(data, '\r', '\n')
	}
	whole := append(data, '\r', '\n')
	h, body, _ := splitHeader(whole)
	if body == len(whole) {
		g.held = whole
		return g.pass(h, body)
	}
	g.held = data
	return g.pass(h, body)
}

// pass sends the header on and opens the way. The original bytes go on wherever they need no change.
func (g *headerGate) pass(h header, body int) error {
	g.passing = true
	if h.count("Received") > g.hops {
		return errHops
	}
	head := g.held[:body]
	bodiless := len(h.fields) == 0
	var out []byte
	if g.drop && h.count("Received") > 0 {
		h.removeAll("Received")
		blank := endsHeader(head)
		out = h.appendTo(make([]byte, 0, len(g.held)))
		if !blank {
			out = out[:len(out)-2]
		}
		if !blank && len(h.fields) == 0 {
			out = append(out, '\r', '\n') // what follows is body and must not become header
		}
		out = append(out, g.held[body:]...)
	} else {
		if g.add != nil {
			out = append(make([]byte, 0, len(g.add)+len(g.held)+4), g.add...)
			out = append(out, '\r', '\n')
			if bodiless && body == 0 {
				out = append(out, '\r', '\n') // the content begins with a body
			}
		}
		out = append(out, g.held...)
	}
	g.held = nil
	_, err := g.next.Write(out)
	return err
}

// endsHeader says whether head ends in an empty line.
func endsHeader(head []byte) bool {
	return bytes.HasSuffix(head, []byte("\n\r\n")) || bytes.HasSuffix(head, []byte("\n\n")) || string(head) == "\r\n" || string(head) == "\n"
}
