package mime

import (
	"slices"
	"strings"
)

// media is what readers may take a part for.
type media struct {
	types      set
	multipart  bool // some reader takes it for a multipart
	leaf       bool // some reader takes it for neither a multipart nor a message
	message    bool // some reader takes it for a message
	digest     bool // the parts are messages by default (RFC 2046, 5.1.5)
	boundaries []string
	odd        string // in which way readers differ
}

// mediaOf reads the Content-Type fields of a part; of several any may count. fallback is the type without one.
func mediaOf(values []string, fallback string) media {
	var m media
	if len(values) == 0 {
		values = []string{fallback}
	}
	if len(values) > 1 && slices.ContainsFunc(values, func(v string) bool { return v != values[0] }) {
		m.odd = "several Content-Type fields"
	}
	var boundaries set
	for _, value := range values {
		params, _ := parameters(value) // the work is counted when names are looked for
		found := readings(params, "boundary")
		for _, b := range found {
			boundaries.add(boundaryReadings(b)...)
		}
		for _, p := range params {
			if p.key == "boundary" {
				if len(p.raw) == maxRaw {
					m.differ("a boundary that is too long")
				}
				boundaries.add(rawBoundaries(p.raw)...)
			}
		}
		m.add(value, len(found) > 0)
	}
	m.boundaries = boundaries.list
	return m
}

// add adds the readings of one value.
func (m *media) add(value string, hasBoundary bool) {
	t, odd := typeOf(value)
	m.types.add(t)
	switch {
	case strings.HasPrefix(t, "multipart/") && !odd:
		m.multipart = true
		m.digest = m.digest || t == "multipart/digest"
	case strings.Contains(t, "multipart") || odd && hasBoundary:
		m.multipart, m.leaf = true, true
		m.differ("a type that only some readers take for a multipart")
	case isMessage(t):
		m.message = true
	default:
		m.leaf = true
		m.multipart = m.multipart || hasBoundary
	}
}

func (m *media) differ(odd string) {
	if m.odd == "" {
		m.odd = odd
	}
}

// typeOf returns the media type of a field's value in lower case, without comments, quotes and what does not belong
// there; odd says that such was there.
func typeOf(value string) (t string, odd bool) {
	head, _, _ := strings.Cut(value, ";")
	head = strings.ToLower(strings.TrimSpace(head))
	if isType(head) {
		return head, false
	}
	plain := withoutComments(head)
	if isType(plain) {
		return plain, true
	}
	if word := firstWord(plain); isType(word) {
		// Such as "text/plain charset=us-ascii", where a semicolon is missing.
		return word, word != "text/plain"
	}
	plain = strings.Map(func(r rune) rune {
		switch {
		case r <= ' ' || r >= 0x7f || r == '"' || r == '\'':
			return -1
		case r == '\\':
			return '/'
		}
		return r
	}, firstItem(plain))
	return plain, plain != ""
}

// isType reports whether s is TYPE/SUBTYPE (RFC 2045, 5.1).
func isType(s string) bool {
	kind, sub, ok := strings.Cut(s, "/")
	return ok && kind != "" && sub != "" && !strings.ContainsFunc(kind+sub, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`()<>@,;:\"/[]?=`, r)
	})
}

// isMessage reports whether a part of that type has a message in it. Reports have fields alone.
func isMessage(t string) bool {
	switch t {
	case "message/delivery-status", "message/disposition-notification", "message/feedback-report", "message/tracking-status",
		"message/global-delivery-status", "message/global-disposition-notification", "message/http", "message/sip", "message/s-http":
		return false
	}
	return strings.HasPrefix(t, "message")
}

// boundaryReadings returns what readers may take a boundary for.
func boundaryReadings(b string) []string {
	var out set
	for _, r := range []string{b, strings.TrimRight(b, " \t"), strings.TrimSpace(b)} {
		out.add(r)
		if strings.Contains(r, "=?") {
			out.add(decodeWords(r)...)
		}
		if strings.Contains(r, "%") {
			out.add(unescape(r))
		}
	}
	return out.list
}

// rawBoundaries returns what readers that know no quotes, or end a value in other places, take a boundary for.
func rawBoundaries(raw string) []string {
	var out set
	out.add(raw, strings.TrimSpace(raw))
	if i := strings.LastIndexByte(raw, '"'); i >= 0 && i+1 < len(raw) {
		out.add(raw[i+1:])
	}
	if i := strings.IndexByte(raw, '('); i >= 0 {
		out.add(strings.TrimSpace(raw[:i]))
	}
	for _, item := range strings.Split(raw, ",") {
		out.add(strings.Trim(item, "\" \t"))
	}
	return out.list
}

// transferEncoding is how a body is encoded.
type transferEncoding int

const (
	identity transferEncoding = iota
	base64Encoding
	quotedPrintable
	uuencode
	yenc
	binhex
	gzip64
)

// encodingNames are the values of Content-Transfer-Encoding that some reader knows; those of the identity are known
// to be harmless.
var encodingNames = map[string]transferEncoding{
	"7bit": identity, "8bit": identity, "binary": identity,
	"base64": base64Encoding, "quoted-printable": quotedPrintable,
	"x-uuencode": uuencode, "uuencode": uuencode, "x-uue": uuencode, "uue": uuencode, "uu": uuencode,
	"yenc": yenc, "x-yenc": yenc, "x-binhex": binhex, "binhex": binhex, "binhex4": binhex, "mac-binhex40": binhex, "x-mac-binhex40": binhex,
	"x-gzip64": gzip64, "gzip64": gzip64,
}

// harmlessEncodings are wrong, common, and taken by all for the identity.
var harmlessEncodings = []string{"7-bit", "8-bit", "7bits", "8bits", "7 bit", "8 bit", "7bit;", "8bit;", "none", "us-ascii", "utf-8",
	"utf8", "iso-8859-1", "unknown", "ascii", "text", "plain", "en"}

// encodingsOf returns what the Content-Transfer-Encoding fields of a part may mean, the likeliest first.
func encodingsOf(values []string) (encodings []transferEncoding, odd string) {
	add := func(e transferEncoding) {
		if !slices.Contains(encodings, e) {
			encodings = append(encodings, e)
		}
	}
	for _, v := range values {
		v = strings.ToLower(strings.TrimSpace(v))
		if e, ok := encodingNames[v]; ok {
			add(e)
			continue
		}
		if v == "" || slices.Contains(harmlessEncodings, v) {
			add(identity)
			continue
		}
		odd = "an unusual Content-Transfer-Encoding"
		for _, e := range guessEncodings(v) {
			add(e)
		}
	}
	if len(encodings) == 0 {
		add(identity)
	}
	if len(values) > 1 && len(encodings) > 1 && odd == "" {
		odd = "several Content-Transfer-Encoding fields"
	}
	return encodings, odd
}

// guessEncodings returns what readers may take a value for that is none of the known: the words in it, and all common
// ones, because some readers look only for a part of a name.
func guessEncodings(v string) []transferEncoding {
	var out []transferEncoding
	for _, word := range strings.FieldsFunc(withoutComments(v), func(r rune) bool { return r <= ' ' || strings.ContainsRune(`",;'()`, r) }) {
		if e, ok := encodingNames[word]; ok {
			out = append(out, e)
		}
	}
	switch {
	case strings.Contains(v, "yenc"):
		out = append(out, yenc)
	case strings.Contains(v, "hex"):
		out = append(out, binhex)
	case strings.Contains(v, "uu"):
		out = append(out, uuencode)
	case strings.Contains(v, "gzip"):
		out = append(out, gzip64)
	}
	return append(out, identity, base64Encoding, quotedPrintable)
}
