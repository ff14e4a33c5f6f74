package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"postern/internal/testenv"
)

// deafConn is a connection whose other side says what it has to say, whatever it hears.
type deafConn struct {
	net.Conn
	said *bytes.Reader
}

func (c deafConn) Read(p []byte) (int, error)       { return c.said.Read(p) }
func (c deafConn) SetReadDeadline(time.Time) error  { return nil }
func (c deafConn) SetWriteDeadline(time.Time) error { return nil }

// FuzzReply has the upstream server say anything: what clients are given of it is one line of printable text,
// and no line but one that begins with +OK is a success.
func FuzzReply(f *testing.F) {
	for _, said := range []string{"+OK ready <1896.697170952@dbc.mtview.ca.us>\r\n", "-ERR [AUTH] no\r\n", "+ YWJj\r\n", "+OK\n+OK\n", "+OK \x00\x1b[2J\r\n", "+OKAY\r\n", "\r\n", ""} {
		f.Add([]byte(said))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		b := &backend{conn: deafConn{said: bytes.NewReader(said)}, timeout: time.Second}
		b.r = bufio.NewReaderSize(b.conn, 16<<10)
		a, err := b.reply()
		if err != nil {
			return
		}
		status, _, _ := strings.Cut(strings.TrimRight(string(said[:bytes.IndexByte(said, '\n')]), "\r"), " ")
		if a.ok != (status == "+OK") || a.more != (status == "+") || !a.ok && !a.more && status != "-ERR" {
			t.Errorf("%q is %+v", said, a)
		}
		for _, text := range []string{a.text, timestamp(a.text)} {
			if !a.more && (hasControl(text) || len(text) > 512) {
				t.Errorf("%q gives %q", said, text)
			}
		}
	})
}

// step separates, in the input of FuzzSession, what the upstream server says after each line it hears.
const step = '|'

// FuzzSession has a client and an upstream server both say anything. The session ends; the server hears nothing
// but commands in their right form; nobody gets a stamp without the server's consent to a password; and
// everything is given back.
func FuzzSession(f *testing.F) {
	for _, seed := range [][2]string{
		{"USER bob\r\nPASS x\r\nSTAT\r\nRETR 1\r\nQUIT\r\n", "+OK hi\r\n|+OK\r\n|+OK\r\n|+OK 1 2\r\n|+OK\r\na\r\n.\r\n|+OK\r\n"},
		{"AUTH PLAIN AGJvYgB4\r\nLIST\r\nQUIT\r\n", "+OK\r\n|+OK\r\n|+OK\r\n1 2\n.\r\n"},
		{"AUTH LOGIN\r\nYm9i\r\neA==\r\nTOP 1 0\r\nNOOP\r\n", "+OK\r\n|+ Ym9i\r\n|+ x!\r\n|-ERR [AUTH] no\r\n"},
		{"USER a\r\nAUTH PLAIN\r\n*\r\nPASS x\r\nCAPA\r\nUIDL\r\n", "+OK\r\n|+ \r\n|-ERR maildrop already locked\r\n"},
		{"CAPA\r\nUTF8\r\nLANG\r\nLANG en\r\nUSER a@b\r\nPASS b\r\nQUIT\r\n", "+OK\r\n|+OK\r\nTOP\r\n.\r\n|+OK\r\n|+OK\r\nen x\r\n.\r\n|+OK en\r\n|+OK\r\n|+OK\r\n|+OK\r\n"},
		{"USER a\nPASS b\nRETR 1\nRETR 2\n", "+OK\n|+OK\n|+OK\n|+OK\n.\n|+OK\n\n.\r\n"},
	} {
		f.Add(seed[0], seed[1])
	}
	var said atomic.Value // of the upstream server
	var heard atomic.Value
	url := backendAt(f, func(p *peer) {
		text, _ := said.Load().(string)
		var lines []string
		defer func() { heard.Store(lines) }()
		for piece := range strings.SplitSeq(text, string(step)) {
			if p.send(piece); !strings.HasSuffix(piece, "\n") {
				return // the rest of such a line never comes
			}
			line, err := p.r.ReadString('\n')
			if err != nil {
				return
			}
			lines = append(lines, line)
		}
	})
	r := start(f, url, "--upstream-timeout", "200ms", "--login-timeout", "1h", "--idle-timeout", "1h", "--max-login-failures", "0", "--log-level", "error",
		"--sasl", "PLAIN", "--sasl", "LOGIN", "--max-sessions-per-address", "0")
	f.Fuzz(func(t *testing.T, client, server string) {
		said.Store(server)
		heard.Store([]string(nil))
		r.revoke(t.Context(), netip.MustParseAddr("127.0.0.1"))
		r.log.Reset()
		c := testenv.Dial(t, "tcp", r.addr)
		go func() {
			_, _ = io.WriteString(c, client)
			_ = c.(*net.TCPConn).CloseWrite()
		}()
		answer, err := io.ReadAll(c)
		if err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the session does not end: %v", err)
		}
		if !bytes.HasPrefix(answer, []byte("+OK pop.test POP3 ready\r\n")) {
			t.Errorf("greeting %.60q", answer)
		}
		testenv.Eventually(t, "the end of the session", func() bool { return r.limits.count() == 0 })
		checkHeard(t, heard.Load().([]string))
		if r.stampLine(t) != "" && strings.Count("|"+server, "|+OK") < 2 {
			t.Errorf("a stamp although the server said %q", server)
		}
	})
}

// passedOn are the lines that an upstream server may hear from a client of any kind.
var passedOn = regexp.MustCompile(`^(USER [^\x00-\x1f\x7f]+|PASS [^\x00-\x1f\x7f]+|AUTH (PLAIN|LOGIN)( [A-Za-z0-9+/=]+)?|[A-Za-z0-9+/=]*|\*|QUIT|CAPA|UTF8|LANG( [A-Za-z0-9-]+| \*)?|STAT|LAST|NOOP|RSET|((LIST|UIDL)( \d+)?)|(DELE|RETR) \d+|TOP \d+ \d+)\r\n$`)

func checkHeard(t *testing.T, lines []string) {
	exchange := false
	for _, line := range lines {
		if !passedOn.MatchString(line) {
			t.Errorf("the server heard %q", line)
		}
		words := strings.Fields(line)
		response := len(words) == 0 || line == "*\r\n" || shapes[words[0]].args == nil && len(words) == 1 &&
			!slices.Contains([]string{"QUIT", "CAPA", "UTF8", "LANG"}, words[0])
		if response && !exchange {
			t.Errorf("the server heard %q, which answers nothing, in %q", line, lines)
		}
		exchange = exchange && response || strings.HasPrefix(line, "AUTH ")
	}
}

// TestIndexTerminator: the end is found where it is, with few dots before it and with many.
func TestIndexTerminator(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		p := make([]byte, random.IntN(200))
		for i := range p {
			p[i] = "\r\n.xxxx"[random.IntN(7)]
		}
		if n := random.IntN(len(p) + 1); n%2 == 0 {
			p = slices.Concat(p[:n], terminator, p[n:])
		}
		if got, want := indexTerminator(p), bytes.Index(p, terminator); got != want {
			t.Fatalf("%d in %q, want %d", got, p, want)
		}
	}
}
