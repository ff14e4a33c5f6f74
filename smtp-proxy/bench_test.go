package main

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// plainServer accepts everything, at little cost.
func plainServer(b *testing.B) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go servePlainly(nc)
		}
	}()
	return l.Addr().String()
}

func servePlainly(nc net.Conn) {
	defer nc.Close()
	r := bufio.NewReaderSize(nc, 64<<10)
	w := bufio.NewWriter(nc)
	say := func(text string) {
		w.WriteString(text)
		if r.Buffered() == 0 {
			w.Flush()
		}
	}
	say("220 x\r\n")
	content := false
	for {
		line, err := r.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull {
			return
		}
		switch {
		case content:
			if content = string(line) != ".\r\n"; !content {
				say("250 Ok\r\n")
			}
		case line[0] == 'E':
			say("250-x\r\n250-PIPELINING\r\n250 SIZE\r\n")
		case line[0] == 'D':
			content = true
			say("354 Go\r\n")
		default:
			say("250 Ok\r\n")
		}
	}
}

// BenchmarkSession sends one message a session, as most clients do. A few allocations are those of client and next hop.
func BenchmarkSession(b *testing.B) {
	p := startProxyWith(b, listenSMTP, func(*testenv.Buffer) slog.Handler { return slog.NewTextHandler(io.Discard, nil) },
		"--upstream=smtp://"+plainServer(b))
	content := "Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 62)+"\r\n", 16) + ".\r\n"
	steps := []string{"", "EHLO client.example\r\n", "MAIL FROM:<a@b.example>\r\n", "RCPT TO:<c@d.example>\r\n", "DATA\r\n",
		content, "QUIT\r\n"}
	answer := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		c, err := testenv.Connect("tcp", p.addr)
		if err != nil {
			b.Fatal(err)
		}
		for _, step := range steps {
			io.WriteString(c, step)
			if n, err := c.Read(answer); err != nil || answer[0] > '3' {
				b.Fatalf("%q: %q, %v", step, answer[:n], err)
			}
		}
		c.Close()
	}
}

// BenchmarkMessages sends messages over one session.
func BenchmarkMessages(b *testing.B) {
	for _, size := range []int{1 << 10, 10 << 10, 1 << 20} {
		for _, pipelined := range []bool{false, true} {
			b.Run(fmt.Sprintf("%d bytes, pipelined %v", size, pipelined), func(b *testing.B) {
				p := startProxy(b, "--upstream=smtp://"+plainServer(b), "--max-transactions=0")
				p.server.log, p.server.debug = quietLog(), false
				c := greeted(b, p.addr)
				content := "Subject: x\r\nFrom: a\r\nTo: b\r\n\r\n" + strings.Repeat(strings.Repeat("x", 62)+"\r\n", size/64) + ".\r\n"
				envelope := []string{"MAIL FROM:<a@b.example>\r\n", "RCPT TO:<c@d.example>\r\n", "DATA\r\n"}
				b.ReportAllocs()
				b.SetBytes(int64(len(content)))
				for b.Loop() {
					if pipelined {
						c.send(strings.Join(envelope, ""))
					}
					for i, line := range envelope {
						if !pipelined {
							c.send(line)
						}
						c.expect([]string{"250", "250", "354"}[i])
					}
					c.send(content)
					c.expect("250")
				}
			})
		}
	}
}
