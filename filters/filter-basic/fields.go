package main

import (
	"os"
	"strings"

	"postern/filters/worker"
)

// ambiguityResults is the field of draft-chen-email-mime-ambiguity-defense, in the form of RFC 8601.
const ambiguityResults = "MIME-Ambiguity-Results"

// ambiguityField returns the value of that field.
func (s *Settings) ambiguityField(m *worker.Message, ambiguities []string) string {
	return s.serviceID(m) + "; mime=ambiguous policy.action=" + s.OnAmbiguous + "\n\treason=" + quoted(strings.Join(ambiguities, ", "))
}

// serviceID returns the name of this host in fields of results (RFC 8601, 2.5).
func (s *Settings) serviceID(m *worker.Message) string {
	if s.AuthservID != "" {
		return s.AuthservID
	}
	if j := m.Macros["j"]; j != "" && isServiceID(j) {
		return j
	}
	if name, err := os.Hostname(); err == nil && isServiceID(name) && name != "" {
		return name
	}
	return "localhost"
}

// isServiceID reports whether name can stand in a field as it is, or is empty.
func isServiceID(name string) bool {
	return !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`()<>@,;:\"/[]?=`, r) })
}

// quoted makes text a quoted string of a header field (RFC 5322, 3.2.4), folded where it has commas.
func quoted(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	column := 16
	for i, piece := range strings.SplitAfter(text, ", ") {
		if i > 0 && column+len(piece) > 76 {
			b.WriteString("\n\t")
			column = 8
		}
		column += len(piece)
		for _, r := range piece {
			switch {
			case r == '"' || r == '\\':
				b.WriteByte('\\')
			case r < ' ' || r > '~':
				r = '?'
			}
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
