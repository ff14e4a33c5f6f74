package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"postern/internal/smtp"
	"postern/internal/workdir"
)

// envelope is the envelope as the filter changed it.
type envelope struct {
	from    smtp.Path
	params  []smtp.Param
	rcpts   []recipient
	same    bool // as the server knows it
	changed bool // the sender is the filter's
}

// changeEnvelope carries out R, S and f on a copy of the envelope. It gives the wishes that mean nothing: to delete
// what is no recipient, or to add nobody. Any other address that is none is the filter's fault.
func changeEnvelope(tx *transaction, changes []workdir.Change) (env *envelope, ignored []string, err error) {
	env = &envelope{from: tx.from, params: tx.params, rcpts: slices.Clone(tx.accepted), same: true}
	for _, c := range changes {
		if c.Letter != 'R' && c.Letter != 'S' && c.Letter != 'f' {
			continue
		}
		path, more, err := filterAddress(c.Value)
		switch {
		case c.Letter == 'S' && (err != nil || !env.has(path)):
			ignored = append(ignored, fmt.Sprintf("%.100q to be deleted is no recipient", c.Value))
			continue
		case err != nil:
			return nil, ignored, fmt.Errorf("filter's address %.100q: %w", c.Value, err)
		case c.Letter == 'R' && path.Null():
			ignored = append(ignored, fmt.Sprintf("%.100q to be added is nobody", c.Value))
			continue
		case more:
			ignored = append(ignored, fmt.Sprintf("%.100q has more than one address: the first one counts", c.Value))
		}
		env.change(c.Letter, path)
	}
	env.announceUTF8()
	return env, ignored, nil
}

func (env *envelope) has(path smtp.Path) bool { return slices.ContainsFunc(env.rcpts, matches(path)) }

// matches finds a recipient, whatever the case of its address.
func matches(path smtp.Path) func(recipient) bool {
	return func(r recipient) bool { return strings.EqualFold(r.path.Address, path.Address) }
}

func (env *envelope) change(letter byte, path smtp.Path) {
	switch letter {
	case 'f':
		if path.Address != env.from.Address {
			env.from, env.same, env.changed = path, false, true
		}
	case 'R':
		if !env.has(path) {
			env.rcpts, env.same = append(env.rcpts, recipient{path: path, added: true}), false
		}
	case 'S':
		n := len(env.rcpts)
		env.rcpts = slices.DeleteFunc(env.rcpts, matches(path))
		env.same = env.same && n == len(env.rcpts)
	}
}

// needsUTF8 reports whether an address can only go to a server with SMTPUTF8.
func (env *envelope) needsUTF8() bool {
	return env.from.UTF8 || slices.ContainsFunc(env.rcpts, func(r recipient) bool { return r.path.UTF8 })
}

// announceUTF8 adds SMTPUTF8 to MAIL if the filter named an address that needs it.
func (env *envelope) announceUTF8() {
	known := slices.ContainsFunc(env.params, func(p smtp.Param) bool { return p.Key == smtp.ParamUTF8 })
	if env.needsUTF8() && !known {
		env.params = append(slices.Clip(env.params), smtp.Param{Key: smtp.ParamUTF8, Text: smtp.ParamUTF8})
		env.same = false
	}
}

// filterAddress reads an address as a filter may write it, and as Postfix takes it from a milter: as in a header
// field, with a name, comments, or others behind it (more), of which the first one counts. What an address may be
// is for the server to say, as long as it is one word that can go into a command.
func filterAddress(s string) (path smtp.Path, more bool, err error) {
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

// firstAddress cuts the first address out of a list as it may stand in a header field: RFC 5322, 3.4. What is in angle
// brackets is the address; without them it is what is left without comments.
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
