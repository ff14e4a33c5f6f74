package mxproto

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"postern/internal/percent"
)

// Action is what a worker wants done. Its number is the one of the protocol.
type Action int

// The five actions.
const (
	TempFail Action = -1 // refuse for now
	Reject   Action = 0  // refuse for good
	Continue Action = 1  // go on and ask again at the next stage
	Accept   Action = 2  // take it and ask no more
	Discard  Action = 3  // say yes and throw the message away
)

var actionNames = map[Action]string{TempFail: "tempfail", Reject: "reject", Continue: "continue", Accept: "accept", Discard: "discard"}

func (a Action) String() string {
	if name, ok := actionNames[a]; ok {
		return name
	}
	return "action " + strconv.Itoa(int(a))
}

// Verdict is a worker's answer to relayok, helook, senderok or recipok.
type Verdict struct {
	Action Action
	// Text is the reply for the client, decoded; lines are separated by LF and
	// hold no other control character. It is never empty for TempFail and Reject.
	Text string
	// Code and DSN fit each other and the action: 4xx and 4.x.x for TempFail, 5xx
	// and 5.x.x for Reject, 2xx and 2.x.x for the rest.
	Code, DSN string
	// Delay is how long the worker wants the reply held back. It is the worker's
	// wish, without an upper bound.
	Delay time.Duration
}

// AnswerError is an answer that is not a verdict: an error text of the
// multiplexor or a worker, or something that is no answer at all. Whatever it is,
// the request counts as temporarily failed.
type AnswerError struct {
	Reply string // as it came
	Why   string
}

func (e *AnswerError) Error() string {
	return fmt.Sprintf("answer of the multiplexor %.200q: %s", e.Reply, e.Why)
}

// ParseVerdict reads the whole reply to relayok, helook, senderok or recipok. It
// takes what the mimedefang milter takes: "ok N" and LF, or "ok N" with more
// words, with CR and LF anywhere. All else is an *AnswerError. Unlike the milter
// it does not guess at a malformed percent escape: that is an error, too.
//
// A code or DSN that is missing, malformed or of another class than the action is
// replaced, so that a worker cannot turn a refusal into an acceptance.
func ParseVerdict(reply string) (Verdict, error) {
	line := strings.Map(func(r rune) rune {
		if r == '\r' || r == '\n' {
			return -1
		}
		return r
	}, toValid(reply))
	words := splitWhite(line)
	if words[0] != "ok" {
		return Verdict{}, refusal(reply)
	}
	v, ok := Verdict{}, false
	if len(words) > 1 {
		v.Action, ok = parseAction(words[1])
	}
	switch {
	case !ok:
		return Verdict{}, &AnswerError{reply, "no number from -1 to 3 after ok"}
	case len(words) == 2 && reply != line+"\n":
		return Verdict{}, &AnswerError{reply, "not ended by one LF"}
	case len(words) == 3 && words[2] == "":
		return Verdict{}, &AnswerError{reply, "space and nothing after it"}
	}
	for len(words) < 6 {
		words = append(words, "")
	}
	for i, w := range words[2:6] {
		decoded, err := percent.DecodeStrict(w)
		if err != nil {
			return Verdict{}, &AnswerError{reply, err.Error()}
		}
		words[i+2] = decoded
	}
	v.Text, v.Code, v.DSN = clean(words[2]), words[3], words[4]
	if secs, err := strconv.ParseUint(words[5], 10, 31); err == nil {
		v.Delay = time.Duration(secs) * time.Second
	}
	v.fit()
	return v, nil
}

// ParseScan reads the reply to scan. Only "ok" and LF is success: then RESULTS
// can be read.
func ParseScan(reply string) error {
	if reply == "ok\n" {
		return nil
	}
	return refusal(reply)
}

// ParseFree reads the reply to free: how many workers could take a request now.
func ParseFree(reply string) (int, error) {
	n, err := strconv.Atoi(strings.TrimSuffix(reply, "\n"))
	if err != nil || n < 0 {
		return 0, refusal(reply)
	}
	return n, nil
}

func refusal(reply string) error {
	switch {
	case reply == "":
		return &AnswerError{reply, "empty"}
	case IsError(reply):
		return &AnswerError{reply, "an error text"}
	}
	return &AnswerError{reply, "not understood"}
}

// IsError reports whether a reply is an error text: of the multiplexor ("error: …",
// "ERR …") or of a worker.
func IsError(reply string) bool {
	return strings.HasPrefix(reply, "error:") || strings.HasPrefix(reply, "ERR ") || strings.HasPrefix(reply, "ERROR ")
}

func parseAction(s string) (Action, bool) {
	switch s {
	case "-1", "0", "1", "2", "3":
		n, _ := strconv.Atoi(s) // one of five texts: cannot fail
		return Action(n), true
	}
	return 0, false
}

// splitWhite splits at each single white-space character, as the milter does.
func splitWhite(s string) []string {
	return strings.Split(strings.Map(func(r rune) rune {
		if r == '\t' || r == '\v' || r == '\f' {
			return ' '
		}
		return r
	}, s), " ")
}

// clean makes control characters spaces, but for the LF that separates lines.
func clean(text string) string {
	text = strings.TrimRight(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	b := []byte(text)
	for i, c := range b {
		if (c < ' ' && c != '\n') || c == 0x7f {
			b[i] = ' '
		}
	}
	return string(b)
}

// toValid keeps strings.Map from replacing bytes that are no UTF-8: an answer
// with such bytes is not plain percent-encoded text, and they become '?'.
func toValid(s string) string { return strings.ToValidUTF8(s, "?") }

// fit puts in what is missing and replaces codes that do not fit the action.
func (v *Verdict) fit() {
	class, code, dsn := byte('2'), "250", "2.1.0"
	switch v.Action {
	case TempFail:
		class, code, dsn = '4', "451", "4.3.0"
	case Reject:
		class, code, dsn = '5', "554", "5.7.1"
	}
	badCode := v.Code != "" && !fitsCode(v.Code, class)
	badDSN := v.DSN != "" && !fitsDSN(v.DSN, class)
	switch {
	case badCode || badDSN:
		// One of the two contradicts the verdict: neither can be believed.
		v.Code, v.DSN = code, dsn
		if v.Action == TempFail {
			v.DSN = "4.7.1"
		}
	default:
		v.Code, v.DSN = or(v.Code, code), or(v.DSN, dsn)
	}
	if v.Text == "" && v.Action == TempFail {
		v.Text = "Please try again later"
	}
	if v.Text == "" && v.Action == Reject {
		v.Text = "Forbidden for policy reasons"
	}
}

func fitsCode(code string, class byte) bool {
	return len(code) == 3 && code[0] == class && digits(code[1:])
}

// fitsDSN reports whether s is CLASS.n.n with one to three digits each.
func fitsDSN(s string, class byte) bool {
	p := strings.Split(s, ".")
	return len(p) == 3 && p[0] == string(class) && len(p[1]) <= 3 && digits(p[1]) && len(p[2]) <= 3 && digits(p[2])
}

func digits(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
