package main

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"postern/internal/testenv"
)

// pieces are what random content is made of.
var pieces = []string{"\r", "\n", ".", "\x00", "a", "\r\n", "\r\n.", "\r\n.\r\n", "MAIL FROM:<x@y>\r\n", "RCPT TO:<x@y>\r\n", "DATA\r\n", "BDAT 5 LAST\r\n"}

// TestInvariants sends random bytes as content, cut into random segments, and compares what the client was
// told with what the strict next hop received: INV-01, INV-02, INV-03, INV-04.
func TestInvariants(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	proxies := []*proxy{startProxy(t, behind(b), "--max-errors=1000"), startProxy(t, behind(b), "--max-errors=1000", "--bare-newline=reject")}
	rounds := 400
	if testing.Short() {
		rounds = 50
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	for range rounds {
		var content strings.Builder
		for range random.IntN(30) {
			content.WriteString(pieces[random.IntN(len(pieces))])
		}
		checkInvariants(t, b, proxies[random.IntN(2)], random, content.String())
		if t.Failed() {
			t.Fatalf("content was %q", content.String())
		}
	}
}

func checkInvariants(t *testing.T, b *testenv.Backend, p *proxy, random *rand.Rand, content string) {
	t.Helper()
	messages, commands := len(b.Messages()), len(b.Commands())
	c := greeted(t, p.addr)
	c.envelope()
	c.cmd("DATA", "354")
	replies := make(chan []byte, 1)
	go func() {
		all, _ := io.ReadAll(c.r) // the other side may reset the connection once it has said all
		replies <- all
	}()
	rest := content + "\r\n.\r\n"
	for rest != "" {
		n := 1 + random.IntN(len(rest))
		if random.IntN(3) == 0 {
			n = 1
		}
		if _, err := io.WriteString(c, rest[:n]); err != nil {
			break
		}
		rest = rest[n:]
	}
	_ = c.Conn.(*net.TCPConn).CloseWrite()
	text := string(testenv.Receive(t, "the end of the session", replies))
	mails, rcpts, acknowledged := 1, 1, 0 // those of the envelope were answered by 250
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "250 2.1.0"):
			mails++
		case strings.HasPrefix(line, "250 2.1.5"):
			rcpts++
		case strings.HasPrefix(line, "250 2.0.0 Ok: queued"):
			acknowledged++
		}
	}
	arrived := b.Messages()[messages:]
	if len(arrived) != acknowledged {
		t.Errorf("%d messages were acknowledged, %d arrived; replies %q", acknowledged, len(arrived), text)
	}
	for _, command := range b.Commands()[commands:] {
		switch {
		case strings.HasPrefix(command, "MAIL"):
			mails--
		case strings.HasPrefix(command, "RCPT"):
			rcpts--
		}
	}
	if mails < 0 || rcpts < 0 {
		t.Errorf("%d MAIL and %d RCPT went to the server that were not answered by 2xx; replies %q", -mails, -rcpts, text)
	}
	for _, m := range arrived {
		if n := strings.Count("\r\n"+m.Wire, "\r\n.\r\n"); n != 1 || !strings.HasSuffix("\r\n"+m.Wire, "\r\n.\r\n") {
			t.Errorf("%d ends of data in %q", n, m.Wire)
		}
	}
	if len(arrived) > 0 {
		first, ok := decodeStrictly(content + "\r\n.\r\n")
		if got := body(t, arrived[0]); ok && strings.TrimPrefix(got, "\r\n") != strings.TrimPrefix(first, "\r\n") {
			t.Errorf("arrived as\n%q, want\n%q", got, first)
		}
	}
}

// decodeStrictly is another decoder, byte by byte, by the letter of RFC 5321, 4.5.2: for content with CR and
// LF only as CR LF. ok is false for other content.
func decodeStrictly(wire string) (content string, ok bool) {
	var out bytes.Buffer
	for wire != "" {
		line, rest, found := strings.Cut(wire, "\r\n")
		if !found || strings.ContainsAny(line, "\r\n\x00") {
			return "", false
		}
		if line == "." {
			return out.String(), true
		}
		out.WriteString(strings.TrimPrefix(line, ".") + "\r\n")
		if strings.HasPrefix(line, ".") && !strings.HasPrefix(line, "..") {
			return "", false // an unstuffed dot: kept here, dropped by the letter
		}
		wire = rest
	}
	return "", false
}
