package test

import (
	"bufio"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"postern/internal/testenv"
)

// startSwallower is a server that takes all mail and keeps none.
func startSwallower(t *testing.T) (address string) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { swallow(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		conns.Wait() // for the proxy to end, which is a cleanup before this one
	})
	return l.Addr().String()
}

func swallow(c net.Conn) {
	defer c.Close()
	r := bufio.NewReaderSize(c, 512)
	content := false
	for answer := "220 server.example\r\n"; ; {
		if _, err := io.WriteString(c, answer); err != nil {
			return
		}
		line, err := r.ReadSlice('\n')
		if err != nil {
			return
		}
		switch {
		case content && string(line) != ".\r\n":
			answer = ""
			continue
		case strings.HasPrefix(string(line), "DATA"):
			content, answer = true, "354 go on\r\n"
			continue
		}
		content, answer = false, "250 Ok\r\n"
	}
}

// TestRES_70_UnfinishedHeaders has many sessions stop within a header of short lines, twice as many as the budget for bytes
// held for clients has room for: it holds, those beyond are told to come again, and as soon as some leave others are served.
func TestRES_70_UnfinishedHeaders(t *testing.T) {
	t.Parallel()
	const (
		each     = 68 << 10 // of the budget, for a message that is passed on
		overhead = 32 << 10 // a session with its connection, as long as it does not only wait
	)
	sessions := testenv.Load(100, 8000) // two descriptors each, here as there
	size := testenv.Load(256<<10, 64<<10)
	budget := sessions / 2 * each
	address, p := startProxyTo(t, "smtp://"+startSwallower(t), "--max-sessions-per-address", "0", "--max-sessions", "0", "--upstream-share", "20000",
		"--upstream-idle", "0", "--data-timeout", "1h", "--command-timeout", "1h", "--max-memory", strconv.Itoa(budget), "--log-level", "error")
	begin := func() (c *smtpClient, reply string) {
		c = dialSMTP(t, address)
		c.say("MAIL FROM:<ann@example.org>\r\n", "250")
		c.say("RCPT TO:<bob@example.net>\r\n", "250")
		return c, c.say("DATA\r\n", "")
	}
	before := resident(t, p.Pid())
	header := "Subject: x\r\n" + strings.Repeat("A: b\r\n", size/6)
	var held []*smtpClient
	for range sessions {
		c, reply := begin()
		switch {
		case strings.HasPrefix(reply, "354"):
			if _, err := c.Write([]byte(header)); err != nil {
				t.Fatal(err)
			}
			held = append(held, c)
		case !strings.HasPrefix(reply, "452"):
			t.Fatalf("session %d: %q, want 354 or 452", len(held), reply)
		}
	}
	if least, most := sessions/4, budget/each; len(held) < least || len(held) > most {
		t.Errorf("%d of %d sessions hold content, want %d to %d", len(held), sessions, least, most)
	}
	// The collector lets as much again be held as is in use.
	if got, limit := statusBytes(t, p.Pid(), "VmHWM")-before, 2*budget+sessions*overhead+32<<20; got > limit {
		t.Errorf("%d sessions took %d bytes, want %d at most", sessions, got, limit)
	} else {
		t.Logf("%d sessions, %d with content, took %d bytes; the budget is %d", sessions, len(held), got, budget)
	}
	for _, c := range held[:len(held)/4] {
		c.Close()
	}
	testenv.Eventually(t, "another to be served", func() bool {
		c, reply := begin()
		defer c.Close()
		if !strings.HasPrefix(reply, "354") {
			return false
		}
		c.say("Subject: y\r\n\r\ntext\r\n.\r\n", "250")
		return true
	})
}
