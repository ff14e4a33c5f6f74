package senderauth

import (
	"strings"

	"github.com/emersion/go-msgauth/authres"
)

// FieldName is the field of the results.
const FieldName = "Authentication-Results"

// Field returns the value of the field, a result a line.
func (r *Results) Field(host string, m *Message) string {
	results := []authres.Result{&authres.SPFResult{Value: r.SPF, From: mailFrom(r.SPFSender, m.Sender), Helo: harmless(m.Helo)}}
	for _, d := range r.DKIM {
		results = append(results, &authres.DKIMResult{Value: d.Value, Domain: harmless(d.Domain)})
	}
	if len(r.DKIM) == 0 {
		results = append(results, &authres.DKIMResult{Value: authres.ResultNone})
	}
	if r.ARC.Value != "" {
		results = append(results, &authres.GenericResult{Method: "arc", Value: r.ARC.registered()})
	}
	results = append(results, &authres.DMARCResult{Value: r.DMARC, From: harmless(r.From)})
	lines := strings.Split(authres.Format(host, results), "; ")
	for i, line := range lines {
		lines[i] = strings.TrimRight(line, " ")
	}
	return strings.Join(lines, ";\n\t")
}

func mailFrom(is bool, sender string) string {
	if !is {
		return ""
	}
	return harmless(sender)
}

// harmless is a value without what could end it: what a client has said must not become a result.
func harmless(s string) string {
	const most = 255
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' || strings.ContainsRune(`"\();=`, r) {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), most)]
}

// Claims reports whether the value of an Authentication-Results field claims to be of host: whatever comments, quotes
// and case of letters are about its name.
func Claims(value, host string) bool {
	var name strings.Builder
	depth := 0
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case c == '\\' && i+1 < len(value):
			if i++; depth == 0 {
				name.WriteByte(value[i])
			}
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case depth > 0 || c == '"' || c <= ' ':
		case c == ';':
			i = len(value)
		default:
			name.WriteByte(c)
		}
	}
	return host != "" && strings.Contains(strings.ToLower(name.String()), strings.ToLower(host))
}

// String is the results in a line of the log.
func (r *Results) String() string {
	parts := []string{"spf=" + string(r.SPF)}
	for _, d := range r.DKIM {
		part := "dkim=" + string(d.Value) + " (" + harmless(d.Domain) + ")"
		if d.Reason != "" {
			part += " " + words(d.Reason)
		}
		parts = append(parts, part)
	}
	arc := "arc=" + string(r.ARC.Value)
	if r.ARC.Reason != "" {
		arc += " " + words(r.ARC.Reason)
	}
	if len(r.ARC.Sealers) > 0 {
		arc += " (" + harmless(strings.Join(r.ARC.Sealers, ",")) + ")"
	}
	return strings.Join(append(parts, arc, "dmarc="+string(r.DMARC)+" ("+harmless(r.From)+")"), "; ")
}

// words are a reason in a line of the log.
func words(reason string) string {
	return strings.ReplaceAll(harmless(strings.ReplaceAll(reason, " ", "_")), "_", " ")
}
