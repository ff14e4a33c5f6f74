package smtp

import (
	"errors"
	"testing"
)

func TestParseCommand(t *testing.T) {
	for _, tt := range []struct {
		line string
		want Command
		err  error
	}{
		{"NOOP", Command{"NOOP", ""}, nil},
		{"mail FROM:<a@b> SIZE=1", Command{"MAIL", "FROM:<a@b> SIZE=1"}, nil},
		{"Ehlo  host ", Command{"EHLO", "host"}, nil},
		{"XFOO-1 bar", Command{"XFOO-1", "bar"}, nil},
		{"", Command{}, ErrNoVerb},
		{" NOOP", Command{}, ErrNoVerb},
		{"1NOOP", Command{}, ErrNoVerb},
		{"GET/HTTP", Command{}, ErrNoVerb},
		{"NOOP\rMAIL FROM:<a@b>", Command{}, ErrControlByte},
		{"MAIL FROM:<a@b>\x00", Command{}, ErrControlByte},
		{"NOOP\tx", Command{Noop, "x"}, nil},
		{"\tNOOP", Command{}, ErrNoVerb},
		{"EHLO\t a.example \t", Command{Ehlo, "a.example"}, nil},
		{"RCPT TO:<\"a\tb\"@c>", Command{}, ErrControlByte},
		{"RCPT TO:<\"a\\\"\tb\"@c>", Command{}, ErrControlByte},
		{"NOOP \x7f", Command{}, ErrControlByte},
	} {
		got, err := ParseCommand([]byte(tt.line))
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("ParseCommand(%q) = %v, %v; want %v, %v", tt.line, got, err, tt.want, tt.err)
		}
	}
}

func TestCutKeyword(t *testing.T) {
	for _, tt := range []struct {
		arg, rest string
		ok        bool
	}{
		{"FROM:<a@b>", "<a@b>", true},
		{"from: <a@b>", "<a@b>", true},
		{"FROM <a@b>", "", false},
		{"FROM", "", false},
	} {
		rest, ok := CutKeyword(tt.arg, "FROM:")
		if rest != tt.rest || ok != tt.ok {
			t.Errorf("CutKeyword(%q) = %q, %v; want %q, %v", tt.arg, rest, ok, tt.rest, tt.ok)
		}
	}
}

func TestIsHelo(t *testing.T) {
	for text, want := range map[string]bool{
		"host": true, "[192.0.2.1]": true, "[IPv6:2001:db8::1]": true, "under_score": true, "grün.example": true, "%n%s": true,
		"": false, "a b": false, "a\x1b[2J": false, "a\"b": false, "<x>": false,
	} {
		if got := IsHelo(text); got != want {
			t.Errorf("IsHelo(%q) = %v, want %v", text, got, want)
		}
	}
}
