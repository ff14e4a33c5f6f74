package smtp

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"
)

// AddressCheck says which envelope addresses are taken.
type AddressCheck string

const (
	// CheckStrict takes an address in angle brackets with exactly one @ and none of % ! : and comma.
	CheckStrict AddressCheck = "strict"
	// CheckRFC takes a Mailbox of RFC 5321, 4.1.2, in angle brackets, but no source route.
	CheckRFC AddressCheck = "rfc"
	// CheckOff takes what can be passed on without harm: brackets and domain may be missing, dots stand
	// anywhere in the local part, a source route is dropped.
	CheckOff AddressCheck = "off"
)

// MaxPath is the greatest length of a path with its brackets: RFC 5321, 4.5.3.1.3.
const MaxPath = 256

// Path is the address of a MAIL or RCPT command.
type Path struct {
	Address string // without brackets; empty for the null sender
	Domain  string // what is behind the last @ outside quotes; empty if there is none
	UTF8    bool   // has bytes outside ASCII: may only be passed on with SMTPUTF8
}

// String returns the path as it goes over the wire, in angle brackets.
func (p Path) String() string { return "<" + p.Address + ">" }

// Local returns what the local part means, without the quotes that it may be written in.
func (p Path) Local() string {
	local := p.Address
	if p.Domain != "" {
		local = local[:len(local)-len(p.Domain)-1]
	}
	if !strings.HasPrefix(local, `"`) {
		return local
	}
	var b strings.Builder
	for i := 1; i < len(local)-1; i++ {
		if local[i] == '\\' {
			i++
		}
		b.WriteByte(local[i])
	}
	return b.String()
}

// Null reports whether it is the null sender <>.
func (p Path) Null() bool { return p.Address == "" }

var (
	errBrackets    = errors.New("address is not in angle brackets")
	errUnclosed    = errors.New("angle bracket or quote is not closed")
	errSourceRoute = errors.New("source routes are not accepted")
	errPathLength  = errors.New("address is too long")
)

// ParsePath reads a path at the beginning of s and gives what follows it, without leading spaces.
// The null path is returned as such; whether it may stand there is the caller's affair.
func ParsePath(s string, check AddressCheck) (p Path, rest string, err error) {
	inner, rest, err := cutPath(s, check)
	if err != nil {
		return Path{}, "", err
	}
	if strings.HasPrefix(inner, "@") {
		if check != CheckOff {
			return Path{}, "", errSourceRoute
		}
		var routed bool
		if _, inner, routed = strings.Cut(inner, ":"); !routed || inner == "" {
			return Path{}, "", errSourceRoute
		}
	}
	p, err = ParseAddress(inner, check)
	return p, rest, err
}

// cutPath finds the end of the path: the > that is not within quotes.
func cutPath(s string, check AddressCheck) (inner, rest string, err error) {
	if !strings.HasPrefix(s, "<") {
		if check != CheckOff || s == "" {
			return "", "", errBrackets
		}
		word, rest, _ := strings.Cut(s, " ")
		return word, strings.TrimLeft(rest, " "), nil
	}
	quoted := false
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\' && quoted:
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == '>' && !quoted:
			rest := s[i+1:]
			if rest != "" && rest[0] != ' ' {
				return "", "", errors.New("no space behind the address")
			}
			return s[1:i], strings.TrimLeft(rest, " "), nil
		}
	}
	return "", "", errUnclosed
}

// ParseAddress checks an address without brackets.
func ParseAddress(s string, check AddressCheck) (Path, error) {
	if len(s)+2 > MaxPath {
		return Path{}, errPathLength
	}
	if s == "" {
		return Path{}, nil
	}
	local, domain, err := splitAddress(s, check)
	if err != nil {
		return Path{}, err
	}
	p := Path{Address: s, Domain: domain}
	if p.UTF8 = !isASCII(s); p.UTF8 && !utf8.ValidString(s) {
		return Path{}, errors.New("address is not valid UTF-8")
	}
	switch check {
	case CheckStrict:
		if strings.ContainsAny(s, "%!:,") || strings.Count(s, "@") != 1 || domain == "" || local == "" {
			return Path{}, errors.New("address must have one @ and none of % ! : and comma")
		}
	case CheckRFC:
		if domain == "" && !strings.EqualFold(s, "postmaster") {
			return Path{}, errors.New("address has no domain")
		}
		if domain != "" {
			err = checkDomain(domain)
		}
	}
	return p, err
}

// WordAddress takes as an address whatever can stand as one within the angle brackets of a command, for those who
// leave it to the server what an address is: no angle brackets, no control bytes, and spaces only in quotes. The
// empty word is the null path.
func WordAddress(s string) (Path, error) {
	if len(s)+2 > MaxPath {
		return Path{}, errPathLength
	}
	p := Path{Address: s, UTF8: !isASCII(s)}
	if p.UTF8 && !utf8.ValidString(s) {
		return Path{}, errors.New("address is not valid UTF-8")
	}
	quoted, at := false, -1
	for i := 0; i < len(s); i++ {
		switch b := s[i]; {
		case b < ' ' || b == 0x7f:
			return Path{}, errors.New("control byte in an address")
		case b == '\\' && quoted:
			if i++; i == len(s) || s[i] < ' ' || s[i] == 0x7f || s[i] == '<' || s[i] == '>' {
				return Path{}, errUnclosed
			}
		case b == '"':
			quoted = !quoted
		case b == '<' || b == '>' || b == ' ' && !quoted:
			return Path{}, fmt.Errorf("byte %q is not allowed in an address", b)
		case b == '@' && !quoted:
			at = i
		}
	}
	if quoted {
		return Path{}, errUnclosed
	}
	if at >= 0 {
		p.Domain = s[at+1:]
	}
	return p, nil
}

// splitAddress reads the local part, a dot-string or a quoted string, and the domain.
func splitAddress(s string, check AddressCheck) (local, domain string, err error) {
	i := 0
	if s[0] == '"' {
		for i = 1; ; i++ {
			if i >= len(s) {
				return "", "", errUnclosed
			}
			if s[i] == '\\' {
				i++
			} else if s[i] == '"' {
				i++
				break
			}
		}
	} else {
		for i < len(s) && isAtomByte(s[i]) {
			i++
		}
		dots := i > 0 && (s[0] == '.' || s[i-1] == '.' || strings.Contains(s[:i], ".."))
		if i == 0 || dots && check != CheckOff { // such mailboxes exist by the million
			return "", "", errors.New("local part is empty or has a misplaced dot")
		}
	}
	if i == len(s) {
		return s, "", nil
	}
	if i > len(s) || s[i] != '@' {
		return "", "", fmt.Errorf("byte %q is not allowed in an address", s[min(i, len(s)-1)])
	}
	domain = s[i+1:]
	if domain == "" || strings.ContainsAny(domain, "@<>()\\\", ;") {
		return "", "", errors.New("domain is empty or malformed")
	}
	return s[:i], domain, nil
}

// isAtomByte is atext of RFC 5322 with the dot, and everything beyond ASCII (RFC 6531).
func isAtomByte(b byte) bool {
	return isLetter(b) || isDigit(b) || b >= 0x80 || strings.IndexByte("!#$%&'*+-/=?^_`{|}~.", b) >= 0
}

// checkDomain takes host names (with underscores, which exist) and address literals.
func checkDomain(domain string) error {
	if strings.HasPrefix(domain, "[") {
		return checkLiteral(domain)
	}
	if len(domain) > 255 {
		return errPathLength
	}
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return errors.New("domain has a malformed label")
		}
		for i := range len(label) {
			if b := label[i]; !isLetter(b) && !isDigit(b) && b != '-' && b != '_' && b < 0x80 {
				return fmt.Errorf("byte %q is not allowed in a domain", b)
			}
		}
	}
	return nil
}

// checkLiteral takes [192.0.2.1] and [IPv6:2001:db8::1]: RFC 5321, 4.1.3.
func checkLiteral(s string) error {
	if _, ok := ParseLiteral(s); !ok {
		return fmt.Errorf("address literal %q is malformed", s)
	}
	return nil
}

// ParseLiteral reads an address literal such as [192.0.2.1] or [IPv6:2001:db8::1].
func ParseLiteral(s string) (addr netip.Addr, ok bool) {
	inner, opened := strings.CutPrefix(s, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	text := inner
	if len(inner) > 5 && strings.EqualFold(inner[:5], "IPv6:") {
		text = inner[5:]
	}
	addr, err := netip.ParseAddr(text)
	return addr, opened && closed && err == nil && addr.Zone() == "" && addr.Is4() == (text == inner)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
