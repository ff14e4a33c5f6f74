package senderauth

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"iter"
	"regexp"
	"strings"
)

// A field is one of the header.
type field struct {
	name  string // in lower case
	value string // without the line ends of folding
	raw   string // as it is signed: whole, with CR LF
	tags  map[string]string
}

// split divides a message into fields and body, with CR LF. A line of the header that belongs to no field is left out.
func split(content []byte) (fields []*field, body []byte) {
	body = eachField(content, func(lines []byte) bool {
		raw := unfolded(lines, "\r\n") + "\r\n"
		if name, value, ok := strings.Cut(raw, ":"); ok {
			name = strings.ToLower(strings.TrimSpace(name))
			fields = append(fields, &field{name: name, value: strings.ReplaceAll(value, "\r\n", ""), raw: raw})
		}
		return true
	})
	return fields, body
}

// eachField has f see each field of the header as it came, until it returns false, and returns the body.
func eachField(content []byte, f func(lines []byte) bool) (body []byte) {
	start, at := 0, 0
	for at < len(content) {
		line, _, _ := bytes.Cut(content[at:], []byte("\n"))
		next := min(at+len(line)+1, len(content))
		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(line) == 0 {
			body = content[next:]
			break
		}
		if line[0] != ' ' && line[0] != '\t' && at > start {
			if !f(content[start:at]) {
				return nil
			}
			start = at
		}
		at = next
	}
	if at > start {
		f(content[start:at])
	}
	return body
}

// unfolded is a field with something else for the line ends within it.
func unfolded(lines []byte, end string) string {
	lines = bytes.TrimSuffix(bytes.TrimSuffix(lines, []byte("\n")), []byte("\r"))
	return strings.ReplaceAll(string(bytes.ReplaceAll(lines, crlf, []byte("\n"))), "\n", end)
}

// Values returns the values of the fields of a name, in any case of letters, from the top.
func Values(content []byte, name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		eachField(content, func(lines []byte) bool {
			is, value, ok := bytes.Cut(lines, []byte(":"))
			return !ok || !bytes.EqualFold(bytes.TrimSpace(is), []byte(name)) || yield(strings.TrimSpace(unfolded(value, "")))
		})
	}
}

// parseTags reads a list of tags (RFC 6376, 3.2); none may come twice.
func parseTags(list string) (map[string]string, error) {
	tags := map[string]string{}
	for part := range strings.SplitSeq(list, ";") {
		name, value, ok := strings.Cut(part, "=")
		name = strings.TrimSpace(name)
		switch _, twice := tags[name]; {
		case !ok && name == "": // after the last ;
		case !ok || name == "":
			return nil, errors.New("not a list of tags")
		case twice:
			return nil, errors.New("a tag comes twice")
		default:
			tags[name] = strings.TrimSpace(value)
		}
	}
	return tags, nil
}

// compact is a value without white space, which may be anywhere in base64.
func compact(s string) string { return strings.Join(strings.Fields(s), "") }

var signatureTag = regexp.MustCompile(`(^|[;:])(\s*b\s*=)[^;]+`)

// withoutSignature is a field as it was when it was signed: its tag b is empty (RFC 6376, 3.5).
func withoutSignature(raw string) string {
	end := ""
	if strings.HasSuffix(raw, "\r\n") {
		raw, end = raw[:len(raw)-2], "\r\n"
	}
	return signatureTag.ReplaceAllString(raw, "$1$2") + end
}

// ownPart is what a signature signs of the field that it stands in: all but the last line end.
func ownPart(raw string) string { return strings.TrimSuffix(raw, "\r\n") }

// relaxed is a field in the canonical form that is called so (RFC 6376, 3.4.2).
func relaxed(raw string) string {
	name, value, _ := strings.Cut(raw, ":")
	return strings.ToLower(strings.TrimRight(name, " \t")) + ":" + strings.Join(strings.FieldsFunc(value, isBlank), " ") + "\r\n"
}

func isBlank(r rune) bool { return r == ' ' || r == '\t' || r == '\r' || r == '\n' }

// bodyHash is the hash of a body in one of the canonical forms.
func bodyHash(body []byte, relaxed bool) (sum [sha256.Size]byte) {
	hash := sha256.New()
	writeBody(hash, body, relaxed)
	hash.Sum(sum[:0])
	return sum
}

var crlf, space = []byte("\r\n"), []byte(" ")

// writeBody writes a body with CR LF, in one of the canonical forms of RFC 6376, 3.4.3 and 3.4.4, to a hash, which cannot
// fail.
func writeBody(w io.Writer, body []byte, relaxed bool) {
	empty, some := 0, false // lines before this one
	for len(body) > 0 {
		var line []byte
		line, body, _ = bytes.Cut(body, []byte("\n"))
		if line = bytes.TrimSuffix(line, []byte("\r")); relaxed {
			line = bytes.TrimRight(line, " \t")
		}
		if len(line) == 0 {
			empty++
			continue
		}
		for ; empty > 0; empty-- {
			_, _ = w.Write(crlf)
		}
		if relaxed {
			line = writeWords(w, line)
		}
		_, _ = w.Write(line)
		_, _ = w.Write(crlf)
		some = true
	}
	if !some && !relaxed {
		_, _ = w.Write(crlf)
	}
}

// writeWords writes a line up to its last word, which is returned, with one space for all blanks between words.
func writeWords(w io.Writer, line []byte) (last []byte) {
	for {
		blank := bytes.IndexAny(line, " \t")
		if blank < 0 {
			return line
		}
		_, _ = w.Write(line[:blank])
		_, _ = w.Write(space)
		line = bytes.TrimLeft(line[blank:], " \t")
	}
}
