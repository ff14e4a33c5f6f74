// Package watch keeps what a board shows of its daemons: it listens to their events, reads their metrics and
// asks multiplexors for their status, each on its own, again and again. Whatever a daemon or a stranger who
// talks to it says, there is a bound on what is kept of it.
package watch

import (
	"fmt"
	"strings"

	"postern/internal/sockspec"
)

// Kinds of daemons, which are called after their programs.
const (
	Proxy       = "smtp-proxy"
	Multiplexor = "multiplexor"
	POP3        = "pop3-stamp"
)

// A Target is a daemon to watch, and the sockets where it can be watched. At least one of them is given.
type Target struct {
	Gateway string // the machine, in the administrator's words
	Kind    string
	Notify  sockspec.Spec
	Metrics sockspec.Spec
	Status  sockspec.Spec // of a multiplexor
}

// maxName bounds the name of a gateway, in bytes.
const maxName = 64

// ParseTarget reads "GATEWAY KIND notify=SPEC metrics=SPEC status=SPEC".
func ParseTarget(text string) (Target, error) {
	words := strings.Fields(text)
	if len(words) < 3 {
		return Target{}, fmt.Errorf("%q is not GATEWAY KIND notify=SPEC metrics=SPEC status=SPEC, with at least one socket", text)
	}
	t := Target{Gateway: words[0], Kind: words[1]}
	if len(t.Gateway) > maxName || strings.Trim(t.Gateway, nameChars) != "" || strings.Trim(t.Gateway, ".") == "" {
		return Target{}, fmt.Errorf("gateway %q: a name has letters, digits, dots, hyphens and underscores, %d at most", t.Gateway, maxName)
	}
	if t.Kind != Proxy && t.Kind != Multiplexor && t.Kind != POP3 {
		return Target{}, fmt.Errorf("kind %q: is none of %s, %s, %s", t.Kind, Proxy, Multiplexor, POP3)
	}
	sockets := map[string]*sockspec.Spec{"notify": &t.Notify, "metrics": &t.Metrics}
	if t.Kind == Multiplexor {
		sockets["status"] = &t.Status
	}
	for _, word := range words[2:] {
		key, value, _ := strings.Cut(word, "=")
		socket := sockets[key]
		if socket == nil {
			return Target{}, fmt.Errorf("%q: a %s has no such socket", word, t.Kind)
		}
		if *socket != (sockspec.Spec{}) {
			return Target{}, fmt.Errorf("%q: %s is given twice", word, key)
		}
		spec, err := sockspec.Parse(value)
		if err != nil {
			return Target{}, err
		}
		*socket = spec
	}
	return t, nil
}

const nameChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_"

// ParseTargets reads one for each text. No two have the same gateway and kind.
func ParseTargets(texts []string) ([]Target, error) {
	var all []Target
	taken := make(map[[2]string]bool)
	for _, text := range texts {
		t, err := ParseTarget(text)
		if err != nil {
			return nil, err
		}
		key := [2]string{t.Gateway, t.Kind}
		if taken[key] {
			return nil, fmt.Errorf("%s %s: is given twice; a second one needs another name", t.Gateway, t.Kind)
		}
		taken[key] = true
		all = append(all, t)
	}
	return all, nil
}
