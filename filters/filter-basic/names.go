package main

import (
	"io"
	"mime"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-message"

	"postern/internal/percent"
)

// names examines all names that the values of Content-Disposition and Content-Type fields give. The values are not
// read as the grammar demands but as some reader of mail might: a name that only a few see is a name.
func (x *examiner) names(fields []string) error {
	for _, f := range fields {
		for _, name := range fileNames(f) {
			if err := x.name(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// name examines a name and what it becomes when it is decoded.
func (x *examiner) name(name string) error {
	for _, n := range variants(name) {
		if x.blockedName(n) {
			return blockedName(n)
		}
	}
	return nil
}

// parameter is one "key=value" of a field.
type parameter struct{ key, value string }

// parameters splits the value of a field at semicolons outside of quotes. An open quote ends with the value.
func parameters(field string) []parameter {
	var out []parameter
	for field != "" {
		i, quoted := 0, false
		for ; i < len(field) && (quoted || field[i] != ';'); i++ {
			switch {
			case field[i] == '\\' && quoted && i+1 < len(field):
				i++
			case field[i] == '"':
				quoted = !quoted
			}
		}
		item := field[:i]
		if i < len(field) {
			i++
		}
		field = field[i:]
		if key, value, ok := strings.Cut(item, "="); ok {
			out = append(out, parameter{strings.ToLower(strings.Trim(key, " \t\r\n")), strings.Trim(value, " \t\r\n")})
		}
	}
	return out
}

// unquote takes quotes and backslashes away.
func unquote(s string) string {
	if !strings.HasPrefix(s, `"`) {
		return s
	}
	var b strings.Builder
	for i := 1; i < len(s) && s[i] != '"'; i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// fileNames gives every name a field may mean: each name and filename parameter alone, duplicates included, and the
// pieces of RFC 2231, 3 put together.
func fileNames(field string) []string {
	var out []string
	pieces := map[string]map[int]string{}
	for _, p := range parameters(field) {
		base, star, _ := strings.Cut(p.key, "*")
		if base = strings.TrimSpace(base); base != "name" && base != "filename" {
			continue
		}
		// The value with and without its quotes: readers differ in what they make of a"b".
		value := unquote(p.value)
		out = append(out, value)
		if strings.Contains(p.value, `"`) {
			out = append(out, strings.ReplaceAll(p.value, `"`, ""))
		}
		if strings.HasSuffix(p.key, "*") {
			value = extended(value)
			out = append(out, value)
		}
		if n, err := strconv.Atoi(strings.TrimSuffix(star, "*")); err == nil && n >= 0 {
			if pieces[base] == nil {
				pieces[base] = map[int]string{}
			}
			pieces[base][n] += value
		}
	}
	for _, p := range pieces {
		var numbers []int
		for n := range p {
			numbers = append(numbers, n)
		}
		slices.Sort(numbers)
		var whole strings.Builder
		for _, n := range numbers {
			whole.WriteString(p[n])
		}
		out = append(out, whole.String(), extended(whole.String()))
	}
	return out
}

// extended decodes charset'language'text (RFC 2231, 4). Without the quotes it only decodes.
func extended(s string) string {
	if parts := strings.SplitN(s, "'", 3); len(parts) == 3 {
		decoded := percent.Decode(parts[2])
		if message.CharsetReader != nil {
			if r, err := message.CharsetReader(strings.ToLower(parts[0]), strings.NewReader(decoded)); err == nil {
				if b, err := io.ReadAll(r); err == nil {
					return string(b)
				}
			}
		}
		return decoded
	}
	return percent.Decode(s)
}

// wordDecoder decodes RFC 2047; a character set that is not known is taken for one that has ASCII in it.
var wordDecoder = mime.WordDecoder{CharsetReader: func(charset string, in io.Reader) (io.Reader, error) {
	if message.CharsetReader != nil {
		if r, err := message.CharsetReader(charset, in); err == nil {
			return r, nil
		}
	}
	return in, nil
}}

// variants gives the name and the names it may be read as: with encoded words decoded (also inside quotes, where they
// do not belong), with percent escapes decoded, without comments.
func variants(name string) []string {
	out := []string{name}
	if strings.Contains(name, "=?") {
		if d, err := wordDecoder.DecodeHeader(name); err == nil {
			out = append(out, d)
		}
		// Folded names have white space where there must be none.
		if d, err := wordDecoder.DecodeHeader(strings.Join(strings.Fields(name), "")); err == nil {
			out = append(out, d)
		}
	}
	for _, n := range slices.Clone(out) {
		if strings.Contains(n, "%") {
			out = append(out, percent.Decode(n))
		}
		if i, j := strings.IndexByte(n, '('), strings.LastIndexByte(n, ')'); i >= 0 && i < j {
			out = append(out, n[:i]+n[j+1:])
		}
	}
	return out
}

// clean makes of a name what a system makes of it when the file is saved: no directories, nothing behind a NUL, no
// invisible characters, no dots and spaces at the end.
func clean(name string) string {
	name, _, _ = strings.Cut(name, "\x00")
	name = strings.Map(func(r rune) rune {
		switch {
		case r < ' ' || r == 0x7f, r >= 0x80 && r < 0xa0, r == 0xad, r == 0x61c, r >= 0x200b && r <= 0x200f,
			r >= 0x202a && r <= 0x202e, r >= 0x2060 && r <= 0x206f, r == 0xfeff:
			return -1
		case r >= 0xff01 && r <= 0xff5e: // full width
			return r - 0xff01 + '!'
		case r == 0x2024 || r == 0xfe52: // other dots
			return '.'
		}
		return r
	}, strings.ToValidUTF8(name, ""))
	name = name[strings.LastIndexAny(name, `/\`)+1:]
	return strings.ToLower(strings.Trim(strings.TrimRight(name, ". "), `" `))
}

// blockedName tells whether a file of that name is not wanted.
func (x *examiner) blockedName(name string) bool {
	name = strings.TrimRight(clean(name), ". ")
	if x.blockedClean(name) {
		return true
	}
	// What follows a colon is a stream of the file before it.
	file, _, stream := strings.Cut(name, ":")
	return stream && x.blockedClean(strings.TrimRight(file, ". "))
}

func (x *examiner) blockedClean(name string) bool {
	for _, p := range x.BlockNames {
		if ok, _ := matchName(p, name); ok {
			return true
		}
	}
	i := strings.LastIndexByte(name, '.')
	if i < 0 || len(x.blocked) == 0 {
		return false
	}
	extension := strings.TrimSpace(name[i+1:])
	// A class identifier runs the program it belongs to.
	if strings.HasPrefix(extension, "{") && strings.HasSuffix(extension, "}") {
		return true
	}
	return x.blocked[extension] && !x.allowed[extension]
}

// matchName matches a name, in lower case, against a pattern.
func matchName(pattern, name string) (bool, error) { return path.Match(strings.ToLower(pattern), name) }
