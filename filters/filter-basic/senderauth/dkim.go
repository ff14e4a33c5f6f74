package senderauth

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"

	"github.com/emersion/go-msgauth/authres"
	"github.com/emersion/go-msgauth/dkim"
)

// DKIM is one signature.
type DKIM struct {
	Value  authres.ResultValue
	Domain string
	Reason string
}

// maxSignatures is how many DKIM signatures of a message are verified, from the top.
const maxSignatures = 10

// Bounds of headers in which signatures are verified. The library reads a field in a time that is a square of its lines.
const (
	maxHeader = 256 << 10
	maxField  = 32 << 10
)

// dkim verifies the signatures.
func (out *Results) dkim(ctx context.Context, r *client, content []byte) {
	if !verifiable(content) {
		out.DKIM = []DKIM{{Value: authres.ResultPermError, Reason: "header is too large"}}
		return
	}
	lookup := func(name string) ([]string, error) { return r.LookupTXT(ctx, name) }
	message := io.MultiReader(&crlfReader{r: bytes.NewReader(content)}, strings.NewReader(end(content)))
	all, err := dkim.VerifyWithOptions(message, &dkim.VerifyOptions{LookupTXT: lookup, MaxVerifications: maxSignatures})
	for _, v := range all {
		one := DKIM{Value: authres.ResultPass, Domain: domain(v.Domain)}
		if v.Err != nil {
			one.Reason = strings.TrimPrefix(v.Err.Error(), "dkim: ")
			switch {
			case dkim.IsTempFail(v.Err):
				one.Value = authres.ResultTempError
			case dkim.IsPermFail(v.Err):
				one.Value = authres.ResultPermError
			default:
				one.Value = authres.ResultFail
			}
		}
		out.DKIM = append(out.DKIM, one)
	}
	if err != nil && !errors.Is(err, dkim.ErrTooManySignatures) {
		out.DKIM = []DKIM{{Value: authres.ResultPermError, Reason: err.Error()}}
	}
}

// verifiable reports whether the header is within the bounds.
func verifiable(content []byte) bool {
	field := 0
	for at := 0; at < len(content); {
		line, _, _ := bytes.Cut(content[at:], []byte("\n"))
		if len(bytes.TrimSuffix(line, []byte("\r"))) == 0 {
			return true
		}
		if line[0] != ' ' && line[0] != '\t' {
			field = 0
		}
		at += len(line) + 1
		if field += len(line) + 1; field > maxField || at > maxHeader {
			return false
		}
	}
	return true
}

// end is what a message lacks that ends in its header.
func end(content []byte) string {
	if bytes.Contains(content, []byte("\n\n")) || bytes.Contains(content, []byte("\n\r\n")) || bytes.HasPrefix(content, []byte("\n")) {
		return ""
	}
	return "\r\n\r\n"
}

// crlfReader reads lines that end in CR LF, as they were signed.
type crlfReader struct {
	r    io.Reader
	buf  []byte
	out  []byte
	last byte
}

func (c *crlfReader) Read(p []byte) (int, error) {
	if c.buf == nil {
		c.buf = make([]byte, 32<<10)
	}
	for len(c.out) == 0 {
		n, err := c.r.Read(c.buf)
		c.out = c.out[:0]
		for _, b := range c.buf[:n] {
			if b == '\n' && c.last != '\r' {
				c.out = append(c.out, '\r')
			}
			c.out = append(c.out, b)
			c.last = b
		}
		if len(c.out) == 0 && err != nil {
			return 0, err
		}
	}
	n := copy(p, c.out)
	c.out = c.out[n:]
	return n, nil
}
