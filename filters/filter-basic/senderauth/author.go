package senderauth

import (
	"io"
	"iter"
	"mime"
	"net/mail"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Bounds of From fields.
const (
	maxAuthors = 5        // domains
	maxFrom    = 16 << 10 // bytes
)

// authors are whom a message may be from: readers differ about a From field that is not in order, and about several.
type authors struct {
	domains []string
	fields  int
	tooMany bool // no more than the first are in domains
}

// authorsOf returns each domain that some reader may take for the author's. Of an address in order that is its own alone,
// whatever is said before it.
func authorsOf(from iter.Seq[string]) (a authors) {
	size := 0
	for value := range from {
		a.fields++
		if size += len(value) + 1; size > maxFrom {
			a.tooMany = true
			break
		}
		list, err := addressParser.ParseList(strings.ToValidUTF8(value, string(unicode.ReplacementChar))) // names come in any charset
		if err != nil {
			a.mentioned(value)
			continue
		}
		for _, address := range list {
			local, d, _ := cutLast(address.Address, "@")
			a.add(domain(d))
			if a.mentioned(local); strings.ContainsFunc(d, notInDomain) {
				a.mentioned(address.Address)
			}
		}
	}
	return a
}

func (a *authors) add(name string) {
	switch {
	case name == "" || slices.Contains(a.domains, name):
	case len(a.domains) == maxAuthors:
		a.tooMany = true
	default:
		a.domains = append(a.domains, name)
	}
}

// mentioned adds the domains behind each @ of a text, with comments and blanks and without, encoded and not.
func (a *authors) mentioned(text string) {
	decoded, err := words8.DecodeHeader(text)
	if err != nil {
		decoded = text
	}
	for _, reading := range []string{text, decoded, aroundDots.ReplaceAllString(bare(text), "$1")} {
		for _, piece := range strings.Split(reading, "@")[1:] {
			if end := strings.IndexFunc(piece, notInDomain); end >= 0 {
				piece = piece[:end]
			}
			if d := domain(strings.Trim(piece, ".")); strings.Contains(d, ".") {
				a.add(d)
			}
		}
	}
}

var (
	aroundDots    = regexp.MustCompile(`\s*([.@])\s*`)
	words8        = mime.WordDecoder{CharsetReader: func(_ string, r io.Reader) (io.Reader, error) { return r, nil }} // any charset has ASCII
	addressParser = mail.AddressParser{WordDecoder: &words8}
)

// notInDomain reports whether a character ends a domain, also one in other letters with what readers do not show.
func notInDomain(r rune) bool {
	return r == unicode.ReplacementChar || !unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.Cf) && !strings.ContainsRune("-_.\u3002\uff0e\uff61", r)
}
