package workdir

import "strings"

// validCode reports whether s is a reply code that begins with digit.
func validCode(s string, digit byte) bool {
	return len(s) == 3 && s[0] == digit && allDigits(s)
}

// validDSN reports whether s is an enhanced status code (RFC 3463, 2) that begins with digit.
func validDSN(s string, digit byte) bool {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || len(parts[0]) != 1 || parts[0][0] != digit {
		return false
	}
	for _, p := range parts[1:] {
		if len(p) < 1 || len(p) > 3 || !allDigits(p) {
			return false
		}
	}
	return true
}

func allDigits(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// validName reports whether s can be the name of a header field. RFC 5322, 2.2.
func validName(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] > '~' || s[i] == ':' {
			return false
		}
	}
	return s != "" && len(s) <= maxFieldName
}

// plain turns control bytes into spaces and cuts spaces off both ends.
func plain(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c < ' ' || c == 0x7f {
			b[i] = ' '
		}
	}
	return strings.Trim(string(b), " ")
}

// replyText makes a text fit for a reply: LF separates lines, other control bytes become spaces, a LF at the end
// adds no line.
func replyText(s string) string {
	s = strings.ReplaceAll(s, "\r\n", "\n")
	lines := strings.Split(strings.TrimSuffix(s, "\n"), "\n")
	for i, l := range lines {
		lines[i] = plain(l)
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "\n")
}

// fold makes a value fit for a header field. CR goes; a LF is a fold, so if white space does not follow a TAB is put
// in, and a continuation line of white space alone is left out, for some readers take it for the end of the header.
// Other control bytes become spaces.
func fold(s string) string {
	lines := strings.Split(strings.ReplaceAll(s, "\r", ""), "\n")
	out := make([]string, 0, len(lines))
	for i, l := range lines {
		b := []byte(l)
		for j, c := range b {
			if c < ' ' && c != '\t' || c == 0x7f {
				b[j] = ' '
			}
		}
		l = string(b)
		if i > 0 {
			if strings.Trim(l, " \t") == "" {
				continue
			}
			if l[0] != ' ' && l[0] != '\t' {
				l = "\t" + l
			}
		}
		out = append(out, l)
	}
	return strings.Join(out, "\n")
}
