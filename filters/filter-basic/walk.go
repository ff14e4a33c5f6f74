package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/emersion/go-message"
	_ "github.com/emersion/go-message/charset" // names in other character sets than UTF-8
	"github.com/emersion/go-message/textproto"
)

// errMalformed is wrapped by errors about a structure that readers of mail may read in different ways.
var errMalformed = errors.New("malformed MIME structure")

// examiner is the examination of one message.
type examiner struct {
	*Settings
	parts int
	leaf  *sniffer // of content; leaves are read one after another
}

// limited is a reader that can be told how much it may still give. Only the header of a part is read without an end
// in sight, so only there a limit is set.
type limited struct {
	r io.Reader
	n int64
}

var errTooLarge = &finding{tooComplex, "header of a message part is too large"}

const noLimit = math.MaxInt64

func (l *limited) Read(p []byte) (int, error) {
	if l.n <= 0 {
		return 0, errTooLarge
	}
	if int64(len(p)) > l.n {
		p = p[:l.n]
	}
	n, err := l.r.Read(p)
	l.n -= int64(n)
	return n, err
}

// message examines a whole message, the outer one or an attached one.
func (x *examiner) message(r io.Reader, depth int) error {
	if depth > x.MaxDepth {
		return &finding{tooComplex, "message is nested too deep"}
	}
	// The outer header has passed the limits of the mail server.
	lim := &limited{r, 16 << 20}
	if depth > 0 {
		lim.n = int64(x.MaxPartHeader)
	}
	br := bufio.NewReader(lim)
	header, err := textproto.ReadHeader(br)
	if err != nil {
		return lim.malformed(err)
	}
	lim.n = noLimit
	return x.entity(message.Header{Header: header}, br, depth)
}

// malformed is the error for a header that could not be read. A header that is cut at the limit looks malformed.
func (l *limited) malformed(err error) error {
	if l.n <= 0 {
		return errTooLarge
	}
	return malformed(err)
}

// malformed keeps findings and turns anything else into errMalformed.
func malformed(err error) error {
	var f *finding
	if errors.As(err, &f) || errors.Is(err, errMalformed) {
		return err
	}
	return fmt.Errorf("%w: %w", err, errMalformed)
}

// entity examines a message or part: its names, then its body, which it reads to the end.
func (x *examiner) entity(h message.Header, body io.Reader, depth int) error {
	if x.parts++; x.parts > x.MaxParts {
		return &finding{tooComplex, "message has too many parts"}
	}
	var fields []string
	for _, key := range []string{"Content-Disposition", "Content-Type"} {
		fields = append(fields, h.Values(key)...)
	}
	if err := x.names(fields); err != nil {
		return err
	}
	mediaType, params, typeErr := h.ContentType()
	mediaType = strings.ToLower(mediaType)
	var broken error
	if h.Has("Content-Type") && typeErr != nil || len(h.Values("Content-Type")) > 1 || len(h.Values("Content-Transfer-Encoding")) > 1 {
		broken = fmt.Errorf("header of a part: %w", errMalformed)
	}
	if strings.EqualFold(strings.TrimSpace(h.Get("Content-Transfer-Encoding")), "base64") {
		h.Set("Content-Transfer-Encoding", "base64")
		body = &base64Text{body}
	}
	e, err := message.New(h, body)
	if err != nil && !message.IsUnknownCharset(err) && !message.IsUnknownEncoding(err) {
		return malformed(err)
	}
	if message.IsUnknownEncoding(err) {
		broken = malformed(err)
	}
	switch {
	case strings.HasPrefix(mediaType, "multipart/") && typeErr == nil:
		if enc := strings.ToLower(strings.TrimSpace(h.Get("Content-Transfer-Encoding"))); enc == "base64" || enc == "quoted-printable" {
			broken = fmt.Errorf("encoded multipart: %w", errMalformed)
		}
		err = x.multipart(e.Body, params["boundary"], depth)
	case mediaType == "message/rfc822" || mediaType == "message/global" || mediaType == "message/news":
		err = x.message(e.Body, depth+1)
	case bool(x.BlockFragments) && (mediaType == "message/partial" || mediaType == "message/external-body"):
		err = &finding{blocked, "fragmented messages are not allowed"}
	default:
		err = x.content(e.Body, true)
	}
	return errors.Join(err, broken)
}

// multipart examines the parts of a body.
func (x *examiner) multipart(body io.Reader, boundary string, depth int) error {
	if depth >= x.MaxDepth {
		return &finding{tooComplex, "message is nested too deep"}
	}
	if boundary == "" {
		return fmt.Errorf("no boundary: %w", errMalformed)
	}
	lim := &limited{body, noLimit}
	mr := textproto.NewMultipartReader(lim, boundary)
	var broken error
	for {
		// Everything up to the part is read, so what NextPart reads is a boundary line and a header, but for the
		// preamble before the first one.
		lim.n = int64(x.MaxPartHeader) + 64<<10
		part, err := mr.NextPart()
		if err != nil && err != io.EOF {
			return lim.malformed(err)
		}
		lim.n = noLimit
		if err == io.EOF {
			// The epilogue is nobody's.
			_, err := io.Copy(io.Discard, body)
			return errors.Join(err, broken)
		}
		err = x.entity(message.Header{Header: part.Header}, part, depth+1)
		switch f := (*finding)(nil); {
		case errors.As(err, &f):
			return f
		case errors.Is(err, errMalformed):
			broken = err // what comes behind is looked at all the same
		case err != nil:
			return err
		}
		if _, err := io.Copy(io.Discard, part); err != nil {
			return malformed(err)
		}
	}
}

// base64Text leaves only the characters of base64, as RFC 2045, 6.8 asks for: others are to be ignored.
type base64Text struct{ r io.Reader }

func (b *base64Text) Read(p []byte) (int, error) {
	for {
		n, err := b.r.Read(p)
		kept := 0
		for _, c := range p[:n] {
			if isBase64(c) {
				p[kept] = c
				kept++
			}
		}
		if kept > 0 || err != nil || len(p) == 0 {
			return kept, err
		}
	}
}

// base64Alphabet has the characters of RFC 2045, 6.8, and the padding.
var base64Alphabet = func() (set [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=") {
		set[c] = true
	}
	return set
}()

func isBase64(c byte) bool { return base64Alphabet[c] }
