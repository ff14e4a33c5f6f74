package upstream

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// script writes a shell script and gives the URL that runs it.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(testenv.ShortDir(t), "server")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return "exec:" + path + " -bs"
}

const shellServer = `
cr=$(printf '\r')
say() { printf '%s\r\n' "$1"; }
echo "arguments: $*" >&2
say '220 shell'
while read -r line; do
	case ${line%"$cr"} in
	EHLO*) say '250-shell'; say '250 PIPELINING' ;;
	DATA)
		say '354 go'
		while read -r line; do
			[ "${line%"$cr"}" = . ] && break
		done
		say '250 Ok: queued as SHELL' ;;
	QUIT) say '221 bye'; exit ;;
	*) say '250 ok' ;;
	esac
done
`

func TestProgram(t *testing.T) {
	t.Parallel()
	var said testenv.Buffer
	log := slog.New(slog.NewTextHandler(&said, nil))
	set := newSet(t, Config{URLs: []string{script(t, shellServer)}, Log: log})
	for range 2 {
		c := get(t, set, Client{})
		if code, id := send(t, c, "a@a.test", "b@b.test", strings.Repeat("x\r\n", 1000)); code != 250 || id != "SHELL" {
			t.Errorf("code %d, id %q", code, id)
		}
		c.Release()
	}
	c := get(t, set, Client{})
	p := programOf(c.stream)
	c.Abort()
	testenv.Eventually(t, "the program ends", func() bool {
		select {
		case <-p.done:
			return true
		default:
			return false
		}
	})
	if !strings.Contains(said.String(), "arguments: -bs") {
		t.Errorf("standard error is not in the log: %s", said.String())
	}
	if s := set.Stats()[0]; s.Dialed != 1 || s.Open != 0 {
		t.Errorf("%+v", s)
	}
}

// TestProgramInherits looks at what a program gets from us: FS-15.
func TestProgramInherits(t *testing.T) {
	t.Setenv("LD_PRELOAD", "")
	t.Setenv("NOTIFY_SOCKET", "/nonexistent")
	t.Setenv("LISTEN_FDS", "3")
	t.Setenv("IFS", "/")
	var said testenv.Buffer
	set := newSet(t, Config{URLs: []string{script(t, "env >&2; ls /proc/self/fd >&2; umask >&2; echo the end >&2\n"+shellServer)}, Log: slog.New(slog.NewTextHandler(&said, nil))})
	get(t, set, Client{}).Release()
	testenv.Eventually(t, "the program has said it", func() bool { return strings.Contains(said.String(), "the end") })
	if got := said.String(); strings.Contains(got, "LD_PRELOAD") || strings.Contains(got, "NOTIFY_SOCKET") || strings.Contains(got, "LISTEN_FDS") || strings.Contains(got, "IFS=/") || !strings.Contains(got, "PATH=/") {
		t.Errorf("environment:\n%s", got)
	}
	for _, number := range []string{"text=4", "text=5", "text=6", "text=7", "text=8", "text=9"} { // 3 is what ls itself has open
		if strings.Contains(said.String(), number+"\n") {
			t.Errorf("the program has a descriptor too many:\n%s", said.String())
		}
	}
}

// programOf is the program at the other end.
func programOf(st *stream) *program { return st.direct.Conn.(*program) }

// A program that does not end with its input is killed, with all that it started.
func TestProgramKilled(t *testing.T) {
	t.Parallel()
	url := script(t, "trap '' TERM HUP PIPE\nsleep 1000 &\nprintf '220 a\\r\\n'\nread -r line\nprintf '250 a\\r\\n'\nwait\n")
	set := newSet(t, Config{URLs: []string{url}})
	set.servers[0].dialer = func(context.Context) (*stream, error) {
		st, err := startProgram(set.servers[0].endpoint, set.conf.Log)
		if err == nil {
			programOf(st).grace = second / 20
		}
		return st, err
	}
	c := get(t, set, Client{})
	p := programOf(c.stream)
	c.Abort()
	testenv.Eventually(t, "the program is killed", func() bool {
		select {
		case <-p.done:
			return true
		default:
			return false
		}
	})
}

func TestProgramMissing(t *testing.T) {
	t.Parallel()
	set := newSet(t, Config{URLs: []string{"exec:/does/not/exist -bs"}})
	if r, err := getError(t, set, Client{}); r.Enhanced != "4.4.1" || !strings.Contains(err.Error(), "/does/not/exist") {
		t.Errorf("got %v, %v", r, err)
	}
	set = newSet(t, Config{URLs: []string{"exec:/bin/false"}})
	if r, err := getError(t, set, Client{}); r.Enhanced != "4.4.2" {
		t.Errorf("got %v, %v", r, err)
	}
}
