package filter

import (
	"fmt"
	"strings"

	"postern/internal/smtp"
)

// Policy says what is done when the filter does not work. The zero Policy is Tempfail.
type Policy int

// The policies that there are.
const (
	Tempfail Policy = iota // refuse for now
	Accept                 // go on as if it had not been asked
	Refuse                 // refuse for good
)

var policies = map[string]Policy{"tempfail": Tempfail, "accept": Accept, "reject": Refuse}

// refusal returns the reply when there is no verdict; nil lets pass.
func (p Policy) refusal(session string) *smtp.Reply {
	switch p {
	case Accept:
		return nil
	case Refuse:
		return refusal("554", "5.3.0", "Message cannot be checked ("+session+")")
	}
	return notNow(session)
}

// notNow is the reply to a message that a filter cannot judge at present.
func notNow(session string) *smtp.Reply {
	return refusal("451", "4.3.0", "Message cannot be checked now, try again later ("+session+")")
}

// OnFailure has the policy of each question.
type OnFailure struct {
	Relayok, Helook, Senderok, Recipok, Scan Policy
}

// ParseOnFailure reads a policy for all questions, or several for one each, as in "scan=tempfail helook=accept"; of
// those that are not named it is Tempfail.
func ParseOnFailure(text string) (OnFailure, error) {
	var f OnFailure
	stages := map[string]*Policy{"relayok": &f.Relayok, "helook": &f.Helook, "senderok": &f.Senderok, "recipok": &f.Recipok, "scan": &f.Scan}
	if p, ok := policies[text]; ok {
		return OnFailure{p, p, p, p, p}, nil
	}
	words := strings.Fields(text)
	if len(words) == 0 {
		return f, fmt.Errorf("%q is no policy", text)
	}
	for _, word := range words {
		name, value, _ := strings.Cut(word, "=")
		policy, known := policies[value]
		switch stage := stages[name]; {
		case stage == nil:
			return f, fmt.Errorf("%q is neither a policy nor one of a question, as in scan=tempfail", word)
		case !known:
			return f, fmt.Errorf("%q is none of tempfail, accept and reject", value)
		default:
			*stage = policy
			delete(stages, name)
		}
	}
	return f, nil
}
