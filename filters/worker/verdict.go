package worker

import (
	"strconv"
	"strings"
	"time"

	"postern/internal/percent"
)

// Action is what is to happen to a connection, a sender or a recipient. The numbers are those of the protocol; the
// zero Action refuses, so that a forgotten one does not let anything in.
type Action int

// The actions.
const (
	TempFail Action = -1 // refuse for now
	Reject   Action = 0  // refuse for good
	Continue Action = 1  // go on
	Accept   Action = 2  // go on and ask no more about this message (from Helo: this connection)
	Discard  Action = 3  // accept, and throw the whole message away
)

// Verdict is the answer to one of the four questions. Empty fields get values that fit the Action.
type Verdict struct {
	Action Action
	Text   string        // for the client; may have several lines
	Code   string        // three digits, "4.." with TempFail, "5.." with Reject
	DSN    string        // enhanced status code of the same class
	Delay  time.Duration // wait so long before the answer is given; whole seconds
}

// defaults are code, status and, for a Filter without the callback, text.
func (a Action) defaults() (code, dsn string) {
	switch a {
	case TempFail:
		return "451", "4.3.0"
	case Continue, Accept, Discard:
		return "250", "2.1.0"
	}
	return "554", "5.7.1"
}

// undefined is the answer of a Filter that has no callback for a question.
var undefined = Verdict{Action: Continue, Text: "ok"}

// internalError is the answer when a callback could not be asked.
var internalError = Verdict{Action: TempFail, Text: "filter failed, please try again later"}

// maxText keeps an encoded text, with all that stands around it, within an answer.
const maxText = maxAnswer - 64

// String returns the answer line without its LF.
func (v Verdict) String() string {
	if v.Action < TempFail || v.Action > Discard {
		v.Action = Reject
	}
	code, dsn := v.Action.defaults()
	if len(v.Code) == 3 && v.Code[0] == code[0] && digits(v.Code) {
		code = v.Code
	}
	if validDSN(v.DSN, dsn[0]) {
		dsn = v.DSN
	}
	text := percent.Encode(v.Text)
	if text == "" {
		text = "?"
	}
	if len(text) > maxText {
		text = text[:maxText]
		if i := strings.LastIndexByte(text, '%'); i > len(text)-3 {
			text = text[:i]
		}
	}
	seconds := max(0, int64(v.Delay/time.Second))
	return strings.Join([]string{"ok", strconv.Itoa(int(v.Action)), text, code, dsn, strconv.FormatInt(seconds, 10)}, " ")
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// validDSN reports whether s is a status code (RFC 3463, 2) of the given class.
func validDSN(s string, class byte) bool {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || parts[0] != string(class) {
		return false
	}
	for _, p := range parts[1:] {
		if !digits(p) || len(p) > 3 {
			return false
		}
	}
	return true
}
