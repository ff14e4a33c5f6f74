package test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"postern/internal/testenv"
)

// streamGiB names the variable with the size of the message that TestStreamsInConstantMemory sends, in GiB; without it
// 64 MiB, and under make soak 1 GiB. make bench sends 10 beside HAProxy, without looking at the bytes.
const streamGiB = "POSTERN_STREAM_GIB"

// streamGrowth is what the largest message may take in memory beyond a small one, in bytes.
const streamGrowth = 4 << 20

// streamBlock is what the messages consist of, decoded; it holds what is easily damaged on the way.
var streamBlock = func() []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < 1<<20; i++ {
		fmt.Fprintf(&b, ".%08d the quick brown fox jumps over the lazy dog, and so on and on\r\n..\r\nx\r\n%s\r\n", i, strings.Repeat("y", i%2000))
	}
	return b.Bytes()
}()

// TestStreamsInConstantMemory sends large messages through the real program, by DATA and by BDAT, to a server that
// compares each byte with what it should be, and looks how much memory the program has ever had: RES-05.
func TestStreamsInConstantMemory(t *testing.T) {
	t.Parallel()
	size := testenv.Load(1<<26, 1<<30)
	if text := os.Getenv(streamGiB); text != "" {
		gib, err := strconv.Atoi(text)
		if err != nil || gib < 1 {
			t.Fatalf("%s=%q is no number", streamGiB, text)
		}
		size = gib << 30
	}
	blocks := size/len(streamBlock) + 1
	sink := startStreamSink(t)
	for _, way := range []string{"DATA", "BDAT"} {
		t.Run(way, func(t *testing.T) {
			address, p := startProxyTo(t, "smtp://"+sink.Addr().String(), "--max-message-size", "0", "--log-level", "error")
			c := dialSMTP(t, address)
			c.SetDeadline(time.Time{}) // as long as it takes: the size is given
			c.stream(way, 100)
			before := peakMemory(t, p.Pid())
			began := time.Now()
			c.stream(way, blocks)
			took := time.Since(began).Seconds()
			after := peakMemory(t, p.Pid())
			t.Logf("%d MiB in %.1f s, %.0f MiB/s; at most %d KiB resident, %d KiB before", blocks*len(streamBlock)>>20, took,
				float64(blocks*len(streamBlock)>>20)/took, after>>10, before>>10)
			if after-before > streamGrowth {
				t.Errorf("memory grew from %d to %d bytes", before, after)
			}
		})
	}
}

// stream sends a message of so many blocks.
func (c *smtpClient) stream(way string, blocks int) {
	c.t.Helper()
	c.say("MAIL FROM:<ann@example.org>\r\n", "250")
	c.say(fmt.Sprintf("RCPT TO:<bob+%d@example.net>\r\n", blocks), "250")
	const header = "Subject: stream\r\n\r\n"
	block, end := streamBlock, ""
	if way == "DATA" {
		c.say("DATA\r\n", "354")
		block, end = []byte(stuffed("\r\n" + string(streamBlock))[2:]), ".\r\n"
		c.write([]byte(header))
	} else {
		c.write(fmt.Appendf(nil, "BDAT %d LAST\r\n%s", len(header)+blocks*len(streamBlock), header))
	}
	for range blocks {
		c.write(block)
	}
	c.say(end, "250")
}

func (c *smtpClient) write(p []byte) {
	c.t.Helper()
	if _, err := c.Write(p); err != nil {
		c.t.Fatal(err)
	}
}

// streamSink is an SMTP server that keeps nothing of a message, but compares it with streamBlock, as often as the name of
// the recipient says.
type streamSink struct {
	net.Listener
	t      *testing.T
	expect []byte
}

func startStreamSink(t *testing.T) *streamSink {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &streamSink{l, t, []byte(stuffed("\r\n" + string(streamBlock))[2:])}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			if err := s.serve(nc); err != nil && !errors.Is(err, io.EOF) {
				t.Errorf("the next hop: %v", err)
			}
			nc.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		testenv.Receive(t, "the end of the next hop", done)
	})
	return s
}

func (s *streamSink) serve(nc net.Conn) error {
	r := bufio.NewReaderSize(nc, 1<<20)
	blocks := 0
	for reply := "220 sink.example ESMTP"; ; {
		if _, err := io.WriteString(nc, reply+"\r\n"); err != nil {
			return err
		}
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		switch verb, _, _ := strings.Cut(strings.TrimSpace(line), " "); verb {
		case "QUIT":
			return nil
		case "EHLO":
			reply = "250-sink.example\r\n250-PIPELINING\r\n250 SIZE"
		case "RCPT":
			if _, err := fmt.Sscanf(line, "RCPT TO:<bob+%d@", &blocks); err != nil {
				return fmt.Errorf("%q: %w", line, err)
			}
			reply = "250 2.1.5 Ok"
		case "DATA":
			if _, err := io.WriteString(nc, "354 Go on\r\n"); err != nil {
				return err
			}
			if err := s.content(r, blocks); err != nil {
				return err
			}
			reply = "250 2.0.0 Ok"
		default:
			reply = "250 2.0.0 Ok"
		}
	}
}

// content reads a message, whose form on the wire must be right to the byte behind its header.
func (s *streamSink) content(r *bufio.Reader, blocks int) error {
	for line := ""; line != "\r\n"; {
		var err error
		if line, err = r.ReadString('\n'); err != nil {
			return err
		}
	}
	got := make([]byte, len(s.expect))
	for n := range blocks {
		if _, err := io.ReadFull(r, got); err != nil {
			return fmt.Errorf("block %d of %d: %w", n, blocks, err)
		}
		if !bytes.Equal(got, s.expect) {
			return fmt.Errorf("block %d of %d is not as it was sent", n, blocks)
		}
	}
	end := make([]byte, 3)
	if _, err := io.ReadFull(r, end); err != nil || string(end) != ".\r\n" || r.Buffered() > 0 {
		return fmt.Errorf("end of data is %q, with %d bytes behind it, %v", end, r.Buffered(), err)
	}
	return nil
}

// peakMemory gives the most memory that a process ever had resident, in bytes.
func peakMemory(t *testing.T, pid int) int { return statusBytes(t, pid, "VmHWM") }
