package main

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"

	"postern/internal/testenv"
)

func TestLastCount(t *testing.T) {
	for _, c := range []struct {
		text string
		want int
	}{
		{"", 0},
		{"1\r2\r3\r", 3},
		{"8\r9\r10\r11\r\n", 11},
		{"98\r99\r10", 99}, // 100, cut short
	} {
		if got := lastCount(c.text); got != c.want {
			t.Errorf("lastCount(%q) = %d, want %d", c.text, got, c.want)
		}
	}
}

func TestCountContent(t *testing.T) {
	const content = "Subject: x\r\n\r\nline\r\n"
	for _, c := range []struct {
		name string
		r    io.Reader
	}{
		{"at once", strings.NewReader(content + ".\r\n")},
		{"byte by byte", iotest.OneByteReader(strings.NewReader(content + ".\r\n"))},
		{"with the end in the last read", iotest.DataErrReader(strings.NewReader(content + ".\r\n"))},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := countContent(c.r)
			if got != len(content) || err != nil {
				t.Errorf("got %d, %v, want %d", got, err, len(content))
			}
		})
	}
	if n, err := countContent(strings.NewReader(content)); err == nil {
		t.Errorf("without an end it counts %d and sees no error", n)
	}
}

// TestHugeMessageIsCounted sends a message from our client to our server.
func TestHugeMessageIsCounted(t *testing.T) {
	sink, err := startHugeSink()
	if err != nil {
		t.Fatal(err)
	}
	defer sink.l.Close()
	const size = 3 << 20
	last := 0
	sent, err := sendHuge(sink.port, size, func(sent int) { last = sent })
	if err != nil {
		t.Fatal(err)
	}
	if got := testenv.Receive(t, "the message", sink.messages); got != sent || sent < size || last != sent {
		t.Errorf("sent %d of at least %d bytes, told of %d, the server counted %d", sent, size, last, got)
	}
}

func TestClientReadsTheLastLineOfAReply(t *testing.T) {
	ours, _ := net.Pipe()
	defer ours.Close()
	c := &client{conn: ours, r: bufio.NewReader(strings.NewReader("250-one\r\n250-two\r\n250 three\r\n421 go\r\n"))}
	for _, want := range []string{"250 three", "421 go"} {
		if got, err := c.reply(); got != want || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	if got, err := c.reply(); err == nil {
		t.Errorf("at the end: %q", got)
	}
}
