package test

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// quoted returns the first group of each match, in order of the alphabet and each once.
func quoted(expression, text string) []string {
	found := map[string]bool{}
	for _, m := range regexp.MustCompile(expression).FindAllStringSubmatch(text, -1) {
		found[m[1]] = true
	}
	return slices.Sorted(maps.Keys(found))
}

// between returns what is between two texts, of which the first must be there.
func between(t *testing.T, text, from, to string) string {
	t.Helper()
	_, text, ok := strings.Cut(text, from)
	if !ok {
		t.Fatalf("no %q there", from)
	}
	text, _, _ = strings.Cut(text, to)
	return text
}

// TestConventionGates: each name of a gate is counted (else it is dropped without a word), explained by smtp-proxy(8), and
// by the board.
func TestConventionGates(t *testing.T) {
	t.Parallel()
	here, below := readTree(t, "smtp-proxy/gates.go"), readTree(t, "smtp-proxy/gate/gate.go")
	const constant = `(?m)^\t((?:gate|Name)[A-Z]\w*) += "[a-z-]+"$`
	var declared []string
	for _, name := range append(quoted(constant, here), quoted(constant, below)...) {
		declared = append(declared, strings.TrimPrefix(strings.TrimPrefix(name, "Name"), "gate"))
	}
	counted := quoted(`\bgate(?:\.Name)?([A-Z]\w*)`, between(t, here, "var allGates = ", "\n}"))
	if slices.Sort(declared); len(declared) < 20 || !slices.Equal(declared, counted) {
		t.Errorf("names of gates\n%v, and those in allGates\n%v", declared, counted)
	}
	const value = `(?m)^\t(?:gate|Name)[A-Z]\w* += "([a-z-]+)"$`
	names := quoted(value, here+below)
	if meant := quoted(`(?m)^\t"([a-z-]+)":`, between(t, readTree(t, "board/postern-board/meanings.go"), "var meanings = ", "\n}")); !slices.Equal(names, meant) {
		t.Errorf("names of gates\n%v, and those the board has a meaning for\n%v", names, meant)
	}
	page := between(t, readTree(t, "man/smtp-proxy.8"), "The name is that in the log and in the metrics.", "\n.El")
	var explained []string
	for _, item := range quoted(`(?m)^\.It Cm (.*)$`, page) {
		explained = append(explained, strings.Split(item, " , ")...)
	}
	if slices.Sort(explained); !slices.Equal(names, explained) {
		t.Errorf("names of gates\n%v, and those that smtp-proxy(8) explains\n%v", names, explained)
	}
}

// TestConventionEventsAreCarried: a daemon's hub drops events of letters that it was not made for. Each letter that a daemon
// names is among them.
func TestConventionEventsAreCarried(t *testing.T) {
	t.Parallel()
	letters := map[string]string{}
	const letter = `(?m)^\t(Letter\w+) += '([A-Z])'`
	for _, m := range regexp.MustCompile(letter).FindAllStringSubmatch(readTree(t, "internal/notify/letters.go"), -1) {
		letters[m[1]] = m[2]
	}
	texts := map[string]string{} // of each daemon
	for _, file := range sources(t) {
		if daemon, _, _ := strings.Cut(file.pkg, "/"); !file.test {
			texts[daemon] += readTree(t, file.name)
		}
	}
	for _, daemon := range []string{"smtp-proxy", "pop3-stamp", "multiplexor"} {
		carried := strings.Join(quoted(`(?:Access\.Options\(|letters := )"([A-Z]+)"`, texts[daemon]), "")
		if daemon == "multiplexor" {
			carried += letters["LetterWorking"] + letters["LetterFault"] // which MIMEDefang's has not
		}
		if len(carried) < 3 {
			t.Errorf("%s makes no hub", daemon)
		}
		for _, name := range quoted(`\bnotify\.(Letter\w+)`, texts[daemon]) {
			if !strings.Contains(carried, letters[name]) {
				t.Errorf("%s names notify.%s (%s), and its hub carries %s", daemon, name, letters[name], carried)
			}
		}
	}
}
