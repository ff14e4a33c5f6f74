package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// TestPatterns: logins are found in lines of servers as they write them, by syslog and to files of their own.
func TestPatterns(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ pattern, lines, want string }{
		{"dovecot", "Nov 28 14:00:00 mx dovecot: pop3-login: Login: user=<bob>, method=PLAIN, rip=192.0.2.7, lip=192.0.2.1, mpid=9, TLS, session=<AbC/d>", "192.0.2.7 bob"},
		{"dovecot", "2026-11-28T14:00:00.123456+00:00 mx dovecot[12]: imap-login: Login: user=<a@b.example>, method=CRAM-MD5, rip=2001:db8::7, lip=::1, mpid=9, session=<x>", "2001:db8::7 a@b.example"},
		{"dovecot", "Nov 28 14:00:00 pop3-login: Info: Login: user=<bob>, method=PLAIN, rip=::ffff:192.0.2.7, lip=192.0.2.1, mpid=9", "192.0.2.7 bob"},
		{"courier", "Nov 28 14:00:00 mx pop3d: LOGIN, user=bob, ip=[::ffff:192.0.2.7], port=[51234]", "192.0.2.7 bob"},
		{"courier", "Nov  8 14:00:00 mx imapd-ssl[3]: LOGIN, user=bob, ip=[2001:db8::7], port=[51234], protocol=IMAP", "2001:db8::7 bob"},
		{"cyrus", "Nov 28 14:00:00 mx cyrus/pop3[77]: login: pc.example [192.0.2.7] bob plaintext User logged in SESSIONID=<mx-77-1-2>", "192.0.2.7 bob"},
		{"cyrus", "Nov 28 14:00:00 mx cyrus/imaps[77]: login: [192.0.2.7] bob PLAIN+TLS User logged in", "192.0.2.7 bob"},
		{"mailutils", "Nov 28 14:00:00 mx pop3d[7]: connect from 192.0.2.7\nNov 28 14:00:00 mx pop3d[8]: connect from 192.0.2.8\n" +
			"Nov 28 14:00:00 mx pop3d[7]: POP3 login: user `bob', source system\nNov 28 14:00:00 mx pop3d[7]: POP3 login: user `eve', source system\n" +
			"Nov 28 14:00:00 mx pop3d[9]: POP3 login: user `eve', source system\nNov 28 14:00:00 mx pop3d[8]: AbCdEfGh POP3 login: user `ann', source pam", "192.0.2.7 bob, 192.0.2.8 ann"},
		{"mailutils", "Nov 28 14:00:00 mx1 pop3d[7]: connect from 192.0.2.7\nNov 28 14:00:00 mx2 pop3d[7]: connect from 192.0.2.8\n" +
			"Nov 28 14:00:00 mx1 pop3d[7]: POP3 login: user `bob', source system\nNov 28 14:00:00 mx3 pop3d[7]: POP3 login: user `eve', source system", "192.0.2.7 bob"},
		{`^accepted (?P<user>\S+) at (?P<client>\S+)$`, "Nov 28 14:00:00 mx qpopper[1]: accepted bob at 192.0.2.7", "192.0.2.7 bob"},
	} {
		if got := found(t, tt.pattern, tt.lines); got != tt.want {
			t.Errorf("%s in %q: %q, want %q", tt.pattern, tt.lines, got, tt.want)
		}
	}
	for _, bad := range []string{"", "exchange", "(?P<client>", "accepted (?P<client>.*)", "^accepted"} {
		if _, err := parsePattern(bad); err == nil {
			t.Errorf("pattern %q: no error", bad)
		}
	}
}

// found is who has logged in by these lines.
func found(t *testing.T, name, lines string) string {
	t.Helper()
	p, err := parsePattern(name)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for line := range strings.SplitSeq(lines, "\n") {
		r, ok := parseRecord(line)
		if !ok {
			continue
		}
		if st, ok := p.find(r); ok {
			all = append(all, st.Addr.String()+" "+st.User)
		}
	}
	return strings.Join(all, ", ")
}

// TestPOP_84_ForgedLogLines: a client that has not logged in puts what a login looks like into its name, its command or
// its host's name, and other programs log it. It gets no stamp.
func TestPOP_84_ForgedLogLines(t *testing.T) {
	t.Parallel()
	login := map[string]string{
		"dovecot":   "pop3-login: Login: user=<bob>, method=PLAIN, rip=192.0.2.66, lip=192.0.2.1, mpid=9",
		"courier":   "LOGIN, user=bob, ip=[192.0.2.66], port=[1]",
		"mailutils": "POP3 login: user `bob', source system",
		"cyrus":     "login: x [192.0.2.66] bob plaintext User logged in",
	}
	for name, text := range login {
		program := patterns[name].programs[0]
		for _, line := range []string{
			"Nov 28 14:00:00 mx postfix/smtpd[1]: lost connection from x[192.0.2.9] helo=<" + text + ">",
			"Nov 28 14:00:00 mx smtp-proxy[1]: " + text,
			"Nov 28 14:00:00 mx " + program + "[1]: LOGIN FAILED, user=" + text,
			"Nov 28 14:00:00 mx " + program + "[1]: pop3-login: Aborted login (auth failed): user=<Nov 28 14:00:00 mx " + program + ": " + text + ">, method=PLAIN",
			"Nov 28 14:00:00 mx " + program + "[1]: badlogin: Nov 28 14:00:00 " + program + ": " + text,
			text,
			"Nov 28 14:00:00 mx evil " + program + "[1]: " + text,
		} {
			if got := found(t, name, line); got != "" {
				t.Errorf("%s: %q is a login of %s", name, line, got)
			}
		}
	}
	if got := found(t, "dovecot", "Nov 28 14:00:00 mx dovecot: pop3-login: Login: user=<x>, method=PLAIN, rip=999.0.2.7, lip=1"); got != "" {
		t.Errorf("%s has no address", got)
	}
}

func FuzzPatterns(f *testing.F) {
	f.Add("Nov 28 14:00:00 mx dovecot: pop3-login: Login: user=<bob>, method=PLAIN, rip=192.0.2.7, lip=192.0.2.1, mpid=9")
	f.Add("Nov 28 14:00:00 mx pop3d: LOGIN, user=bob, ip=[::ffff:192.0.2.7], port=[51234]")
	f.Fuzz(func(t *testing.T, line string) {
		r, ok := parseRecord(line)
		if !ok {
			return
		}
		for name := range patterns {
			p, err := parsePattern(name)
			if err != nil {
				t.Fatal(err)
			}
			if st, ok := p.find(r); ok && !st.Addr.IsValid() {
				t.Errorf("%s: a login from nowhere: %+v", name, st)
			}
		}
	})
}

// TestFollowFile: lines are read once each, also of a log that is moved away, cut, and written in pieces.
func TestFollowFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "mail.log")
	line := func(i int) string { return fmt.Sprintf("Nov 28 14:00:00 mx server[%d]: text %d\n", i, i) }
	write := func(flag int, text string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|flag, 0o600)
		if err == nil {
			_, err = f.WriteString(text)
		}
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	write(os.O_CREATE, line(0))
	got := make(chan string, 100)
	started := make(chan error, 1)
	var said testenv.Buffer
	lines := newLogLines(&said, func(line []byte) {
		if r, ok := parseRecord(string(line)); ok {
			got <- r.text
		}
	})
	go func() { started <- followFile(t.Context(), path, lines) }()
	want := func(i int) {
		t.Helper()
		if text := testenv.Receive(t, "a line", got); text != fmt.Sprintf("text %d", i) {
			t.Errorf("read %q, want that of line %d", text, i)
		}
	}
	n := 1
	testenv.Eventually(t, "the log is followed", func() bool { write(0, line(n)); n++; return len(got) > 0 })
	write(0, line(1000))
	for testenv.Receive(t, "a line", got) != "text 1000" { // those of before, all of which are read
	}
	write(0, strings.Repeat("x", 2*maxLogLine)+"\n"+strings.Repeat("y", maxLogLine+1)+"\n"+line(2)[:20])
	write(0, line(2)[20:]+line(3))
	want(2)
	want(3)
	if n := strings.Count(said.String(), "skipped"); n != 1 {
		t.Errorf("long lines were told of %d times, want once: %s", n, said.String())
	}
	write(0, line(4))
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write(os.O_CREATE, line(5))
	want(4)
	want(5)
	write(os.O_TRUNC, line(6)[:30])
	testenv.Eventually(t, "the end of the line is read", func() bool { write(0, line(7)); return len(got) > 0 })
}

// TestLogLines: lines come in pieces of any size, and those that are too long do not keep others from being read.
func TestLogLines(t *testing.T) {
	text := "one\n\n" + strings.Repeat("x", maxLogLine) + "\n" + strings.Repeat("y", maxLogLine+1) + "\ntwo\nthree"
	for _, size := range []int{1, 7, 4096, maxLogLine, 4 * maxLogLine} {
		var got []string
		lines := newLogLines(io.Discard, func(line []byte) { got = append(got, string(line[:min(len(line), 9)])) })
		for piece := range slices.Chunk([]byte(text), size) {
			lines.take(piece)
		}
		if all := strings.Join(got, "|"); all != "one||xxxxxxxxx|two" {
			t.Errorf("pieces of %d: %s", size, all)
		}
	}
}

// TestKnownProcesses: processes that serve clients who never log in do not fill the memory.
func TestKnownProcesses(t *testing.T) {
	p, err := parsePattern("mailutils")
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxProcesses + 5 {
		p.find(record{program: "pop3d", pid: fmt.Sprint(i), text: "connect from 192.0.2.1"})
	}
	if len(p.from) > maxProcesses {
		t.Errorf("%d processes are known", len(p.from))
	}
}
