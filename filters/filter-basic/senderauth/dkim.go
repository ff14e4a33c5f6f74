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

// Bounds of the work that signatures may make: what they ask for costs the library time in products of these.
const (
	maxSignatures = 10        // that are verified, from the top
	minSignatures = 4         // likewise, of a message that is large
	maxHashed     = 128 << 20 // bytes of the content times signatures, if these are more than that
	maxNames      = 1000      // of fields that one signature names
	maxPicked     = 64 << 20  // bytes of the header times names, as each is looked for among all fields
	maxHeader     = 256 << 10
	maxField      = 32 << 10
	maxUnfolded   = 64 << 20 // bytes before a fold, of all folds together: each makes a new copy of its field
	maxBlank      = 32 << 10 // bytes of empty lines in a row: they are copied with every piece that is read
)

// dkim verifies the signatures.
func (out *Results) dkim(ctx context.Context, r *client, content []byte) {
	signatures := max(minSignatures, min(maxSignatures, maxHashed/max(1, len(content))))
	if err := bounded(content, signatures); err != nil {
		out.DKIM = []DKIM{{Value: authres.ResultPermError, Reason: err.Error()}}
		return
	}
	lookup := func(name string) ([]string, error) { return keys(ctx, r, name) }
	message := io.MultiReader(&crlfReader{r: bytes.NewReader(content)}, strings.NewReader(end(content)))
	all, err := dkim.VerifyWithOptions(message, &dkim.VerifyOptions{LookupTXT: lookup, MaxVerifications: signatures})
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

// bounded returns what is too much of a message for so many signatures to be verified.
func bounded(content []byte, signatures int) error {
	if !verifiable(content) {
		return errors.New("header is too large")
	}
	fields, body := split(content)
	names := 0
	for _, f := range fields {
		if !strings.EqualFold(f.name, "dkim-signature") || signatures == 0 {
			continue
		}
		signatures--
		n := strings.Count(f.value, ":") + 1 // whatever tag the library takes for the list
		if names += n; n > maxNames || names > maxPicked/max(1, len(content)-len(body)) {
			return errors.New("too many fields are signed")
		}
	}
	if names > 0 && blank(body) > maxBlank {
		return errors.New("too many empty lines")
	}
	return nil
}

// blank is how many bytes of line ends are in a row.
func blank(body []byte) (most int) {
	n := 0
	for _, b := range body {
		if b != '\n' && b != '\r' {
			n = 0
			continue
		}
		n++
		most = max(most, n)
	}
	return most
}

// verifiable reports whether the header is within the bounds.
func verifiable(content []byte) bool {
	field, unfolded := 0, 0
	for at := 0; at < len(content); {
		line, _, _ := bytes.Cut(content[at:], []byte("\n"))
		if len(bytes.TrimSuffix(line, []byte("\r"))) == 0 {
			return true
		}
		if line[0] != ' ' && line[0] != '\t' {
			field = 0
		}
		unfolded += field
		at += len(line) + 1
		if field += len(line) + 1; field > maxField || at > maxHeader || unfolded > maxUnfolded {
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
