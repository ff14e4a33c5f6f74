package main

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/testenv"
	"postern/smtp-proxy/header"
)

// ending is how a server answers the end of data: bytes, in these pieces, and then the end of the connection or not.
type ending struct {
	pieces []string
	hangUp bool
	code   int // of the reply that this is; 0 if it is none
}

// randomEnding makes a reply, and then may spoil it.
func randomEnding(random *rand.Rand) ending {
	e := ending{code: []int{250, 250, 251, 451, 552, 554}[random.IntN(6)]}
	var reply strings.Builder
	codes, spoiled := []int{e.code, 250, 451, 554}, random.IntN(6)
	lines := 1 + random.IntN(4)
	if spoiled == 0 && lines == 1 {
		lines++
	}
	odd := random.IntN(lines)
	for i := range lines {
		code, sep, end := e.code, "-", "\r\n"
		if i == lines-1 {
			sep = " "
		}
		if spoiled == 0 && i == odd { // another code within one reply
			for code == e.code {
				code = codes[random.IntN(len(codes))]
			}
		}
		if spoiled == 1 && i == lines-1 { // no last line
			sep = "-"
		}
		fmt.Fprintf(&reply, "%d%s2.0.0 line %d%s", code, sep, i, end)
	}
	text := reply.String()
	switch spoiled {
	case 0:
		e.code = 0
	case 1:
		e.code, e.hangUp = 0, true
	case 2: // cut anywhere
		text, e.code, e.hangUp = text[:random.IntN(len(text))], 0, true
	case 3: // no reply at all
		text, e.code = []string{"yes\r\n", "2.0.0 Ok\r\n", "250\x00 Ok\r\n", "25O Ok\r\n", "\r\n", "999 Ok\r\n", "150 Ok\r\n"}[random.IntN(7)], 0
	}
	for text != "" {
		n := 1 + random.IntN(len(text))
		e.pieces, text = append(e.pieces, text[:n]), text[n:]
	}
	return e
}

// serveEnding is an SMTP server that takes everything and answers the end of data as told.
func serveEnding(nc net.Conn, next func() ending) {
	defer nc.Close()
	r := bufio.NewReader(nc)
	fmt.Fprint(nc, "220 x\r\n")
	for content := false; ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		switch {
		case content && line != ".\r\n":
		case content:
			content = false
			e := next()
			for _, piece := range e.pieces {
				io.WriteString(nc, piece)
			}
			if e.hangUp {
				return
			}
		case strings.HasPrefix(line, "EHLO"):
			fmt.Fprint(nc, "250-x\r\n250 PIPELINING\r\n")
		case strings.HasPrefix(line, "DATA"):
			content = true
			fmt.Fprint(nc, "354 x\r\n")
		default:
			fmt.Fprint(nc, "250 Ok\r\n")
		}
	}
}

// TestReplyIsWhole: a client is told 2xx for its message exactly if the server has said 2xx to the last byte of its
// reply: INV-05.
func TestReplyIsWhole(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	endings := make(chan ending, 1)
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go func() { serveEnding(nc, func() ending { return <-endings }) }()
		}
	}()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 5))
	m := startMultiplexor(t, scanWith(t, "HX-A b\nF\n"))
	args := []string{"--upstream=smtp://" + l.Addr().String(), "--max-refusals=1000000", "--max-transactions=0", "--max-errors=1000000"}
	clients := []*dialog{greeted(t, startProxy(t, args...).addr), greeted(t, startProxy(t, m.args(args...)...).addr)}
	seen := make(map[int]int)
	for range 300 {
		e := randomEnding(random)
		endings <- e
		c := clients[random.IntN(len(clients))]
		c.envelope()
		if random.IntN(2) == 0 {
			c.cmd("DATA", "354")
			c.send(smallMessage)
		} else {
			c.send("BDAT 15 LAST\r\nSubject: x\r\n\r\nx")
		}
		r := c.expect("")
		switch want := e.code; {
		case want == 0 && r.Code/100 != 4, want != 0 && r.Code != want:
			t.Fatalf("reply %q to a message that the server answered with %q, end: %v", r, e.pieces, e.hangUp)
		}
		seen[e.code]++
	}
	for _, code := range []int{0, 250, 451, 554} {
		if seen[code] == 0 {
			t.Errorf("no message was answered with %d: %v", code, seen)
		}
	}
}

// hostile makes a text of bytes that one of the parties may take for the end of a line, a field or a command.
func hostile(random *rand.Rand, without string) string {
	parts := []string{"\r", "\n", "\r\n", "\x00", "\x1b[2J", "\x7f", "%0d%0A", "%", "<", ">", " ", "\t", "a", "\xc3\xbc", "\xc2\x9b", "\xff", "\"", "\\", ":",
		"250 ok", "\r\nRCPT TO:<x@y>\r\n", "\nX-B: c\n", "\r\nX-B: c", "\r\n250 ok", strings.Repeat("y", 600)}
	var b strings.Builder
	for range 1 + random.IntN(8) {
		b.WriteString(parts[random.IntN(len(parts))])
	}
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(without, r) {
			return -1
		}
		return r
	}, b.String())
}

// percentAll encodes each byte, as no worker would need to.
func percentAll(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, "%%%02X", s[i])
	}
	return b.String()
}

// strictReply reads a reply and looks at each byte of it.
func strictReply(t *testing.T, c *dialog) (code string) {
	t.Helper()
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			t.Fatalf("reply: %v", err)
		}
		text, ok := strings.CutSuffix(line, "\r\n")
		if !ok || len(line) > 512 || len(text) < 4 || text[3] != ' ' && text[3] != '-' || strings.Trim(text[:3], "0123456789") != "" ||
			strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\t' || 0x7f <= r && r < 0xa0 }) {
			t.Fatalf("line of a reply %q", line)
		}
		if code == "" {
			code = text[:3]
		}
		if code != text[:3] {
			t.Fatalf("line %q of a reply %s", line, code)
		}
		if text[3] == ' ' {
			return code
		}
	}
}

// TestHostileTexts: what client, server and filter say reaches the others only as far as it is one reply, one command,
// one field or one record there: INV-06. The next hop looks at each line that it gets.
func TestHostileTexts(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 6))
	var server, filter atomic.Value // what they say
	b.Answer(func(a testenv.Asked) string {
		if a.Verb == "RCPT" || a.Verb == "." {
			return server.Load().(string)
		}
		return ""
	})
	m := startMultiplexor(t, func(words []string) string { return scanWith(t, filter.Load().(string))(words) })
	p := startProxy(t, m.args(behind(b), "--max-errors=1000000", "--max-refusals=1000000", "--max-transactions=0", "--max-junk=1000000",
		"--address-check=off", "--statdir="+t.TempDir())...)
	for range 150 {
		serverSays, filterSays := "", "F\n"
		switch random.IntN(6) {
		case 0:
			serverSays = []string{"250", "450", "550"}[random.IntN(3)] + " " + hostile(random, "\n")
		case 1:
			filterSays = []string{"B550 5.7.0 ", "T450 4.7.0 "}[random.IntN(2)] + percentAll(hostile(random, "")) + "\nF\n"
		case 2:
			filterSays = "HX-A " + percentAll(hostile(random, "")) + "\nH" + percentAll(hostile(random, "")) + " v\nF\n"
		case 3:
			filterSays = "N" + percentAll(hostile(random, "")) + " 0 " + percentAll(hostile(random, "")) + "\nISubject 1 " + percentAll(hostile(random, "")) + "\nF\n"
		case 4:
			filterSays = []string{"R", "f"}[random.IntN(2)] + percentAll(hostile(random, "")) + "\nF\n"
		}
		server.Store(serverSays)
		filter.Store(filterSays)
		c := dial(t, p.addr)
		strictReply(t, c)
		play := []string{"EHLO " + hostile(random, "\n"), "EHLO a", "MAIL FROM:<" + hostile(random, "\n") + "@b.example> SMTPUTF8", "MAIL FROM:<a@b.example> SMTPUTF8",
			"RCPT TO:<" + hostile(random, "\n") + "@d.example>", "RCPT TO:<c@d.example>", "DATA"}
		code := ""
		for _, line := range play {
			c.send(line + "\r\n")
			if code = strictReply(t, c); code == "554" && line != "DATA" {
				break // no SMTP at all: the connection is closed
			}
		}
		if code == "354" {
			c.send(smallMessage)
			strictReply(t, c)
		}
		c.Close()
	}
	for _, message := range b.Messages() {
		h, _, more := header.Split([]byte(message.Data))
		if h.Count("X-B") > 0 || more {
			t.Errorf("a field of its own in %q", message.Data)
		}
	}
	testenv.Eventually(t, "sessions end", func() bool { return p.sessionCount() == 0 })
	for line := range strings.Lines(p.log.String()) {
		text := strings.TrimSuffix(line, "\n")
		if !strings.HasPrefix(line, "time=") || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || 0x7f <= r && r < 0xa0 }) {
			t.Errorf("record %q", line)
		}
	}
}
