package main

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/testenv"
)

// stampLine is the content of the stamp of 127.0.0.1, "" if there is none.
func (r *running) stampLine(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(r.stamp, "127.0.0.1"))
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestDialog(t *testing.T) {
	t.Parallel()
	r := start(t, backendAt(t, mailbox("Subject: x\r\n\r\nhello\r\n..\r\n")))
	p := r.client(t)
	p.ask("STAT", "-ERR log in first")
	p.ask("PASS x", "-ERR USER first")
	p.ask("USER", "-ERR syntax")
	p.ask("user bob", "+OK")
	if r.stampLine(t) != "" {
		t.Error("a stamp after USER")
	}
	p.ask("PASS secret word", "+OK logged in")
	line := strings.Fields(r.stampLine(t))
	if len(line) != 4 || line[1] != "127.0.0.1" || line[2] != "bob" || "pop3://"+line[3] != r.conf.Upstream[0] {
		t.Errorf("stamp %q", line)
	}
	if n, err := strconv.ParseInt(line[0], 10, 64); err != nil || time.Since(time.Unix(n, 0)) > time.Minute {
		t.Errorf("time %q in the stamp", line[0])
	}
	p.ask("STAT", "+OK 1 12345678901")
	p.ask("LIST 1", "+OK 1 120")
	p.ask("LIST", "+OK")
	p.want("1 120")
	p.want(".")
	p.ask("RETR 1", "+OK here")
	for _, want := range []string{"Subject: x", "", "hello", "..", "."} {
		if got := p.line(); got != want {
			t.Errorf("message line %q, want %q", got, want)
		}
	}
	p.ask("TOP 1 0", "+OK")
	for p.line() != "." {
	}
	p.ask("UIDL 1", "+OK")
	p.ask("DELE 1", "+OK DELE 1")
	p.ask("NOOP", "+OK NOOP")
	p.ask("RSET", "+OK RSET")
	p.ask("QUIT", "+OK bye")
	p.ended()
}

func TestPipelined(t *testing.T) {
	t.Parallel()
	r := start(t, backendAt(t, mailbox("x\r\n")))
	p := r.client(t)
	p.send("USER bob\r\nPASS secret word\r\nRETR 1\r\nNOOP\r\nQUIT\r\n")
	for _, want := range []string{"+OK", "+OK logged in", "+OK here", "x", ".", "+OK NOOP", "+OK bye"} {
		p.want(want)
	}
	p.ended()
}

// TestBadCommands has lines that must not reach the upstream server.
// POP-08.
func TestBadCommands(t *testing.T) {
	t.Parallel()
	seen := make(chan string, 100)
	url := backendAt(t, func(p *peer) {
		p.send("+OK\r\n")
		for {
			line := p.line()
			if line == "" {
				return
			}
			seen <- line
			p.send("+OK\r\n")
		}
	})
	r := start(t, url, "--max-errors", "100")
	p := r.client(t)
	p.ask("USER bob", "+OK")
	p.ask("PASS x", "+OK")
	for _, bad := range []string{"RETR 1 2", "TOP 1 99999999999999999999", "LIST -1", "RETR 1\x00", "RETR", "RETR 0", "DELE 1x", "TOP 1", "STAT 1",
		"NOOP\rDELE 1", "XTND XMIT", "USER x", "AUTH PLAIN", "STLS", "RETR +1", "RETR 0x1", "RETR 4294967296", "RETR  1", "", "A" + strings.Repeat("x", 100<<10)[:60000],
		"RETR 1\x0b", "\xff\xfe", "LIST 1\t"} {
		p.ask(bad, "-ERR")
	}
	p.ask("DELE 1 ", "+OK") // a space at the end is harmless
	close(seen)
	var got []string
	for line := range seen {
		got = append(got, line)
	}
	if strings.Join(got, "|") != "USER bob|PASS x|DELE 1" {
		t.Errorf("the upstream server saw %q", got)
	}
}

// POP-08.
func TestEndlessLine(t *testing.T) {
	t.Parallel()
	r := start(t, backendAt(t, mailbox("")))
	p := r.client(t)
	p.send(strings.Repeat("x", 100<<10))
	p.want("-ERR")
}

func TestErrorsEndTheSession(t *testing.T) {
	t.Parallel()
	r := start(t, backendAt(t, mailbox("")))
	p := r.client(t)
	for range 4 {
		p.ask("FOO", "-ERR unknown command")
	}
	p.ask("FOO", "-ERR unknown command")
	p.want("-ERR too many errors")
	p.ended()
}

// TestNoStamp has upstream servers that do not really say yes.
// POP-01.
func TestNoStamp(t *testing.T) {
	t.Parallel()
	script := func(replies ...string) backendFunc {
		return func(p *peer) {
			for i, reply := range replies {
				if i > 0 && p.line() == "" {
					return
				}
				p.send(reply)
			}
			p.line()
		}
	}
	tests := []struct {
		name   string
		server backendFunc
		reply  string // to PASS
		left   bool   // the session goes on
	}{
		{"refused", script("+OK\r\n", "+OK\r\n", "-ERR no\r\n"), "-ERR [AUTH] no", true},
		{"refused with a code", script("+OK\r\n", "+OK\r\n", "-ERR [IN-USE] locked\r\n"), "-ERR [IN-USE] locked", true},
		{"user refused", script("+OK\r\n", "-ERR who?\r\n"), "-ERR [AUTH] who?", true},
		{"greeting refused", script("-ERR go away\r\n"), "-ERR [SYS/TEMP]", false},
		{"silence at the end", script("+OK\r\n", "+OK\r\n"), "-ERR [SYS/TEMP]", false},
		{"+OK before PASS", script("+OK\r\n", "+OK\r\n+OK\r\n", "+OK\r\n"), "-ERR [SYS/TEMP]", false},
		{"+OK with the greeting", script("+OK\r\n+OK\r\n+OK\r\n", ""), "-ERR [SYS/TEMP]", false},
		{"+OK twice", script("+OK\r\n", "+OK\r\n", "+OK\r\n+OK\r\n"), "-ERR [SYS/TEMP]", false},
		{"something else", script("+OK\r\n", "+OK\r\n", "250 ok\r\n"), "-ERR [SYS/TEMP]", false},
		{"lower case", script("+OK\r\n", "+OK\r\n", "+ok\r\n"), "-ERR [SYS/TEMP]", false},
		{"no space", script("+OK\r\n", "+OK\r\n", "+OKAY\r\n"), "-ERR [SYS/TEMP]", false},
		{"challenge", script("+OK\r\n", "+OK\r\n", "+ eA==\r\n"), "-ERR [SYS/TEMP]", false},
		{"long line", script("+OK\r\n", "+OK\r\n", "+OK "+strings.Repeat("x", 10000)+"\r\n"), "-ERR [SYS/TEMP]", false},
		{"endless line", script("+OK\r\n", "+OK\r\n", "+OK "+strings.Repeat("x", 1<<20)), "-ERR [SYS/TEMP]", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			limit := "1m"
			if strings.HasPrefix(tt.reply, "-ERR [SYS/TEMP]") { // whatever the cause
				limit = "2s"
			}
			r := start(t, backendAt(t, tt.server), "--upstream-timeout", limit)
			p := r.client(t)
			p.ask("USER bob", "+OK")
			p.ask("PASS secret word", tt.reply)
			if got := r.stampLine(t); got != "" {
				t.Errorf("stamp %q", got)
			}
			if tt.left {
				p.ask("QUIT", "+OK")
			}
			p.ended()
		})
	}
}

func TestServerDown(t *testing.T) {
	t.Parallel()
	down := "pop3://127.0.0.1:" + strconv.Itoa(testenv.FreePort(t))
	r := start(t, down)
	p := r.client(t)
	p.ask("USER bob", "+OK")
	p.ask("PASS secret word", "-ERR [SYS/TEMP] mail server is not available")
	p.ended()
	// With a second server it is not noticed.
	r = start(t, down, "--upstream", backendAt(t, mailbox("")))
	r.login(t)
}

// TestReplyToNothing has the upstream server say something while the client is silent. It must not be taken for
// the answer to the next command. POP-01.
func TestReplyToNothing(t *testing.T) {
	t.Parallel()
	loggedIn, sent := make(chan struct{}), make(chan struct{})
	r := start(t, backendAt(t, func(p *peer) {
		p.send("+OK\r\n")
		for range 2 {
			p.line()
			p.send("+OK\r\n")
		}
		<-loggedIn
		p.send("+OK 5 500\r\n")
		close(sent)
		for p.line() != "" {
			p.send("+OK 1 100\r\n")
		}
	}))
	p := r.client(t)
	p.ask("USER bob", "+OK")
	p.ask("PASS x", "+OK")
	close(loggedIn)
	testenv.Receive(t, "what the server says unasked", sent)
	p.ask("STAT", "-ERR [SYS/TEMP]")
	p.ended()
}

// TestMessages passes messages of all kinds on unchanged.
// POP-07.
func TestMessages(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"empty":        "",
		"one line":     "x\r\n",
		"dot lines":    "..\r\n...\r\n..x\r\n",
		"long lines":   strings.Repeat("x", 64<<10) + "\r\n" + strings.Repeat("y", 100001) + "\r\n",
		"NUL":          "a\x00b\r\n\x00\r\n",
		"bare CR":      "a\rb\r\r\n",
		"bare LF":      "a\nb\n\r\n",
		"8-bit":        "\xff\xfe\x80\r\n",
		"false ends":   "\n.\n\r\n.\n\r.\r\n\r\n.x\r\n\n.\r\n",
		"buffer sizes": strings.Repeat(strings.Repeat("z", 1022)+"\r\n", 200),
	}
	for name, message := range tests {
		t.Run(name, func(t *testing.T) {
			r := start(t, backendAt(t, mailbox(message)))
			p := r.login(t)
			p.ask("RETR 1", "+OK here")
			got := make([]byte, len(message)+3)
			if _, err := io.ReadFull(p.r, got); err != nil {
				t.Fatal(err)
			}
			if want := message + ".\r\n"; string(got) != want {
				t.Errorf("got %.200q, want %.200q", got, want)
			}
			p.ask("NOOP", "+OK")
		})
	}
}

// TestSlowMessage sends a message byte by byte.
func TestSlowMessage(t *testing.T) {
	t.Parallel()
	const message = "a\r\n..\r\n.\r\r\n\r\n.\r\n"
	r := start(t, backendAt(t, func(p *peer) {
		p.send("+OK\r\n")
		for range 2 {
			p.line()
			p.send("+OK\r\n")
		}
		p.line()
		for _, c := range []byte("+OK\r\n" + message) {
			p.send(string(c))
		}
		p.line()
		p.send("+OK noop\r\n")
	}))
	p := r.client(t)
	p.ask("USER bob", "+OK")
	p.ask("PASS x", "+OK")
	p.ask("RETR 1", "+OK")
	got := make([]byte, len(message))
	if _, err := io.ReadFull(p.r, got); err != nil || string(got) != message {
		t.Errorf("got %q, %v; want %q", got, err, message)
	}
	p.ask("NOOP", "+OK noop")
}

// POP-07.
func TestMessageCutOff(t *testing.T) {
	t.Parallel()
	r := start(t, backendAt(t, func(p *peer) {
		p.send("+OK\r\n")
		for range 2 {
			p.line()
			p.send("+OK\r\n")
		}
		p.line()
		p.send("+OK\r\nhalf of a mess")
	}))
	p := r.client(t)
	p.ask("USER bob", "+OK")
	p.ask("PASS x", "+OK")
	p.ask("RETR 1", "+OK")
	rest, err := io.ReadAll(p.r)
	if err != nil || string(rest) != "half of a mess" {
		t.Errorf("got %q, %v; want what came and no end", rest, err)
	}
}

// TestMessageWithLooseEnd has servers that do not end lines with CR LF end messages as they do: the client
// gets the terminator, whatever of it has come, and the session goes on.
func TestMessageWithLooseEnd(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ sent, want string }{
		"last line":            {"Subject: x\r\n\r\nhello\n.\r\n", "Subject: x\r\n\r\nhello\r\n.\r\n"},
		"all lines":            {"Subject: x\n\nhello\n.\n", "Subject: x\n\nhello\r\n.\r\n"},
		"the dot's line":       {"hello\r\n.\n", "hello\r\n.\r\n"},
		"nothing":              {".\n", ".\r\n"},
		"an empty line":        {"hello\r\n\n.\r\n", "hello\r\n\r\n.\r\n"},
		"other dots before it": {"\n.\r\n.\n..\n.\n", "\n.\r\n.\n..\r\n.\r\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, backendAt(t, func(p *peer) {
				p.send("+OK\r\n")
				for range 2 {
					p.line()
					p.send("+OK\r\n")
				}
				p.line()
				p.send("+OK here\r\n" + tt.sent)
				for p.line() != "" {
					p.send("+OK bye\r\n")
				}
			}))
			p := r.client(t)
			p.ask("USER bob", "+OK")
			p.ask("PASS x", "+OK")
			p.ask("RETR 1", "+OK here")
			got := make([]byte, len(tt.want))
			if _, err := io.ReadFull(p.r, got); err != nil || string(got) != tt.want {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
			p.ask("QUIT", "+OK bye")
		})
	}
}

// TestBigMessage passes 64 MiB on and looks at what that costs.
func TestBigMessage(t *testing.T) {
	testenv.NotQuick(t, "passes 64 MiB")
	const pieces = 1024
	piece := []byte(strings.Repeat(strings.Repeat("x", 1022)+"\r\n", 64))
	r := start(t, backendAt(t, func(p *peer) {
		p.send("+OK\r\n")
		for range 2 {
			p.line()
			p.send("+OK\r\n")
		}
		p.line()
		p.send("+OK\r\n")
		for range pieces {
			if _, err := p.Write(piece); err != nil {
				return
			}
		}
		p.send(".\r\n")
		p.line()
	}))
	p := r.client(t)
	p.ask("USER bob", "+OK")
	p.ask("PASS x", "+OK")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	p.ask("RETR 1", "+OK")
	n, err := io.CopyN(io.Discard, p.r, int64(pieces*len(piece)+3))
	if err != nil {
		t.Fatalf("after %d bytes: %v", n, err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 16<<20 {
		t.Errorf("allocated %d MiB", used>>20)
	}
}

// POP-06.
func TestStampOnConnect(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"keep", "remove"} {
		t.Run(mode, func(t *testing.T) {
			r := start(t, backendAt(t, mailbox("")), "--stamp-on-connect", mode)
			r.login(t).ask("QUIT", "+OK")
			p := r.client(t)
			if there := r.stampLine(t) != ""; there != (mode == "keep") {
				t.Errorf("stamp there: %v", there)
			}
			p.ask("QUIT", "+OK")
		})
	}
}

// TestStampOfAnotherConnection: where a connection takes the stamp of its address away, who is logged in from there gets it
// back at QUIT, however soon.
func TestStampOfAnotherConnection(t *testing.T) {
	t.Parallel()
	r := start(t, backendAt(t, mailbox("")), "--stamp-on-connect", "remove")
	p := r.login(t)
	r.client(t)
	p.ask("QUIT", "+OK")
	p.ended()
	if r.stampLine(t) == "" {
		t.Error("no stamp")
	}
}

// TestRevokedWithinSession: who logs out does not get back the stamp that was taken away, but one that has
// become old.
func TestRevokedWithinSession(t *testing.T) {
	t.Parallel()
	addr := netip.MustParseAddr("127.0.0.1")
	for _, tt := range []struct {
		flags   []string
		renewed bool
	}{{[]string{"--clientip-maxage", "1m"}, false}, {[]string{"--clientip-maxage", "1ns"}, true}} {
		r := start(t, backendAt(t, mailbox("")), tt.flags...)
		p := r.login(t)
		testenv.Pause(time.Minute / renewAfter) // or it is too soon for another stamp
		if _, err := r.store.Remove(t.Context(), addr); err != nil {
			t.Fatal(err)
		}
		p.ask("QUIT", "+OK")
		p.ended()
		if got := r.stampLine(t) != ""; got != tt.renewed {
			t.Errorf("%v: renewed %v", tt.flags, got)
		}
	}
}

// TestRenewal: the stamp is renewed at QUIT, unless it was written a moment before; one that could not be written then is
// written now.
func TestRenewal(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		maxage string
		away   bool // the directory, at the login
		want   uint64
	}{"a moment": {"10h", false, 1}, "long": {"1ns", false, 2}, "not written": {"10h", true, 1}} {
		t.Run(name, func(t *testing.T) {
			r := start(t, backendAt(t, mailbox("")), "--clientip-maxage", tt.maxage, "--expire-interval", "0")
			away := r.stamp + ".away"
			if tt.away {
				if err := os.Rename(r.stamp, away); err != nil {
					t.Fatal(err)
				}
			}
			p := r.login(t)
			if tt.away {
				if err := os.Rename(away, r.stamp); err != nil {
					t.Fatal(err)
				}
			}
			p.ask("QUIT", "+OK")
			p.ended()
			if got := r.hub.Stats().Messages; got != tt.want {
				t.Errorf("%d stamps written, want %d", got, tt.want)
			}
		})
	}
}

// TestEventsKeepTheirOrder has a login come between the removal of an old stamp and the event about it.
func TestEventsKeepTheirOrder(t *testing.T) {
	t.Parallel()
	r := start(t, backendAt(t, mailbox("")))
	addr := netip.MustParseAddr("127.0.0.1")
	r.touch(t.Context(), addr, "bob", "here")
	before := r.hub.Stats().Messages
	r.gone(addr)
	if r.hub.Stats().Messages != before {
		t.Error("X behind P although the stamp is there")
	}
	r.revoke(t.Context(), addr)
	if r.hub.Stats().Messages != before+1 {
		t.Error("no X")
	}
}

// TestEventOfWrongPassword has names of all kinds be tried.
func TestEventOfWrongPassword(t *testing.T) {
	t.Parallel()
	r := start(t, backendAt(t, mailbox("")), "--sasl", "CRAM-MD5")
	for user, want := range map[string]string{"bob": "7 local USER bob", "": "7 local USER -", "a b\n\x1b": "7 local USER a%20b%0a%1b", strings.Repeat("x", 99): "7 local USER " + strings.Repeat("x", 64)} {
		s := &session{id: 7, user: user}
		got := make(chan string, 1)
		a, b := net.Pipe()
		l := &oneListener{conn: make(chan net.Conn, 1), done: make(chan struct{})}
		l.conn <- b
		go func() { _ = r.hub.Serve(l) }()
		p := newPeer(t, a)
		p.want("*OK")
		before := r.hub.Stats().Subscriptions
		p.send("?W\n")
		testenv.Eventually(t, "the interest", func() bool { return r.hub.Stats().Subscriptions > before })
		go func() {
			line, _ := p.r.ReadString('\n')
			got <- line
		}()
		r.wrongPassword(s, "USER")
		if line := testenv.Receive(t, "the event", got); !strings.EqualFold(line, "W "+want+"\n") {
			t.Errorf("%q: %q, want %q", user, line, want)
		}
		_ = l.Close()
		_ = a.Close()
	}
}

// TestHalfACommand has a client wait for its replies with half of a command sent.
func TestHalfACommand(t *testing.T) {
	t.Parallel()
	p := start(t, backendAt(t, mailbox(""))).client(t)
	p.send("USER bob\r\nPASS secret word\r\nSTAT\r\nNO")
	for _, want := range []string{"+OK", "+OK logged in", "+OK 1 "} {
		p.want(want)
	}
	p.ask("OP", "+OK NOOP")
}

func TestEvents(t *testing.T) {
	t.Parallel()
	r := start(t, backendAt(t, mailbox("")), "--stamp-on-connect", "remove")
	a, b := net.Pipe()
	l := &oneListener{conn: make(chan net.Conn, 1), done: make(chan struct{})}
	l.conn <- b
	go func() { _ = r.hub.Serve(l) }()
	t.Cleanup(func() { _ = l.Close(); _ = a.Close() })
	p := newPeer(t, a)
	p.want("*OK")
	p.send("?PX\n")
	// The interest is in force when the hub has read it; so log in until an event comes.
	got := make(chan string, 100)
	go func() {
		for {
			line, err := p.r.ReadString('\n')
			if err != nil {
				close(got)
				return
			}
			got <- strings.TrimSpace(line)
		}
	}()
	var first string
	testenv.Eventually(t, "an event", func() bool {
		r.login(t)
		select {
		case first = <-got:
			return true
		default:
			return false
		}
	})
	if first != "P 127.0.0.1 bob" && first != "X 127.0.0.1" {
		t.Errorf("event %q", first)
	}
	r.login(t)
	seen := map[string]bool{first: true}
	testenv.Eventually(t, "both events", func() bool {
		select {
		case e := <-got:
			seen[e] = true
		default:
		}
		return seen["P 127.0.0.1 bob"] && seen["X 127.0.0.1"]
	})
}

// oneListener is a listener that gives one connection.
type oneListener struct {
	conn chan net.Conn
	done chan struct{}
	once sync.Once
}

func (l *oneListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *oneListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *oneListener) Addr() net.Addr { return &net.UnixAddr{Name: "test", Net: "unix"} }

func TestSweepTellsListeners(t *testing.T) {
	t.Parallel()
	r := start(t, backendAt(t, mailbox("")), "--expire-interval", "20ms", "--clientip-maxage", "100ms")
	r.login(t)
	if r.stampLine(t) == "" {
		t.Log("gone already")
	}
	testenv.Eventually(t, "the stamp is removed", func() bool { return r.stampLine(t) == "" })
}

// POP-09.
func TestLimits(t *testing.T) {
	t.Parallel()
	t.Run("sessions of an address", func(t *testing.T) {
		r := start(t, backendAt(t, mailbox("")), "--max-sessions-per-address", "2")
		first := r.client(t)
		r.client(t)
		c := testenv.Dial(t, "tcp", r.addr)
		newPeer(t, c).want("-ERR [SYS/TEMP] too many sessions from this address")
		first.ask("QUIT", "+OK")
		first.ended()
		testenv.Eventually(t, "room again", func() bool {
			c := testenv.Dial(t, "tcp", r.addr)
			return strings.HasPrefix(newPeer(t, c).line(), "+OK")
		})
	})
	t.Run("tries in a session", func(t *testing.T) {
		r := start(t, backendAt(t, mailbox("")))
		p := r.client(t)
		for range 3 {
			p.ask("USER bob", "+OK")
			p.ask("PASS guess", "-ERR [AUTH] no")
		}
		p.ended()
	})
	t.Run("failures of an address", func(t *testing.T) {
		r := start(t, backendAt(t, mailbox("")), "--max-login-failures", "2", "--max-login-tries", "1")
		for range 2 {
			p := r.client(t)
			p.ask("USER bob", "+OK")
			p.ask("PASS guess", "-ERR [AUTH] no")
			p.ended()
		}
		c := testenv.Dial(t, "tcp", r.addr)
		newPeer(t, c).want("-ERR [SYS/TEMP] too many failed logins")
	})
	t.Run("time to log in", func(t *testing.T) {
		r := start(t, backendAt(t, mailbox("")), "--login-timeout", "100ms")
		p := r.client(t)
		p.want("-ERR timeout")
		p.ended()
	})
	t.Run("silence", func(t *testing.T) {
		r := start(t, backendAt(t, mailbox("")), "--idle-timeout", "100ms")
		p := r.login(t)
		p.want("-ERR timeout")
		p.ended()
	})
	t.Run("one byte at a time", func(t *testing.T) {
		r := start(t, backendAt(t, mailbox("")), "--login-timeout", "300ms")
		p := r.client(t)
		var stop atomic.Bool
		drip := testenv.Go(t, "a byte now and then", func() error {
			for !stop.Load() {
				_, _ = p.Write([]byte("x"))
				testenv.Pause(20 * time.Millisecond)
			}
			return nil
		})
		p.want("-ERR timeout")
		stop.Store(true)
		drip.Wait()
	})
}

// POP-02.
func TestSASL(t *testing.T) {
	t.Parallel()
	plain := base64.StdEncoding.EncodeToString([]byte("\x00bob\nby\x00secret"))
	server := func(p *peer) {
		p.send("+OK\r\n")
		line := p.line()
		if line == "AUTH PLAIN" {
			p.send("+ \r\n")
			line = "AUTH PLAIN " + p.line()
		}
		if line != "AUTH PLAIN "+plain {
			p.send("-ERR [AUTH] no\r\n")
			return
		}
		p.send("+OK in\r\n")
		p.line()
	}
	r := start(t, backendAt(t, server), "--sasl", "plain")
	p := r.client(t)
	p.ask("AUTH EXTERNAL", "-ERR [AUTH]")
	p.ask("AUTH PLAIN a b", "-ERR")
	p.ask("AUTH PLAIN", "+ ")
	p.ask(plain, "+OK in")
	if got := strings.Fields(r.stampLine(t)); len(got) != 4 || got[2] != "bob%0Aby" {
		t.Errorf("stamp %q", got)
	}
	p = r.client(t)
	p.ask("AUTH PLAIN "+plain, "+OK in")
	p = r.client(t)
	p.ask("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("x")), "-ERR [AUTH]")
	p = r.client(t)
	p.ask("AUTH PLAIN", "+ ")
	p.ask("no base64!", "-ERR [AUTH]")
}

// TestRefusals has the upstream server refuse logins for reasons of all kinds: its text reaches the client, and
// only a refused name or password counts.
func TestRefusals(t *testing.T) {
	t.Parallel()
	tests := []struct {
		user, text string // of the server
		want       string // "" is the same
		counts     bool
	}{
		{"", "[AUTH] bad login", "", true},
		{"", "[auth] bad login", "", true},
		{"", "[AUTH/EXPIRED] change your password", "", true},
		{"", "invalid password", "[AUTH] invalid password", true},
		{"", "permission denied", "[AUTH] permission denied", true},
		{"", "", "[AUTH]", true},
		{"", "Login failed.", "[AUTH] Login failed.", true},
		{"", "[not a code] no", "[AUTH] [not a code] no", true},
		{"", "[AUTH no", "[AUTH] [AUTH no", true},
		{"unlockable", "no such user: UNLOCKABLE", "[AUTH] no such user: UNLOCKABLE", true},
		{"k", "never heard of k", "[AUTH] never heard of k", true},
		{"", "too many wrong passwords", "[AUTH] too many wrong passwords", true},
		{"", "[IN-USE] mailbox is open in another session", "", false},
		{"", "[LOGIN-DELAY] not more than once in a minute", "", false},
		{"", "[SYS/TEMP] out of memory; password not checked", "", false},
		{"", "[sys/perm] your mailbox is broken", "", false},
		{"", "[X-NEW] AUTH", "", false},
		{"", "maildrop already locked", "", false},
		{"", "unable to lock maildrop", "", false},
		{"", "Mailbox is in use", "", false},
		{"", "Server busy, try again later", "", false},
		{"", "temporary failure", "", false},
		{"", "cannot open mailbox", "", false},
		{"", "Too many connections", "", false},
	}
	for _, tt := range tests {
		for _, at := range []string{"USER", "PASS", "AUTH"} {
			user := cmp.Or(tt.user, "bob")
			r := start(t, backendAt(t, func(p *peer) {
				p.send("+OK\r\n")
				for line := p.line(); line != ""; line = p.line() {
					if strings.HasPrefix(line, at) {
						p.send("-ERR " + tt.text + "\r\n")
					} else {
						p.send("+OK\r\n")
					}
				}
			}), "--max-login-failures", "1", "--sasl", "PLAIN")
			p := r.client(t)
			if at == "AUTH" {
				p.send("AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00x")) + "\r\n")
			} else {
				p.ask("USER "+user, "+OK")
				p.send("PASS x\r\n")
			}
			want := strings.TrimSpace("-ERR " + cmp.Or(tt.want, tt.text))
			if got := p.line(); got != want {
				t.Errorf("%s is refused with %q: told %q, want %q", at, tt.text, got, want)
			}
			if n := r.hub.Stats().Messages; n > 0 != tt.counts { // the event W
				t.Errorf("%s is refused with %q: %d events", at, tt.text, n)
			}
			if got := r.limits.logins.Shut(netip.MustParseAddr("127.0.0.1")); got != tt.counts {
				t.Errorf("%s is refused with %q: counts %v", at, tt.text, got)
			}
			// Nobody tries again, on the open connection either, who is shut out.
			if tt.counts {
				p.ask("USER "+user, "+OK")
				p.ask("PASS y", "-ERR [SYS/TEMP] too many failed logins from this address")
				p.ended()
			}
		}
	}
}

// TestSASLGivenUp: who gives up an exchange, and who is not let begin it, has guessed no password.
func TestSASLGivenUp(t *testing.T) {
	t.Parallel()
	r := start(t, backendAt(t, func(p *peer) {
		p.send("+OK\r\n")
		switch p.line() {
		case "AUTH LOGIN":
			p.send("-ERR [AUTH] unsupported mechanism\r\n")
			return
		case "AUTH PLAIN":
			p.send("+ \r\n")
		}
		p.send("-ERR [AUTH] got " + p.line() + "\r\n")
	}), "--max-login-failures", "1", "--max-login-tries", "9", "--sasl", "PLAIN", "--sasl", "LOGIN")
	p := r.client(t)
	for _, response := range []string{"*", "not base64", "x*", strings.Repeat("x", maxAuth)} {
		p.ask("AUTH PLAIN", "+ ")
		p.ask(response, "-ERR [AUTH] got *")
	}
	p.ask("AUTH LOGIN", "-ERR [AUTH] unsupported mechanism")
	// USER before AUTH is forgotten.
	p.ask("USER bob", "+OK")
	p.ask("AUTH PLAIN", "+ ")
	p.ask("*", "-ERR [AUTH] got *")
	p.ask("PASS x", "-ERR USER first")
	if r.limits.logins.Shut(netip.MustParseAddr("127.0.0.1")) {
		t.Error("counted as failed logins")
	}
	p.ask("AUTH PLAIN", "+ ")
	p.ask(base64.StdEncoding.EncodeToString([]byte("\x00bob\x00x")), "-ERR [AUTH] got ")
	if !r.limits.logins.Shut(netip.MustParseAddr("127.0.0.1")) {
		t.Error("not counted as a failed login")
	}
}

// TestSASLLongLines: tokens and challenges are longer than commands, and reach their side in a form that it
// takes.
func TestSASLLongLines(t *testing.T) {
	t.Parallel()
	got := make(chan string, 9)
	challenge := base64.StdEncoding.EncodeToString(make([]byte, 9000))
	r := start(t, backendAt(t, func(p *peer) {
		p.send("+OK\r\n")
		line := p.line()
		if len(line) > 253 {
			t.Errorf("a command of %d bytes", len(line))
		}
		if line == "AUTH XOAUTH2" {
			p.send("+ \r\n")
			line += " " + p.line()
		}
		got <- line
		p.send("+ " + challenge + "\r\n")
		got <- p.line()
		p.send("+ this is no base64\x07!\r\n")
		got <- p.line()
		p.send("+OK in\r\n")
		p.line()
	}), "--sasl", "XOAUTH2")
	for _, size := range []int{10, 100, 171, 172, 173, 174, 180, 500, 2000, 8000, 9000} {
		token := base64.StdEncoding.EncodeToString([]byte("user=bob\x01auth=Bearer " + strings.Repeat("x", size)))
		p := r.client(t)
		p.send("AUTH XOAUTH2 " + token + "\r\n")
		if line := p.line(); line != "+ "+challenge {
			t.Fatalf("token of %d bytes: challenge of %d bytes: %.60q", len(token), len(line), line)
		}
		p.ask(token, "+ this is no base64?!")
		p.ask("", "+OK in")
		for i, want := range []string{"AUTH XOAUTH2 " + token, token, ""} {
			if line := testenv.Receive(t, "what the server gets", got); line != want {
				t.Errorf("token of %d bytes, line %d: the server got %.60q", len(token), i, line)
			}
		}
		if line := strings.Fields(r.stampLine(t)); len(line) != 4 || line[2] != "bob" {
			t.Errorf("stamp %q", line)
		}
	}
	p := r.client(t)
	p.ask("AUTH XOAUTH2 "+strings.Repeat("x", 20000), "-ERR line too long")
	p.ask("NOOP "+strings.Repeat("x", 1000), "-ERR line too long")
	p.ask("USER "+strings.Repeat("x", 505), "+OK")
	p.ask("USER "+strings.Repeat("x", 506), "-ERR line too long")
}

func TestAPOP(t *testing.T) {
	t.Parallel()
	const digest = "c4c9334bac560ecc979e58001b3e22fb"
	r := start(t, backendAt(t, func(p *peer) {
		p.send("+OK hi <1896.697170952@dbc.mtview.ca.us>\r\n")
		if p.line() == "APOP bob "+digest {
			p.send("+OK in\r\n")
			p.line()
			return
		}
		p.send("-ERR no\r\n")
	}), "--apop=yes")
	c := testenv.Dial(t, "tcp", r.addr)
	p := newPeer(t, c)
	p.want("+OK pop.test POP3 ready <1896.697170952@dbc.mtview.ca.us>")
	p.ask("APOP bob x", "-ERR syntax")
	p.ask("APOP bob "+digest, "+OK in")
	if got := strings.Fields(r.stampLine(t)); len(got) != 4 || got[2] != "bob" {
		t.Errorf("stamp %q", got)
	}
	off := start(t, backendAt(t, mailbox("")))
	off.client(t).ask("APOP bob "+digest, "-ERR APOP is not available")
}

// TestSecrets looks for passwords in everything that is written down.
// POP-10.
func TestSecrets(t *testing.T) {
	t.Parallel()
	stats := t.TempDir()
	r := start(t, backendAt(t, mailbox("")), "--statdir", stats, "--sasl", "PLAIN", "--max-login-tries", "9", "--max-errors", "99")
	p := r.client(t)
	const secret = "hunter2"
	p.ask("USER bob", "+OK")
	p.ask("PASS "+secret, "-ERR")
	p.ask("PASS "+secret, "-ERR USER first")
	p.ask("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00bob\x00"+secret)), "-ERR")
	p.ask("USER bob", "+OK")
	p.ask(secret, "-ERR unknown")
	p.ask("USER bob", "+OK")
	p.ask("PASS "+secret, "-ERR [AUTH]")
	p.ask(secret, "-ERR unknown")
	p.ask("AUTH LOGIN", "-ERR [AUTH]") // not available, but some clients do not wait to hear that
	p.ask(base64.StdEncoding.EncodeToString([]byte("\x00bob\x00"+secret)), "-ERR unknown")
	p.ask("USER bob", "+OK")
	p.ask("PASS secret word", "+OK")
	list, err := os.ReadDir(stats)
	if err != nil || len(list) != 1 {
		t.Fatalf("status files %v, %v", list, err)
	}
	p.ask("RETR 1", "+OK")
	stat, err := os.ReadFile(filepath.Join(stats, list[0].Name()))
	if err != nil || !strings.HasSuffix(string(stat), " bob RETR 1\n") || !strings.HasPrefix(string(stat), "pop3-stamp pop3-stamp ") {
		t.Errorf("status file %q, %v", stat, err)
	}
	for what, text := range map[string]string{"log": r.log.String(), "status file": string(stat), "stamp": r.stampLine(t)} {
		for _, s := range []string{secret, "secret word", base64.StdEncoding.EncodeToString([]byte("\x00bob\x00" + secret))} {
			if strings.Contains(text, s) {
				t.Errorf("%s in the %s:\n%s", s, what, text)
			}
		}
	}
}

// POP-02.
func TestHostileUser(t *testing.T) {
	t.Parallel()
	r := start(t, backendAt(t, func(p *peer) {
		p.send("+OK\r\n")
		for range 2 {
			p.line()
			p.send("+OK\r\n")
		}
		p.line()
	}))
	p := r.client(t)
	p.ask("USER ../../etc/passwd %0a\xff", "+OK")
	p.ask("PASS x", "+OK")
	list, err := os.ReadDir(r.stamp)
	if err != nil || len(list) != 1 || list[0].Name() != "127.0.0.1" {
		t.Errorf("files %v, %v", list, err)
	}
	if got := strings.Fields(r.stampLine(t)); len(got) != 4 || got[2] != "../../etc/passwd%20%250a%FF" {
		t.Errorf("stamp %q", got)
	}
}

func TestHostileReply(t *testing.T) {
	t.Parallel()
	r := start(t, backendAt(t, func(p *peer) {
		p.send("+OK\r\n")
		for _, reply := range []string{"+OK\r\n", "+OK in\x1b[2J\x00\r.\r\n", "+OK abc def\r\n"} {
			p.line()
			p.send(reply)
		}
	}))
	p := r.client(t)
	p.ask("USER bob", "+OK")
	if got := p.ask("PASS x", "+OK"); got != "+OK in?[2J???." && got != "+OK in?[2J??." {
		t.Errorf("reply %q", got)
	}
	p.ask("STAT", "-ERR [SYS/TEMP]")
	p.ended()
}

func TestDrain(t *testing.T) {
	t.Parallel()
	url := backendAt(t, mailbox(""))
	var p *peer
	outer := t
	t.Run("serve", func(t *testing.T) {
		r := start(t, url)
		p = newPeer(t, testenv.Dial(outer, "tcp", r.addr))
		p.want("+OK")
		// The cleanup of this sub-test ends the server while the client waits.
	})
	p.t = t
	p.want("-ERR [SYS/TEMP] server is shutting down")
	p.ended()
}

func TestCapa(t *testing.T) {
	t.Parallel()
	r := start(t, backendAt(t, mailbox("")), "--sasl", "PLAIN", "--sasl", "LOGIN")
	p := r.client(t)
	p.ask("CAPA x", "-ERR")
	p.ask("CAPA", "+OK")
	var got []string
	for line := p.line(); line != "." && line != ""; line = p.line() {
		got = append(got, line)
	}
	if want := "RESP-CODES,AUTH-RESP-CODE,PIPELINING,TOP,UIDL,USER,SASL PLAIN LOGIN"; strings.Join(got, ",") != want {
		t.Errorf("capabilities %q, want %q", got, want)
	}
}

func FuzzEnding(f *testing.F) {
	f.Add([]byte("a\r\n.\r\nb"), uint8(2))
	f.Add([]byte(".\r\n"), uint8(1))
	f.Add([]byte("\r\r\n.\r\r\n.\r\n"), uint8(3))
	f.Fuzz(func(t *testing.T, data []byte, size uint8) {
		want, wantDone := len(data), false
		if i := bytes.Index(append([]byte("\r\n"), data...), terminator); i >= 0 {
			want, wantDone = i+len(terminator)-2, true
		}
		e := newEnding()
		got, done := 0, false
		held := 0
		for rest := data; len(rest) > held && !done; {
			piece := rest[:min(len(rest), held+int(size)+1)]
			var n int
			n, done = e.find(piece)
			e.passed(piece[:n])
			got += n
			rest = rest[n:]
			held = len(piece) - n
			if !done && held > len(looseEnds[0]) {
				t.Fatalf("%q in pieces of %d: %q is held", data, int(size)+1, piece[n:])
			}
		}
		if !done {
			got += held
		}
		if got != want || done != wantDone {
			t.Errorf("%q in pieces of %d: %d %v, want %d %v", data, int(size)+1, got, done, want, wantDone)
		}
	})
}

func FuzzCommand(f *testing.F) {
	for _, s := range []string{"RETR 1", "TOP 1 2", "LIST", "RETR 1 2", "retr 99999999999", "STAT\x00", "DELE 01"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if hasControl(line) {
			return
		}
		c := parseCommand(line)
		h, ok := shapes[c.verb]
		if !ok {
			return
		}
		text, _, ok := h.canonical(c)
		if !ok {
			return
		}
		if len(text) > 30 || strings.Trim(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ") != "" {
			t.Errorf("%q is passed on as %q", line, text)
		}
	})
}

func BenchmarkRetrieve(b *testing.B) {
	message := strings.Repeat(strings.Repeat("x", 74)+"\r\n", 1<<20/76)
	r := start(b, backendAt(b, mailbox(message)))
	p := r.login(b)
	_ = p.SetDeadline(time.Time{})
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	for b.Loop() {
		p.ask("RETR 1", "+OK")
		if _, err := io.CopyN(io.Discard, p.r, int64(len(message)+3)); err != nil {
			b.Fatal(err)
		}
	}
}

func TestNoteUser(t *testing.T) {
	t.Parallel()
	tests := []struct {
		mechanism, responses string // separated by |
		want                 string
	}{
		{"PLAIN", "admin\x00bob\x00secret", "bob"}, {"PLAIN", "bob", "-"}, {"PLAIN", "", "-"},
		{"LOGIN", "bob", "bob"}, {"LOGIN", "bob|secret", "bob"}, {"LOGIN", "|secret", "-"},
		{"CRAM-MD5", "bob smith 0123456789abcdef", "bob smith"}, {"CRAM-MD5", "bob", "-"},
		{"SCRAM-SHA-256", "n,,n=bob,r=abc|c=biws,r=abc,n=eve", "bob"}, {"SCRAM-SHA-256", "|c=biws,r=abc,n=eve", "-"},
		{"XOAUTH2", "user=bob\x01auth=Bearer x\x01\x01", "bob"}, {"OAUTHBEARER", "n,a=bob@x,\x01host=y\x01", "bob@x"},
	}
	for _, tt := range tests {
		x := &exchange{session: &session{conf: &settings{}, user: "-"}, mechanism: tt.mechanism}
		for response := range strings.SplitSeq(tt.responses, "|") {
			x.note(base64.StdEncoding.EncodeToString([]byte(response)))
		}
		if x.user != tt.want {
			t.Errorf("%s %q: user %q, want %q", tt.mechanism, tt.responses, x.user, tt.want)
		}
	}
}
