package upstream

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
)

// sink is a server that does little: it makes the cost of this side show.
func sink(b *testing.B) string {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go sinkConn(nc)
		}
	}()
	return "smtp://" + l.Addr().String()
}

func sinkConn(nc net.Conn) {
	defer nc.Close()
	r := bufio.NewReaderSize(nc, 64<<10)
	w := bufio.NewWriter(nc)
	say := func(s string) {
		_, _ = io.WriteString(w, s)
		if r.Buffered() == 0 {
			_ = w.Flush()
		}
	}
	say("220 sink\r\n")
	for {
		line, err := r.ReadSlice('\n')
		switch {
		case err != nil:
			return
		case bytes.HasPrefix(line, []byte("EHLO")):
			say("250-sink\r\n250 PIPELINING\r\n")
		case bytes.HasPrefix(line, []byte("DATA")):
			say("354 go\r\n")
			for {
				line, err := r.ReadSlice('\n')
				if err != nil {
					return
				}
				if string(line) == ".\r\n" {
					break
				}
			}
			say("250 Ok: queued as 1\r\n")
		default:
			say("250 Ok\r\n")
		}
	}
}

func BenchmarkMessage(b *testing.B) {
	for _, bench := range []struct {
		name string
		size int
	}{{"1KiB", 1 << 10}, {"100KiB", 100 << 10}, {"10MiB", 10 << 20}} {
		b.Run(bench.name, func(b *testing.B) {
			set, err := New(Config{URLs: []string{sink(b)}})
			if err != nil {
				b.Fatal(err)
			}
			defer set.Close()
			content := []byte(strings.Repeat(strings.Repeat("x", 76)+"\r\n", bench.size/78))
			b.SetBytes(int64(len(content)))
			b.ReportAllocs()
			for b.Loop() {
				if err := benchMessage(set, content); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func benchMessage(set *Set, content []byte) error {
	c, err := set.Get(context.Background(), Client{})
	if err != nil {
		return err
	}
	defer c.Release()
	for _, line := range envelope {
		c.Command(line)
	}
	for range envelope {
		if _, err := c.Reply(second); err != nil {
			return err
		}
	}
	for rest := content; len(rest) > 0; {
		n := min(len(rest), 64<<10)
		if _, err := c.Content().Write(rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	if err := c.EndContent(); err != nil {
		return err
	}
	_, err = c.Reply(5 * second)
	return err
}
