package smtp

import (
	"errors"
	"strings"
)

// Verbs, as [ParseCommand] gives them.
const (
	Helo     = "HELO"
	Ehlo     = "EHLO"
	Mail     = "MAIL"
	Rcpt     = "RCPT"
	Data     = "DATA"
	Bdat     = "BDAT"
	Rset     = "RSET"
	Noop     = "NOOP"
	Quit     = "QUIT"
	Help     = "HELP"
	Vrfy     = "VRFY"
	Expn     = "EXPN"
	Auth     = "AUTH"
	StartTLS = "STARTTLS"
	XClient  = "XCLIENT"
	XForward = "XFORWARD"
)

// Limits of a command line in bytes, its CR LF included.
const (
	MaxCommand = 512                  // RFC 5321, 4.5.3.1.4
	MaxMail    = MaxCommand + 677     // and SIZE 26, BODY 17, AUTH 500, RET and ENVID 124, SMTPUTF8 10
	MaxRcpt    = MaxCommand + 500 + 4 // and NOTIFY and ORCPT, RFC 3461, 4.1
	MaxAuth    = 12288                // RFC 4954, 4
)

// Errors of [ParseCommand].
var (
	ErrControlByte = errors.New("control byte in command")
	ErrNoVerb      = errors.New("no verb in command")
)

// Command is one command line: the verb in capitals, and all behind it without the spaces around.
type Command struct {
	Verb string
	Arg  string
}

// ParseCommand reads a command line without its end. A tab outside quotes is a space, as to Postfix. Other bytes below 32
// and DEL are refused, so that neither a NUL nor a bare CR is ever part of a command; verbs have letters, digits and hyphens and
// begin with a letter (X-... verbs are told apart by the caller).
func ParseCommand(line []byte) (Command, error) {
	quoted := false
	for i, b := range line {
		switch {
		case b == '"' && !(quoted && line[i-1] == '\\'):
			quoted = !quoted
		case b == '\t' && !quoted:
			line[i] = ' '
		case b < ' ' || b == 0x7f:
			return Command{}, ErrControlByte
		}
	}
	end := 0
	for end < len(line) && line[end] != ' ' {
		end++
	}
	verb := line[:end]
	if !isVerb(verb) {
		return Command{}, ErrNoVerb
	}
	return Command{Verb: canonicalVerb(verb), Arg: strings.Trim(string(line[end:]), " ")}, nil
}

func isVerb(word []byte) bool {
	if len(word) == 0 || len(word) > 32 || !isLetter(word[0]) {
		return false
	}
	for _, b := range word {
		if !isLetter(b) && !isDigit(b) && b != '-' {
			return false
		}
	}
	return true
}

// canonicalVerb spares the allocation for the verbs that make nearly all commands.
func canonicalVerb(word []byte) string {
	switch string(word) {
	case Mail:
		return Mail
	case Rcpt:
		return Rcpt
	case Data:
		return Data
	case Ehlo:
		return Ehlo
	case Quit:
		return Quit
	case Rset:
		return Rset
	}
	return strings.ToUpper(string(word))
}

// LineLimit returns the greatest length of a command line of that verb, CR LF included.
func LineLimit(verb string) int {
	switch verb {
	case Mail:
		return MaxMail
	case Rcpt:
		return MaxRcpt
	case Auth:
		return MaxAuth
	default:
		return MaxCommand
	}
}

// CutKeyword takes "FROM:" or "TO:" off the argument of MAIL or RCPT, in any case. Spaces behind the
// colon are not in the grammar, but every server takes them.
func CutKeyword(arg, keyword string) (rest string, ok bool) {
	if len(arg) < len(keyword) || !strings.EqualFold(arg[:len(keyword)], keyword) {
		return "", false
	}
	return strings.TrimLeft(arg[len(keyword):], " "), true
}

func isLetter(b byte) bool { return 'a' <= b|0x20 && b|0x20 <= 'z' }
func isDigit(b byte) bool  { return '0' <= b && b <= '9' }

// IsHelo reports whether s may be the argument of HELO or EHLO. The grammar of RFC 5321, 4.1.1.1 is not
// insisted on, as no server does; but it is one word without brackets and quotes that would mean
// something elsewhere.
func IsHelo(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f || strings.IndexByte("<>()\"\\,;", s[i]) >= 0 {
			return false
		}
	}
	return s != "" && len(s) <= 255
}

// IsHostName reports whether s is a host name, which may have underscores, or one of a single label.
func IsHostName(s string) bool { return IsGreetingName(s) && s[0] != '[' }

// IsGreetingName reports whether s is a host name or address literal that we can call ourselves or
// another.
func IsGreetingName(s string) bool {
	return s != "" && isASCII(s) && checkDomain(s) == nil
}
