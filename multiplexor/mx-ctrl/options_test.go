package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestProgramName(t *testing.T) {
	for argv0, want := range map[string]string{
		"mx-ctrl": ownName, "/usr/sbin/mx-ctrl": ownName, "x": ownName, "": ownName,
		"md-mx-ctrl": originalName, "/usr/bin/md-mx-ctrl": originalName, "./md-mx-ctrl": originalName,
		"my-md-mx-ctrl": ownName,
	} {
		if got, args := programName([]string{argv0, "a"}); got != want || !slices.Equal(args, []string{"a"}) {
			t.Errorf("programName(%q) = %q, %q", argv0, got, args)
		}
	}
	if got, args := programName(nil); got != ownName || args != nil {
		t.Errorf("programName(nil) = %q, %q", got, args)
	}
}

func TestParse(t *testing.T) {
	const def = "/run/postern/multiplexor.sock"
	type want struct {
		socket      string
		words       []string
		interactive bool
		top         bool
		timeout     time.Duration
		interval    time.Duration
	}
	for _, tt := range []struct {
		args string
		want want
	}{
		{"status", want{socket: def, words: []string{"status"}}},
		{"-s /x status", want{socket: "/x", words: []string{"status"}}},
		{"-s/x status", want{socket: "/x", words: []string{"status"}}},
		{"--socket /x status", want{socket: "/x", words: []string{"status"}}},
		{"--socket=inet:99 status", want{socket: "inet:99", words: []string{"status"}}},
		{"-is/x", want{socket: "/x", interactive: true}},
		{"-is /x status", want{socket: "/x", interactive: true, words: []string{"status"}}},
		{"-i -i -s /x -s /y", want{socket: "/y", interactive: true}},
		// What follows the command belongs to it.
		{"foo -s /x -i --timeout -h -- -z", want{socket: def, words: []string{"foo", "-s", "/x", "-i", "--timeout", "-h", "--", "-z"}}},
		{"-s /x foo -s /y", want{socket: "/x", words: []string{"foo", "-s", "/y"}}},
		{"-- -x -- y", want{socket: def, words: []string{"-x", "--", "y"}}},
		{"- -x", want{socket: def, words: []string{"-", "-x"}}},
		{"\xff\\x,y -\xfe", want{socket: def, words: []string{"\xff\\x,y", "-\xfe"}}},
		{"--timeout 2m x", want{socket: def, words: []string{"x"}, timeout: 2 * time.Minute}},
		// top takes flags on both sides.
		{"top", want{socket: def, top: true}},
		{"-- top", want{socket: def, top: true}},
		{"top -s /x --interval 1s", want{socket: "/x", top: true, interval: time.Second}},
		{"-s /x top --timeout=1s", want{socket: "/x", top: true, timeout: time.Second}},
		{"-s /x --interval 5s top -s/y", want{socket: "/y", top: true, interval: 5 * time.Second}},
		{"-i top", want{socket: def, interactive: true, words: []string{"top"}}},
		{"topp --interval 1s", want{socket: def, words: []string{"topp", "--interval", "1s"}}},
	} {
		if tt.want.interval == 0 {
			tt.want.interval = 2 * time.Second
		}
		s, err := parse(strings.Split(tt.args, " "))
		if err != nil {
			t.Errorf("%q: %v", tt.args, err)
			continue
		}
		got := want{s.Socket, s.Words, s.Interactive, s.top, s.Timeout, s.Interval}
		if got.socket != tt.want.socket || !slices.Equal(got.words, tt.want.words) || got.interactive != tt.want.interactive ||
			got.top != tt.want.top || got.timeout != tt.want.timeout || got.interval != tt.want.interval {
			t.Errorf("%q: got %+v, want %+v", tt.args, got, tt.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for args, text := range map[string]string{
		"":                                      "no command",
		"-x foo":                                "unknown flag -x",
		"--foo":                                 "unknown flag --foo",
		"-s":                                    "--socket",
		"-s bogus:1 x":                          "unknown form",
		"-s inet:0 x":                           "invalid port",
		"--timeout 5 x":                         "--timeout",
		"--timeout=-5s x":                       "negative",
		"--interval 1ms top":                    "less than 100ms",
		"top --interval=x":                      "--interval",
		"top now":                               `no argument "now"`,
		"top -- -x":                             `no argument "--"`,
		"-s " + strings.Repeat("x", 200) + " x": "at most 107",
	} {
		var list []string
		if args != "" {
			list = strings.Split(args, " ")
		}
		s, err := parse(list)
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: got %+v, %v; want an error with %q", args, s, err, text)
		}
		got := runAs(own, "", list...)
		if got.status != exitUsage || got.stdout != "" || !strings.HasPrefix(got.stderr, "mx-ctrl: error: ") {
			t.Errorf("%q: got %v", args, got)
		}
	}
}

func TestHelp(t *testing.T) {
	for _, args := range []string{"-h", "--help", "-ih", "top --help", "-s bogus:1 -h"} {
		got := runAs(own, "", strings.Split(args, " ")...)
		for _, text := range []string{"Usage: mx-ctrl [flags] command", "--socket", "--interval", "jsonload1", "top"} {
			if got.status != 0 || got.stderr != "" || !strings.Contains(got.stdout, text) {
				t.Errorf("%s: got %v, want %q in it", args, got, text)
			}
		}
	}
	var asked *helpAsked
	if _, err := parse([]string{"foo", "-h"}); errors.As(err, &asked) {
		t.Error("foo -h: help, although -h is a word of the command")
	}
}

func TestVersion(t *testing.T) {
	if got := runAs(own, "", "--version"); got.status != 0 || !strings.HasPrefix(got.stdout, "mx-ctrl (postern) ") {
		t.Errorf("got %v", got)
	}
	if s, err := parse([]string{"foo", "--version"}); err != nil || s.Version || len(s.Words) != 2 {
		t.Errorf("foo --version, where it is a word of the command: %+v, %v", s, err)
	}
}

func TestGetopt(t *testing.T) {
	const def = originalSocket
	tests := []struct {
		args string
		want originalOptions
		err  string
	}{
		{"status", originalOptions{socket: def, words: []string{"status"}}, ""},
		{"-s /x status", originalOptions{socket: "/x", words: []string{"status"}}, ""},
		{"-s/x status", originalOptions{socket: "/x", words: []string{"status"}}, ""},
		{"-s=/x status", originalOptions{socket: "=/x", words: []string{"status"}}, ""},
		{"-is/x", originalOptions{socket: "/x", interactive: true}, ""},
		{"-is /x", originalOptions{socket: "/x", interactive: true}, ""},
		{"-s -i", originalOptions{socket: "-i"}, ""},
		{"status -i -s /x", originalOptions{socket: "/x", interactive: true, words: []string{"status"}}, ""},
		{"foo -- -x", originalOptions{socket: def, words: []string{"foo", "-x"}}, ""},
		{"-- -x -- y", originalOptions{socket: def, words: []string{"-x", "--", "y"}}, ""},
		{"- foo", originalOptions{socket: def, words: []string{"-", "foo"}}, ""},
		{"-h -x", originalOptions{socket: def, help: true}, ""},
		{"-hs /x", originalOptions{socket: def, help: true}, ""},
		{"foo -ih bar", originalOptions{socket: def, interactive: true, help: true, words: []string{"foo"}}, ""},
		{"foo -x", originalOptions{socket: def, words: []string{"foo"}}, "md-mx-ctrl: invalid option -- 'x'"},
		{"--help", originalOptions{socket: def}, "md-mx-ctrl: invalid option -- '-'"},
		{"-s", originalOptions{socket: def}, "md-mx-ctrl: option requires an argument -- 's'"},
		{"-s /x -is", originalOptions{socket: "/x", interactive: true}, "md-mx-ctrl: option requires an argument -- 's'"},
		{"top --interval", originalOptions{socket: def, words: []string{"top"}}, "md-mx-ctrl: invalid option -- '-'"},
	}
	for _, tt := range tests {
		got, err := getopt(strings.Split(tt.args, " "))
		if (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
			t.Errorf("%q: error %v, want %q", tt.args, err, tt.err)
		}
		if got.socket != tt.want.socket || got.help != tt.want.help || got.interactive != tt.want.interactive || !slices.Equal(got.words, tt.want.words) {
			t.Errorf("%q: got %+v, want %+v", tt.args, got, tt.want)
		}
	}
	t.Setenv("POSIXLY_CORRECT", "")
	got, err := getopt([]string{"-i", "foo", "-x", "--"})
	if err != nil || !got.interactive || !slices.Equal(got.words, []string{"foo", "-x", "--"}) {
		t.Errorf("POSIXLY_CORRECT: got %+v, %v", got, err)
	}
}

func TestOriginalUsage(t *testing.T) {
	const usage = "Usage: md-mx-ctrl [options] command\n\nOptions:\n-h              -- Display help\n" +
		"-s path         -- Specify path to multiplexor socket\n-i              -- Read commands from stdin\n"
	f := answer(t, func(string) string { return "help%20text" })
	for _, tt := range []struct {
		args string
		want result
	}{
		{"-h", result{"", usage + "\nPossible commands:\nhelp%20text", 0}},
		{"", result{"", usage + "\nPossible commands:\nhelp%20text", 1}},
		{"-z foo", result{"", "md-mx-ctrl: invalid option -- 'z'\n" + usage + "\nPossible commands:\nhelp%20text", 1}},
	} {
		if got := runAs(original, "", append([]string{"-s", f.socket}, strings.Fields(tt.args)...)...); got != tt.want {
			t.Errorf("%q: got %v, want %v", tt.args, got, tt.want)
		}
	}
	if sent := f.requests(); !slices.Equal(sent, []string{"help\n", "help\n", "help\n"}) {
		t.Errorf("sent %q", sent)
	}
	got := runAs(original, "", "-s", f.socket+"x", "-h")
	if want := (result{"", usage + "ERROR MXCommand: connect: No such file or directory: Is multiplexor running?\n", 0}); got != want {
		t.Errorf("no socket: got %v, want %v", got, want)
	}
}

// TestAllCommands: those that shells complete are those of the help, where some are told by their beginnings.
func TestAllCommands(t *testing.T) {
	told := strings.Fields(strings.NewReplacer(",", " ", ";", " ").Replace(commandsHelp))
	var all []string
	for _, name := range allCommands() {
		if short := strings.TrimPrefix(name, "raw"); !slices.Contains(told, name) && !slices.Contains(told, short) {
			t.Errorf("%s is not in the help", name)
		}
		all = append(all, name)
	}
	for _, word := range told {
		if _, known := exact[word]; known && !slices.Contains(all, word) {
			t.Errorf("%s is in the help alone", word)
		}
	}
}
