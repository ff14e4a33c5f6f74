package mime

import (
	"bytes"
	"encoding/base64"
	"strings"
	"unicode/utf16"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"
	"golang.org/x/text/encoding/unicode"

	"postern/internal/percent"
)

// unescape decodes %XX, and leaves what is no such escape as it is.
func unescape(s string) string { return percent.Decode(s) }

// maxReadings bounds the readings of a name that are decoded further.
const maxReadings = 32

// nameReadings returns what readers may show for a name as it stands in a field: with encoded words decoded (inside
// quotes too, where they do not belong), with percent escapes decoded, without comments, in several character sets.
func (w *walker) nameReadings(name string) []string {
	var out set
	out.add(name)
	for i := 0; i < len(out.list); i++ { // what was decoded may be encoded again
		if i == maxReadings {
			w.differ("a name that is encoded many times")
			break
		}
		n := out.list[i]
		if strings.Contains(n, "=?") {
			out.add(decodeWords(n)...)
			if packed := strings.Join(strings.Fields(n), ""); packed != n { // a folded name has white space in it
				out.add(decodeWords(packed)...)
			}
		}
		if strings.Contains(n, "%") {
			out.add(unescape(n))
		}
		out.add(withoutComments(n))
		if strings.Contains(n, "+A") || strings.Contains(n, "+/") {
			out.add(decodeUTF7([]byte(n)))
		}
	}
	return out.list
}

// decodeWords decodes the encoded words of RFC 2047 in s, leniently: white space inside, a missing end, base64
// without padding or with the letters of URLs, a character split over two words.
func decodeWords(s string) []string {
	var out strings.Builder
	var pending []byte // decoded bytes of adjacent words of one charset
	charset, changed := "", false
	flush := func() {
		if len(pending) > 0 {
			out.WriteString(inCharset(charset, pending)[0])
			pending = nil
		}
	}
	for s != "" {
		begin := strings.Index(s, "=?")
		if begin < 0 {
			break
		}
		word, rest, ok := cutWord(s[begin+2:])
		if !ok {
			flush()
			out.WriteString(s[:begin+2])
			s = s[begin+2:]
			continue
		}
		if between := s[:begin]; strings.TrimSpace(between) != "" || !strings.EqualFold(word.charset, charset) {
			flush()
			if !changed || strings.TrimSpace(between) != "" {
				out.WriteString(between)
			}
		}
		charset, changed = word.charset, true
		pending = append(pending, word.bytes...)
		s = rest
	}
	flush()
	out.WriteString(s)
	if !changed {
		return nil
	}
	return []string{out.String()}
}

// encodedWord is one that was decoded, but for its charset.
type encodedWord struct {
	charset string
	bytes   []byte
}

// cutWord reads charset?encoding?text?= at the beginning of s.
func cutWord(s string) (w encodedWord, rest string, ok bool) {
	charset, s, ok := strings.Cut(s, "?")
	if !ok {
		return w, "", false
	}
	charset, _, _ = strings.Cut(strings.TrimSpace(charset), "*") // RFC 2231, 5: a language
	how, s, ok := strings.Cut(s, "?")
	how = strings.TrimSpace(how)
	if !ok || len(how) != 1 {
		return w, "", false
	}
	content, rest, ended := strings.Cut(s, "?=")
	if !ended {
		content, rest, _ = strings.Cut(s, "?")
	}
	w.charset = charset
	switch how {
	case "B", "b":
		w.bytes, _ = decodeBase64([]byte(content), lenientBase64)
	case "Q", "q":
		w.bytes = decodeQuotedPrintable([]byte(strings.ReplaceAll(content, "_", " ")), 0)
	default:
		return w, "", false
	}
	return w, rest, true
}

// inCharset returns b read in that character set, the likeliest reading first: of one that is not known, or is
// known to be guessed by readers, as it is.
func inCharset(name string, b []byte) []string {
	name = strings.ToLower(strings.Trim(name, "\"' \t"))
	switch strings.ReplaceAll(strings.ReplaceAll(name, "-", ""), "_", "") {
	case "utf7", "unicode11utf7", "csunicode11utf7", "xunicode20utf7":
		return []string{decodeUTF7(b), string(b)}
	case "utf16", "utf16le", "utf16be", "unicode", "ucs2", "iso10646ucs2", "unicodefffe":
		le, _ := unicode.UTF16(unicode.LittleEndian, unicode.UseBOM).NewDecoder().Bytes(b)
		be, _ := unicode.UTF16(unicode.BigEndian, unicode.UseBOM).NewDecoder().Bytes(b)
		if strings.HasSuffix(name, "be") || !strings.HasSuffix(name, "le") && len(b) > 0 && b[0] == 0 {
			return []string{string(be), string(le)}
		}
		return []string{string(le), string(be)}
	}
	var e encoding.Encoding
	e, err := htmlindex.Get(name)
	if err != nil {
		e, err = ianaindex.MIME.Encoding(name)
	}
	if err != nil || e == nil {
		return []string{string(b)}
	}
	decoded, err := e.NewDecoder().Bytes(b)
	if err != nil {
		return []string{string(b)}
	}
	return []string{string(decoded)}
}

// decodeUTF7 decodes UTF-7 (RFC 2152), and leaves out what is none.
func decodeUTF7(b []byte) string {
	var out strings.Builder
	for len(b) > 0 {
		plus := bytes.IndexByte(b, '+')
		if plus < 0 {
			break
		}
		out.Write(b[:plus])
		b = b[plus+1:]
		n := 0
		for n < len(b) && base64Values[b[n]] < 64 && b[n] != '-' && b[n] != '_' {
			n++
		}
		shifted := b[:n]
		b = b[n:]
		if len(b) > 0 && b[0] == '-' {
			b = b[1:]
			if n == 0 {
				out.WriteByte('+')
			}
		}
		raw, _ := base64.RawStdEncoding.DecodeString(string(shifted))
		units := make([]uint16, len(raw)/2)
		for i := range units {
			units[i] = uint16(raw[2*i])<<8 | uint16(raw[2*i+1])
		}
		out.WriteString(string(utf16.Decode(units)))
	}
	out.Write(b)
	return out.String()
}
