package mime

import (
	"slices"
	"strconv"
	"strings"
)

// parameter is one "key=value" of a field, with what readers may take its value for: the likeliest first.
type parameter struct {
	key    string // in lower case
	values []string
	raw    string // as it stands, for readers that know no quotes
}

// maxRaw bounds a value as it stands; no boundary is longer than 70 characters (RFC 2046, 5.1.1).
const maxRaw = 255

// lookAhead bounds how far a value without quotes is taken to go on behind what might be the next parameter.
const lookAhead = 127

// parameters reads the parameters of a field's value as leniently as the most lenient reader, in one pass, and once
// more as a reader that knows no comments, and one that knows no quotes, where the value has such.
// It returns too the work that this is: the bytes passed over, and what each parameter costs beside its bytes.
func parameters(value string) (params []parameter, work int) {
	read := func(v string, comments bool) {
		s := &paramScanner{v: v, comments: comments}
		found := s.scan()
		params = append(params, found...)
		work += s.work + len(found)*parameterWeight
	}
	hasComment := strings.Contains(value, "(")
	read(value, hasComment)
	if hasComment {
		read(value, false)
	}
	if strings.Count(value, `"`)%2 == 1 || strings.Contains(value, `\`) {
		read(strings.ReplaceAll(value, `"`, ""), false)
	}
	return params, work
}

// parameterWeight is for how many bytes a parameter counts: there are several readings of each.
const parameterWeight = 512

type paramScanner struct {
	v        string
	comments bool // comments are skipped
	work     int  // bytes passed over
}

// to notes that the bytes from i to j were passed over.
func (s *paramScanner) to(i, j int) int {
	s.work += j - i
	return j
}

func (s *paramScanner) scan() (out []parameter) {
	for i := 0; i < len(s.v); {
		switch c := s.v[i]; {
		case isSpace(c) || c == ';' || c == ',' || c == '=':
			i++
		case c == '(' && s.comments:
			i = s.comment(i)
		case c == '"':
			_, i = s.quoted(i)
		default:
			j := s.token(i)
			key, at := s.v[i:j], s.space(j)
			if at > j && at < len(s.v) && s.v[at] == '*' { // white space inside the key
				end := s.token(at)
				key, at = key+s.v[at:end], s.space(end)
			}
			if at < len(s.v) && s.v[at] == '=' {
				p := parameter{key: strings.ToLower(key)}
				start := at + 1
				p.values, j = s.value(s.space(start))
				p.raw = s.v[start:min(j, start+maxRaw)]
				out = append(out, p)
			}
			i = max(j, i+1)
		}
	}
	return out
}

func isSpace(c byte) bool { return c <= ' ' || c == 0x7f }

// token returns the end of the token that begins at i.
func (s *paramScanner) token(i int) int {
	j := i
	for j < len(s.v) && !isSpace(s.v[j]) && !strings.ContainsRune(`;,=("`, rune(s.v[j])) {
		j++
	}
	return s.to(i, j)
}

// space skips white space and comments.
func (s *paramScanner) space(i int) int {
	for i < len(s.v) {
		switch {
		case isSpace(s.v[i]):
			i = s.to(i, i+1)
		case s.v[i] == '(' && s.comments:
			i = s.comment(i)
		default:
			return i
		}
	}
	return i
}

// comment returns the end of the comment that begins at i. One that does not end is none, and nor are later ones.
func (s *paramScanner) comment(i int) int {
	depth := 0
	for j := i; j < len(s.v); j++ {
		switch s.v[j] {
		case '\\':
			j++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return s.to(i, j+1)
			}
		}
	}
	s.comments = false
	s.to(i, len(s.v))
	return i + 1
}

// quoted returns the end of the quoted text that begins at i, and its readings.
func (s *paramScanner) quoted(i int) (values []string, end int) {
	var plain strings.Builder
	j, escaped := i+1, -1
	for ; j < len(s.v) && s.v[j] != '"'; j++ {
		if s.v[j] == '\\' && j+1 < len(s.v) {
			if s.v[j+1] == '"' && escaped < 0 {
				escaped = j
			}
			j++
		}
		plain.WriteByte(s.v[j])
	}
	s.to(i, j)
	raw := s.v[i+1 : min(j, len(s.v))]
	values = append(values, plain.String())
	if strings.Contains(raw, `\`) {
		values = append(values, raw)
	}
	if escaped >= 0 {
		values = append(values, s.v[i+1:escaped]) // where backslashes mean nothing
	}
	if j < len(s.v) {
		return values, j + 1
	}
	// The quote is never closed.
	if first, _, found := strings.Cut(raw, ";"); found {
		return append(values, first), i + 1 + len(first)
	}
	return append(values, firstWord(raw)), len(s.v)
}

// value returns the readings of the value that begins at i, and where it ends.
func (s *paramScanner) value(i int) (values []string, end int) {
	if i >= len(s.v) {
		return []string{""}, i
	}
	if s.v[i] == '"' {
		values, end = s.quoted(i)
		if end < len(s.v) && !isSpace(s.v[end]) && !strings.ContainsRune(";,(", rune(s.v[end])) && !s.beginsParameter(end-1) {
			// More stands right behind the quote: a"b"c.
			_, more := s.bare(end)
			values = append(values, strings.ReplaceAll(s.v[i:more], `"`, ""))
			end = more
		}
		return values, end
	}
	all, next := s.bare(i)
	whole := strings.TrimSpace(s.v[i:all])
	values = append(values, whole)
	for _, other := range []string{strings.TrimSpace(s.v[i:next]), firstWord(whole), firstItem(whole), withoutComments(whole),
		strings.TrimRight(whole, ")"), strings.ReplaceAll(whole, `"`, "")} {
		if !slices.Contains(values, other) {
			values = append(values, other)
		}
	}
	return values, next
}

// bare returns where a value without quotes that begins at i ends: at the semicolon, and where the next parameter
// begins if a semicolon is missing.
func (s *paramScanner) bare(i int) (semicolon, next int) {
	next = -1
	for semicolon = i; semicolon < len(s.v) && s.v[semicolon] != ';'; semicolon++ {
		if next >= 0 {
			if semicolon-next > lookAhead {
				break
			}
			continue
		}
		if c := s.v[semicolon]; (isSpace(c) || c == ',') && s.beginsParameter(semicolon) {
			next = semicolon
		}
	}
	if next < 0 {
		next = semicolon
	}
	s.to(i, semicolon)
	return semicolon, next
}

// beginsParameter reports whether a parameter with a name that matters begins behind the white space at i.
func (s *paramScanner) beginsParameter(i int) bool {
	if i+1 >= len(s.v) || isSpace(s.v[i+1]) {
		return false
	}
	rest := s.v[i+1 : min(len(s.v), i+1+len("boundary*000*")+2)]
	for _, key := range []string{"filename", "name", "boundary", "charset"} {
		if len(rest) > len(key) && strings.EqualFold(rest[:len(key)], key) {
			after := strings.TrimLeft(rest[len(key):], "*0123456789 \t")
			return strings.HasPrefix(after, "=")
		}
	}
	return false
}

func firstWord(s string) string {
	if i := strings.IndexFunc(s, func(r rune) bool { return r <= ' ' }); i > 0 {
		return s[:i]
	}
	return s
}

func firstItem(s string) string { item, _, _ := strings.Cut(s, ","); return item }

// withoutComments removes comments, and one that does not end.
func withoutComments(s string) string {
	i, j := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
	switch {
	case i >= 0 && i < j:
		return strings.TrimSpace(s[:i] + s[j+1:])
	case i > 0:
		return strings.TrimSpace(s[:i])
	}
	return s
}

// readings returns all that readers may take the parameter called name for, without repetitions: each occurrence, and
// the continuations and extended values of RFC 2231, 3 and 4.
func readings(params []parameter, name string) []string {
	var out set
	var pieces []piece
	for _, p := range params {
		base, star, extended := strings.Cut(p.key, "*")
		if base != name {
			continue
		}
		for _, v := range p.values {
			out.add(v)
			if strings.HasSuffix(p.key, "*") {
				out.add(extendedValue(v)...)
			}
		}
		if n, err := strconv.Atoi(strings.TrimSuffix(star, "*")); extended && err == nil && n >= 0 && len(p.values) > 0 {
			pieces = append(pieces, piece{n, strings.HasSuffix(star, "*"), p.values[0]})
		}
	}
	out.add(joined(pieces)...)
	return out.list
}

// piece is one continuation of a parameter: name*n or name*n*.
type piece struct {
	n        int
	extended bool
	value    string
}

// joined puts continuations together: by their numbers, and as they stand; all of them, and those up to a gap; of
// those with the same number all, the first and the last.
func joined(pieces []piece) []string {
	if len(pieces) == 0 {
		return nil
	}
	var out set
	out.add(joinPieces(pieces)...)
	sorted := slices.Clone(pieces)
	slices.SortStableFunc(sorted, func(a, b piece) int { return a.n - b.n })
	out.add(joinPieces(sorted)...)
	first := slices.CompactFunc(slices.Clone(sorted), func(a, b piece) bool { return a.n == b.n })
	if len(first) < len(sorted) {
		last := slices.Clone(sorted)
		slices.Reverse(last)
		last = slices.CompactFunc(last, func(a, b piece) bool { return a.n == b.n })
		slices.Reverse(last)
		out.add(joinPieces(first)...)
		out.add(joinPieces(last)...)
	}
	for i, p := range first {
		if p.n != i {
			out.add(joinPieces(first[:i])...)
			break
		}
	}
	return out.list
}

// joinPieces joins pieces as they are, decoded one by one, and decoded as a whole.
func joinPieces(pieces []piece) []string {
	var raw, decoded strings.Builder
	charset := ""
	for i, p := range pieces {
		raw.WriteString(p.value)
		value := p.value
		if p.extended {
			if parts := strings.SplitN(value, "'", 3); len(parts) == 3 && i == 0 {
				charset, value = parts[0], parts[2]
			}
			value = unescape(value)
		}
		decoded.WriteString(value)
	}
	out := []string{raw.String(), decoded.String()}
	if charset != "" {
		out = append(out, inCharset(charset, []byte(decoded.String()))...)
	}
	return append(out, extendedValue(raw.String())...)
}

// extendedValue decodes charset'language'text, and text without them.
func extendedValue(s string) []string {
	out := []string{unescape(s)}
	if parts := strings.SplitN(s, "'", 3); len(parts) == 3 {
		text := unescape(parts[2])
		out = append(out, text)
		out = append(out, inCharset(parts[0], []byte(text))...)
	}
	return out
}

// set is a list without repetitions, in the order of what was added.
type set struct {
	list []string
	has  map[string]bool
}

func (s *set) add(values ...string) {
	for _, v := range values {
		if s.has == nil {
			s.has = map[string]bool{}
		}
		if !s.has[v] {
			s.has[v] = true
			s.list = append(s.list, v)
		}
	}
}
