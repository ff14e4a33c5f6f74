package gate

import (
	"fmt"
	"strings"

	"golang.org/x/net/idna"

	"postern/internal/smtp"
)

// LocalDomains are the domains whose recipients are ours.
type LocalDomains struct {
	names map[string]bool // in normal form
	below []string        // such as .example.org, for all below it
}

// ParseLocalDomains reads domains and address literals, several to a line separated by spaces.
func ParseLocalDomains(lines []string) (LocalDomains, error) {
	local := LocalDomains{names: make(map[string]bool)}
	for _, line := range lines {
		for word := range strings.FieldsSeq(line) {
			name, dot := strings.CutPrefix(word, ".")
			name, ok := normalDomain(name)
			switch {
			case !ok || dot && name[0] == '[':
				return local, fmt.Errorf("%q is no domain", word)
			case dot:
				local.below = append(local.below, "."+name)
			default:
				local.names[name] = true
			}
		}
	}
	return local, nil
}

// Empty reports whether there are none.
func (l LocalDomains) Empty() bool { return len(l.names)+len(l.below) == 0 }

// Has reports whether mail for the recipient stays with us. It does not, whatever the domain, where the local part names
// another place (@, %, !): servers that trust us send such mail there. Without a domain only postmaster is ours:
// RFC 5321, 4.5.1.
func (l LocalDomains) Has(to smtp.Path) bool {
	user := to.Local()
	if NamesPlace(user) {
		return false
	}
	if to.Domain == "" {
		return strings.EqualFold(user, "postmaster")
	}
	domain, ok := normalDomain(to.Domain)
	if !ok {
		return false
	}
	if l.names[domain] {
		return true
	}
	for _, suffix := range l.below {
		if len(domain) > len(suffix) && domain[0] != '[' && strings.HasSuffix(domain, suffix) {
			return true
		}
	}
	return false
}

// NamesPlace reports whether a local part may name another place: victim%outside.test.
func NamesPlace(user string) bool { return strings.ContainsAny(user, "@%!"+wideMarks) }

// wideMarks are the characters that compatibility forms turn into @, % and !.
const wideMarks = "\ufe57\ufe6a\ufe6b\uff01\uff05\uff20"

// lookup makes A-labels as resolvers do: UTS #46. Underscores in names exist.
var lookup = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.StrictDomainName(false))

// normalDomain returns the one form that a domain is compared in: A-labels in small letters without the dot of the root,
// or an address literal without choices of spelling. What is neither is no domain.
func normalDomain(s string) (string, bool) {
	if addr, ok := smtp.ParseLiteral(s); ok {
		return "[" + addr.String() + "]", true
	}
	name, err := lookup.ToASCII(strings.TrimSuffix(s, "."))
	if err != nil || !smtp.IsHostName(name) {
		return "", false
	}
	return strings.ToLower(name), true
}
