package main

import (
	"os"
	"slices"
	"strings"

	"postern/filters/filter-basic/scanner"
	"postern/filters/worker"
)

// changes are changes of the header. What is to go goes first, so that occurrences are those of the message.
type changes struct {
	remove, add []scanner.Field
	subject     string
}

// replace sets a field that nobody else may have set; with an empty value it only goes.
func (c *changes) replace(name, value string, index int) {
	c.remove = append(c.remove, scanner.Field{Name: name})
	if value != "" {
		c.add = append(c.add, scanner.Field{Name: name, Value: value, Index: index})
	}
}

// maxRemoved is how many fields are removed from a message: each takes a line of RESULTS, of which there may be 64 KiB.
const maxRemoved = 100

// tooMany returns the finding about a message with more fields than can be removed, or nil. count counts those of a name.
func (c *changes) tooMany(count func(name string) (int, error)) (*finding, error) {
	n := 0
	counted := map[string]bool{}
	for _, f := range c.remove {
		name := strings.ToLower(f.Name)
		switch {
		case f.Index > 0:
			n++
		case !counted[name]:
			counted[name] = true
			all, err := count(name)
			if err != nil {
				return nil, err
			}
			n += all
		}
	}
	if n > maxRemoved {
		return &finding{unclean, "message has too many fields that only this host may add"}, nil
	}
	return nil, nil
}

// reserved are the names of fields that nobody else may add.
func (s *Settings) reserved() []string {
	return slices.DeleteFunc([]string{ambiguityResults, s.ScanHeader, s.Header}, func(name string) bool { return name == "" })
}

// make makes the changes.
func (c *changes) make(m *worker.Message) {
	gone := map[string]bool{}
	for _, f := range slices.Backward(c.remove) { // from the last occurrence up
		switch name := strings.ToLower(f.Name); {
		case gone[name]:
		case f.Index > 0:
			m.DeleteHeader(f.Name, f.Index)
		default:
			gone[name] = true
			m.DeleteAllHeaders(f.Name)
		}
	}
	if c.subject != "" {
		m.ChangeHeader("Subject", c.subject, 1)
	}
	for _, f := range c.add {
		if f.Index < 0 {
			m.AddHeader(f.Name, f.Value)
		} else {
			m.InsertHeader(f.Name, f.Value, f.Index)
		}
	}
}

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
