package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postern/internal/testenv"
)

// testSettings has a setting of each kind.
type testSettings struct {
	File
	MaxLoad string        `name:"maxload" help:"Load." default:"10 0 0" placeholder:"LOADS"`
	Servers []string      `name:"server" help:"Servers." short:"s"`
	Size    Bytes         `help:"Size." default:"10M"`
	Wait    time.Duration `help:"Wait." default:"30s"`
	Drop    Switch        `help:"Drop."`
	Plain   bool          `help:"Plain."`
	Level   string        `help:"Level." enum:"low,high" default:"low"`
	Levels  []string      `help:"Levels." enum:"low,high"`
	Count   int           `help:"Count." default:"5"`
	Store   string        `help:"Store."`
	Key     string        `help:"Key." secret:""`
	Debug   bool          `help:"Debug." env:"-"`
	User    string        `help:"User." default:"${user=nobody}"`

	validated int
	invalid   error
}

func (s *testSettings) Validate() error {
	s.validated++
	return s.invalid
}

// parse runs a Parser of program "a-b" on a settings file with the given text.
func parse(t *testing.T, text string, env map[string]string, args ...string) (*testSettings, *Result, error) {
	t.Helper()
	path := writeFile(t, text)
	s := &testSettings{}
	p := &Parser{Program: "a-b", DefaultFile: path, Lookup: func(name string) (string, bool) {
		v, ok := env[name]
		return v, ok
	}}
	r, err := p.Parse(s, args)
	return s, r, err
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a-b.conf")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPrecedence(t *testing.T) {
	const file = "maxload 1\nserver f1,x\nserver f2\nsize 1k\n"
	env := map[string]string{"A_B_MAXLOAD": "2", "A_B_SERVER": "e1,x\n e2 \n", "A_B_COUNT": "7"}
	tests := []struct {
		name    string
		file    string
		env     map[string]string
		args    []string
		maxLoad string
		servers []string
		sources string // of maxload
	}{
		{"default", "", nil, nil, "10 0 0", nil, "default"},
		{"file", file, nil, nil, "1", []string{"f1,x", "f2"}, ":1"},
		{"environment over file", file, env, nil, "2", []string{"e1,x", "e2"}, "environment A_B_MAXLOAD"},
		{"empty variable is not set", file, map[string]string{"A_B_MAXLOAD": ""}, nil, "1", []string{"f1,x", "f2"}, ":1"},
		{"flag over all", file, env, []string{"--maxload", "3 3 3", "-s", "c1,x", "--server=c2"}, "3 3 3", []string{"c1,x", "c2"}, "command line"},
		{"flag over default", "", nil, []string{"--maxload="}, "", nil, "command line"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, r, err := parse(t, tt.file, tt.env, tt.args...)
			if err != nil {
				t.Fatal(err)
			}
			if s.MaxLoad != tt.maxLoad {
				t.Errorf("maxload %q, want %q", s.MaxLoad, tt.maxLoad)
			}
			if diff := cmp.Diff(tt.servers, s.Servers); diff != "" {
				t.Errorf("servers (-want +got):\n%s", diff)
			}
			if got := r.Source("maxload"); !strings.HasSuffix(got, tt.sources) {
				t.Errorf("source of maxload %q, want %q", got, tt.sources)
			}
			if s.validated != 1 {
				t.Errorf("Validate was called %d times", s.validated)
			}
		})
	}
}

func TestValues(t *testing.T) {
	s, _, err := parse(t, strings.Join([]string{
		"  # a comment",
		"",
		"maxload \t 1 2 3  ",
		"drop",
		"plain on",
		"wait 90",
		"size 2g\r",
		"level high",
		"levels low",
		"levels high",
		"count -3",
		`user ""`,
		"store a # b = c",
	}, "\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := testSettings{File: s.File, MaxLoad: "1 2 3", Drop: true, Plain: true, Wait: 90 * time.Second,
		Size: 2 << 30, Level: "high", Levels: []string{"low", "high"}, Count: -3, Store: "a # b = c"}
	s.validated = 0
	if fmt.Sprintf("%+v", *s) != fmt.Sprintf("%+v", want) {
		t.Errorf("got  %+v\nwant %+v", *s, want)
	}
}

func TestErrors(t *testing.T) {
	tests := []struct {
		name, file string
		env        map[string]string
		args       []string
		status     int
		want       string // FILE stands for the path
	}{
		{"unknown key", "maxload 1\nmaxlaod 2\n", nil, nil, 78, "FILE:2: maxlaod: unknown key"},
		{"short letter is no key", "s x\n", nil, nil, 78, "FILE:1: s: unknown key"},
		{"config is no key", "config /x\n", nil, nil, 78, "FILE:1: config: unknown key"},
		{"check is no key", "check yes\n", nil, nil, 78, "FILE:1: check: unknown key"},
		{"flag kept to the command line", "debug\n", nil, nil, 78, "FILE:1: debug: unknown key"},
		{"equals sign", "maxload=1\n", nil, nil, 78, "FILE:1: maxload=1: unknown key (a line is KEY VALUE, without =)"},
		{"equals sign with blanks", "maxload = 1\n", nil, nil, 78, "FILE:1: maxload: a line is KEY VALUE, without ="},
		{"no value", "#\n\nmaxload\n", nil, nil, 78, "FILE:3: maxload: value missing"},
		{"list without value", "server\n", nil, nil, 78, "FILE:1: server: value missing"},
		{"twice", "maxload 1\ncount 1\nmaxload 2\n", nil, nil, 78, "FILE:3: maxload: given twice, first on line 1"},
		{"bad int", "count many\n", nil, nil, 78, "FILE:1: count: expected a valid"},
		{"bad switch", "drop perhaps\n", nil, nil, 78, `FILE:1: drop: expected yes or no but got "perhaps"`},
		{"bad size", "size 10Q\n", nil, nil, 78, `FILE:1: size: expected a size such as 512k or 10M but got "10Q"`},
		{"bad duration", "wait soon\n", nil, nil, 78, `FILE:1: wait: expected seconds or a duration`},
		{"negative duration", "wait -3s\n", nil, nil, 78, `FILE:1: wait: duration is negative`},
		{"bad enum", "level middle\n", nil, nil, 78, `FILE:1: level: "middle" is none of low, high`},
		{"bad enum in list", "levels low\nlevels middle\n", nil, nil, 78, `FILE:2: levels: "middle" is none of low, high`},
		{"control character", "maxload 1\x002\n", nil, nil, 78, "FILE:1: line contains control characters"},
		{"not UTF-8", "maxload \xff\n", nil, nil, 78, "FILE:1: line contains control characters or is not UTF-8"},
		{"bad variable", "", map[string]string{"A_B_COUNT": "x"}, nil, 78, "A_B_COUNT: expected a valid"},
		{"bad variable, enum", "", map[string]string{"A_B_LEVEL": "x"}, nil, 78, `A_B_LEVEL: "x" is none of`},
		{"unknown flag", "", nil, []string{"--maxlod", "1"}, 64, `unknown flag --maxlod, did you mean "--maxload"?`},
		{"no value for flag", "", nil, []string{"--maxload"}, 64, "--maxload"},
		{"bad flag", "", nil, []string{"--count", "x"}, 64, "--count: expected a valid"},
		{"bad flag, enum", "", nil, []string{"--level", "x"}, 64, `--level: "x" is none of low, high`},
		{"bad switch flag", "", nil, []string{"--drop=perhaps"}, 64, `--drop: expected yes or no but got "perhaps"`},
		{"argument", "", nil, []string{"x"}, 64, "unexpected argument x"},
		{"switch and its value apart", "", nil, []string{"--count", "1", "--drop", "no"}, 64, "unexpected argument no: write --drop=no"},
		{"named file missing", "", nil, []string{"--config", "/nonexistent/x"}, 78, "read settings file: open /nonexistent/x: no such file"},
		{"named file missing, variable", "", map[string]string{"A_B_CONFIG": "/nonexistent/x"}, nil, 78, "read settings file: open /nonexistent/x: no such file"},
		{"directory", "", nil, []string{"--config", "/"}, 78, "/ is not a regular file"},
		{"too large", strings.Repeat("# 3456789\n", 110_000), nil, nil, 78, "is larger than 1048576 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, _, err := parse(t, tt.file, tt.env, tt.args...)
			if err == nil {
				t.Fatalf("no error, settings %+v", s)
			}
			want := strings.ReplaceAll(tt.want, "FILE", s.Config)
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error %q, want %q in it", err, want)
			}
			if got := ExitStatus(err); got != tt.status {
				t.Errorf("exit status %d, want %d", got, tt.status)
			}
		})
	}
}

func TestErrorParts(t *testing.T) {
	s, _, err := parse(t, "\ncount x\n", nil)
	var e *Error
	if !errors.As(err, &e) || e.File != s.Config || e.Line != 2 || e.Key != "count" {
		t.Errorf("error %#v, want line 2 of %s", err, s.Config)
	}
}

func TestValidate(t *testing.T) {
	for _, invalid := range []error{errors.New("a and b do not go together"), &Error{Key: "a", Err: errors.New("bad")}} {
		s := &testSettings{invalid: invalid}
		_, err := (&Parser{Program: "a-b", DefaultFile: "/nonexistent/x"}).Parse(s, nil)
		if ExitStatus(err) != 78 || err.Error() != invalid.Error() {
			t.Errorf("error %v, want %v", err, invalid)
		}
	}
}

func TestMissingDefaultFile(t *testing.T) {
	s := &testSettings{}
	r, err := (&Parser{Program: "a-b", DefaultFile: "/nonexistent/x"}).Parse(s, nil)
	if err != nil || r.File != "" || s.MaxLoad != "10 0 0" {
		t.Errorf("file %q, settings %+v, error %v; want the defaults", r.File, s, err)
	}
}

// A default file that is there and cannot be read is an error; only a missing one
// is not. None of them may block.
func TestUnreadableDefaultFile(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	closed := filepath.Join(dir, "closed")
	if err := os.WriteFile(closed, []byte("count 3\n"), 0); err != nil {
		t.Fatal(err)
	}
	checkLoad(t, dir, "not a regular file")
	checkLoad(t, fifo, "not a regular file")
	testenv.Go(t, "the parser", func() error { // on a thread that is not root's on files, and ends with the goroutine
		runtime.LockOSThread()
		syscall.RawSyscall(syscall.SYS_SETFSUID, 65534, 0, 0)
		_, err := (&Parser{Program: "a-b", DefaultFile: closed}).Parse(&testSettings{}, nil)
		if err == nil || ExitStatus(err) != 78 || !errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("error %v, want a lack of permission", err)
		}
		return nil
	}).Wait()
	checkLoad(t, os.DevNull, "")
}

func TestFileRights(t *testing.T) {
	tests := []struct {
		name string
		mode os.FileMode
		want string
	}{
		{"world", 0o606, "can be written by others (mode 0606)"},
		{"group", 0o660, "can be written by others (mode 0660)"},
		{"private", 0o600, ""},
		{"readable", 0o644, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := writeFile(t, "count 3\n")
			gid := os.Getgid()
			if os.Geteuid() == 0 {
				gid = 65534 // a group of root may write
			}
			if err := os.Chown(path, -1, gid); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			checkLoad(t, path, tt.want)
		})
	}
}

func TestFileOfAnotherUser(t *testing.T) {
	testenv.NeedRoot(t)
	path := writeFile(t, "count 3\n")
	if err := os.Chown(path, 65534, 0); err != nil {
		t.Fatal(err)
	}
	checkLoad(t, path, "belongs to user 65534")
}

func checkLoad(t *testing.T, path, want string) {
	t.Helper()
	_, err := (&Parser{Program: "a-b", DefaultFile: path}).Parse(&testSettings{}, nil)
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("error %v, want %q", err, want)
	}
	if want != "" && ExitStatus(err) != 78 {
		t.Errorf("exit status %d, want 78", ExitStatus(err))
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"-h"}, {"--count", "1", "--help"}, {"--help", "--nonsense"}} {
		var out strings.Builder
		s := &testSettings{invalid: errors.New("help must not validate")}
		_, err := (&Parser{Program: "a-b", Description: "Does it.", Stdout: &out}).Parse(s, args)
		if !errors.Is(err, ErrDone) || ExitStatus(err) != 0 {
			t.Errorf("%q: error %v, want ErrDone", args, err)
		}
		for _, want := range []string{"Usage: a-b", "Does it.", "--maxload=LOADS", "-s, --server=", "--check", "--version", "--config=FILE"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%q: no %q in:\n%s", args, want, out.String())
			}
		}
	}
}

func TestVersion(t *testing.T) {
	var out strings.Builder
	_, err := (&Parser{Program: "a-b", Stdout: &out}).Parse(&testSettings{}, []string{"--version"})
	if !errors.Is(err, ErrDone) || !strings.HasPrefix(out.String(), "a-b (postern) ") {
		t.Errorf("error %v, output %q", err, out.String())
	}
}

func TestVarsAndShorts(t *testing.T) {
	s := &testSettings{}
	p := &Parser{Program: "a-b", DefaultFile: "/nonexistent", Vars: map[string]string{"user": "mail"}, Shorts: map[string]rune{"count": 'c'}}
	if _, err := p.Parse(s, []string{"-c9"}); err != nil || s.User != "mail" || s.Count != 9 {
		t.Errorf("user %q, count %d, error %v; want mail, 9", s.User, s.Count, err)
	}
	p.Shorts = map[string]rune{"nonsense": 'n'}
	if _, err := p.Parse(s, nil); err == nil {
		t.Error("no error for a short letter of no flag")
	}
}

func TestCommand(t *testing.T) {
	type settings struct {
		File
		Count   int      `help:"Count."`
		Serve   struct{} `cmd:"" default:"1" hidden:""`
		Explain struct {
			Client string `help:"Client."`
		} `cmd:"" help:"Explain."`
	}
	path := writeFile(t, "count 4\n")
	tests := []struct {
		args                  []string
		command, client, want string
	}{
		{nil, "serve", "", ""},
		{[]string{"--config", path}, "serve", "", ""},
		{[]string{"--config", path, "explain", "--client", "192.0.2.1"}, "explain", "192.0.2.1", ""},
		{[]string{"explain", "--config", path, "--client", "192.0.2.1"}, "explain", "192.0.2.1", ""},
	}
	for _, tt := range tests {
		s := &settings{}
		r, err := (&Parser{Program: "a-b", DefaultFile: path}).Parse(s, tt.args)
		if err != nil {
			t.Errorf("%q: %v", tt.args, err)
			continue
		}
		if r.Command != tt.command || s.Explain.Client != tt.client || s.Count != 4 {
			t.Errorf("%q: command %q, client %q, count %d", tt.args, r.Command, s.Explain.Client, s.Count)
		}
	}
}

func TestPrint(t *testing.T) {
	s, r, err := parse(t, "server a,b\nserver c\nstore rediss://u:s3cret/@h:1/2\nkey geheim\n", nil, "--count", "2")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	want := strings.ReplaceAll(`# a-b, settings file: FILE
maxload  10 0 0                    # default
server   a,b                       # FILE:1
server   c                         # FILE:2
size     10M                       # default
wait     30s                       # default
drop     no                        # default
plain    no                        # default
level    low                       # default
levels   ""                        # default
count    2                         # command line
store    rediss://u:********@h:1/2 # FILE:3
key      ********                  # FILE:4
user     nobody                    # default
`, "FILE", s.Config)
	if diff := cmp.Diff(want, strings.ReplaceAll(out.String(), "  #", " #")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestByteOrderMark: the mark that some editors write first is no part of the first key.
func TestByteOrderMark(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.conf")
	if err := os.WriteFile(path, []byte("\ufeffname value\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	values, err := readFile(path, true, func(string) keyKind { return keyScalar })
	if err != nil || len(values["name"]) != 1 || values["name"][0].text != "value" {
		t.Errorf("%v, %v", values, err)
	}
}

// TestHelpShowsDefaults: also where a placeholder stands for the value, and once.
func TestHelpShowsDefaults(t *testing.T) {
	var out strings.Builder
	p := Parser{Program: "prog", Stdout: &out}
	if _, err := p.Parse(&struct {
		Load  string `help:"Load." default:"10 0 0" placeholder:"LOADS"`
		Said  string `help:"Said. Default: all that is there." default:"x" placeholder:"TEXT"`
		Wait  string `help:"Wait." default:"30s"`
		Flag  bool   `help:"Flag." default:"yes"`
		Other Switch `help:"Other." default:"no"`
	}{}, []string{"--help"}); !errors.Is(err, ErrDone) {
		t.Fatal(err)
	}
	for _, want := range []string{"Load. Default: 10 0 0.", "Said. Default: all that is there.\n", "--wait=\"30s\"", "Flag. Default: yes.", "Other. Default: no."} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
}
