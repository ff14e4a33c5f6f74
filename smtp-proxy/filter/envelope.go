package filter

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"postern/internal/smtp"
	"postern/internal/workdir"
)

// Envelope is the envelope of a message.
type Envelope struct {
	From   smtp.Path
	Params []smtp.Param // of MAIL, as typed
	Rcpts  []Recipient

	Changed bool // it is not what the client named any more
	NewFrom bool // the sender is the filter's
}

// Recipient is one recipient.
type Recipient struct {
	Path   smtp.Path
	Params []smtp.Param // of RCPT, as typed
	Added  bool         // by the filter: the client knows nothing of it
}

// apply carries out what is about the envelope, on a copy of its lists. It returns the wishes that mean
// nothing: to delete what is no recipient, or to add nobody. Any other address that is none is the filter's
// fault.
func (env *Envelope) apply(changes []workdir.Change) (ignored []string, err error) {
	env.Rcpts = slices.Clone(env.Rcpts)
	for _, c := range changes {
		switch c.Letter {
		case workdir.ResultAddRecipient, workdir.ResultDeleteRecipient, workdir.ResultChangeSender:
		default:
			continue
		}
		path, more, err := parseAddress(c.Value)
		switch {
		case c.Letter == workdir.ResultDeleteRecipient && (err != nil || !env.has(path)):
			ignored = append(ignored, fmt.Sprintf("%.100q to be deleted is no recipient", c.Value))
			continue
		case err != nil:
			return ignored, fmt.Errorf("filter's address %.100q: %w", c.Value, err)
		case c.Letter == workdir.ResultAddRecipient && path.Null():
			ignored = append(ignored, fmt.Sprintf("%.100q to be added is nobody", c.Value))
			continue
		case more:
			ignored = append(ignored, fmt.Sprintf("%.100q has more than one address: the first one counts", c.Value))
		}
		env.change(c.Letter, path)
	}
	env.announceUTF8()
	return ignored, nil
}

func (env *Envelope) has(path smtp.Path) bool { return slices.ContainsFunc(env.Rcpts, matches(path)) }

// matches finds a recipient, whatever the case of its address.
func matches(path smtp.Path) func(Recipient) bool {
	return func(r Recipient) bool { return strings.EqualFold(r.Path.Address, path.Address) }
}

func (env *Envelope) change(letter byte, path smtp.Path) {
	switch letter {
	case workdir.ResultChangeSender:
		if path.Address != env.From.Address {
			env.From, env.Changed, env.NewFrom = path, true, true
		}
	case workdir.ResultAddRecipient:
		if !env.has(path) {
			env.Rcpts, env.Changed = append(env.Rcpts, Recipient{Path: path, Added: true}), true
		}
	case workdir.ResultDeleteRecipient:
		n := len(env.Rcpts)
		env.Rcpts = slices.DeleteFunc(env.Rcpts, matches(path))
		env.Changed = env.Changed || n != len(env.Rcpts)
	}
}

// NeedsUTF8 reports whether an address can only go to a server with SMTPUTF8: RFC 6531.
func (env *Envelope) NeedsUTF8() bool {
	return env.From.UTF8 || slices.ContainsFunc(env.Rcpts, func(r Recipient) bool { return r.Path.UTF8 })
}

// announceUTF8 adds SMTPUTF8 to MAIL if the filter named an address that needs it.
func (env *Envelope) announceUTF8() {
	known := slices.ContainsFunc(env.Params, func(p smtp.Param) bool { return p.Key == smtp.ParamUTF8 })
	if env.NeedsUTF8() && !known {
		env.Params = append(slices.Clip(env.Params), smtp.Param{Key: smtp.ParamUTF8, Text: smtp.ParamUTF8})
		env.Changed = true
	}
}

// parseAddress reads an address as a filter may write it, and as Postfix takes it from a milter: as in a
// header field, with a name, comments, or others behind it (more), of which the first one counts. What an
// address may be is for the server to say, as long as it is one word that can go into a command.
func parseAddress(s string) (path smtp.Path, more bool, err error) {
	text, more, err := firstAddress(s)
	if err != nil {
		return smtp.Path{}, more, err
	}
	if strings.HasPrefix(text, "@") { // a source route
		if _, text, _ = strings.Cut(text, ":"); text == "" {
			return smtp.Path{}, more, errors.New("is a source route alone")
		}
	}
	path, err = smtp.WordAddress(text)
	return path, more, err
}

// firstAddress cuts the first address out of a list as it may stand in a header field: RFC 5322, 3.4. What is
// in angle brackets is the address; without them it is what is left without comments.
func firstAddress(s string) (address string, more bool, err error) {
	var plain, angle strings.Builder
	out := &plain
	quoted, depth, closed := false, 0, false
	for i := 0; i < len(s); i++ {
		b := s[i]
		switch {
		case depth > 0 || b == '(' && !quoted:
			switch b {
			case '(':
				depth++
			case ')':
				depth--
			case '\\':
				i++
			}
			continue
		case b == '\\' && quoted && i+1 < len(s):
			out.WriteByte(b)
			i++
			b = s[i]
		case b == '"':
			quoted = !quoted
		case quoted:
		case b == '<' && out == &plain && !closed:
			out = &angle
			continue
		case b == '>' && out == &angle:
			out, closed = &plain, true
			continue
		case (b == ',' || b == ';') && out == &plain:
			if more = closed || strings.TrimSpace(plain.String()) != ""; more {
				i = len(s)
			}
			continue
		case closed && b != ' ' && b != '\t':
			return "", more, errors.New("has text behind the address")
		}
		out.WriteByte(b)
	}
	switch {
	case quoted || depth > 0 || out == &angle:
		return "", more, errors.New("has a quote, comment or bracket that does not end")
	case closed:
		return strings.TrimSpace(angle.String()), more, nil
	}
	return strings.TrimSpace(plain.String()), more, nil
}
