package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

const gib = 1 << 30

// largeGrowth is what the peak of memory may grow after the first GiB of a
// message: nothing but what a scheduler or collector does at another time.
const largeGrowth = 4 << 20

// large sends one message of 10 GiB through, with a client and a server of our
// own, as smtp-source makes its message in memory.
func (b *bench) large() error {
	total := pick(b.quick, 2, 10) * gib
	sink, err := startHugeSink()
	if err != nil {
		return err
	}
	defer sink.l.Close()
	fmt.Printf("\nOne message of %d GiB: peak of resident memory, before it, after the first GiB, and in all\n\n%-10s %8s %9s %8s %8s %8s\n",
		total/gib, "row", "MiB/s", "CPU s", "before", "1 GiB", "all MiB")
	for _, name := range []string{"haproxy", "ours"} {
		p, err := b.startProxy(name, sink.port)
		if err != nil {
			return err
		}
		if p == nil {
			continue
		}
		if err := b.largeThrough(p, sink, total); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		b.children.end(p.pid)
	}
	return nil
}

func (b *bench) largeThrough(p *proxy, sink *hugeSink, total int) error {
	if err := visit(p.port); err != nil {
		return err
	}
	before := memory(p.pid)
	if err := resetPeak(p.pid); err != nil {
		return err
	}
	used, begin := treeCPU(p.pid), time.Now()
	first := 0
	sent, err := sendHuge(p.port, total, func(sent int) {
		if sent >= gib && first == 0 {
			first = peak(p.pid)
		}
	})
	if err != nil {
		return err
	}
	took, whole := time.Since(begin), peak(p.pid)
	got := <-sink.messages
	fmt.Printf("%-10s %8.0f %9.1f %8.1f %8.1f %8.1f\n", p.name, float64(sent)/(1<<20)/took.Seconds(), (treeCPU(p.pid) - used).Seconds(), mib(before), mib(first), mib(whole))
	// Our proxy adds a Received field.
	if got < sent || got > sent+1000 {
		return fmt.Errorf("sent %d bytes, the server got %d", sent, got)
	}
	if p.name == "ours" {
		b.goals.add(whole-first <= largeGrowth, fmt.Sprintf("memory for one message of %d GiB", total/gib), "constant after the first GiB",
			"peak %.1f MiB, grown by %.1f", mib(whole), mib(whole-first))
	}
	return nil
}

// sendHuge sends a message of a size that is made up on the way, and tells how
// far it is.
func sendHuge(port, size int, progress func(sent int)) (sent int, err error) {
	c, _, err := greet(port)
	if err != nil {
		return 0, err
	}
	defer c.conn.Close()
	for _, step := range []struct{ code, command string }{
		{"250", "EHLO client.example.org"}, {"250", "MAIL FROM:<ann@example.org>"}, {"250", "RCPT TO:<bob@example.net>"}, {"354", "DATA"},
	} {
		if err := c.must(step.code, step.command); err != nil {
			return 0, err
		}
	}
	block := bytes.Repeat([]byte(strings.Repeat("x", 74)+"\r\n"), 3000)
	header := "Subject: large\r\n\r\n"
	if _, err := io.WriteString(c.conn, header); err != nil {
		return 0, err
	}
	for sent = len(header); sent < size; {
		n, err := c.conn.Write(block)
		sent += n
		if err != nil {
			return sent, err
		}
		progress(sent)
	}
	if err := c.must("250", "."); err != nil {
		return sent, err
	}
	return sent, c.quit()
}

// A hugeSink is a server that takes messages and counts their bytes. Within a
// message no line may begin with a dot.
type hugeSink struct {
	l        net.Listener
	port     int
	messages chan int // bytes of each message, without the dot at its end
}

func startHugeSink() (*hugeSink, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &hugeSink{l: l, port: l.Addr().(*net.TCPAddr).Port, messages: make(chan int, 16)}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(conn)
		}
	}()
	return s, nil
}

func (s *hugeSink) serve(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReaderSize(conn, 512<<10)
	io.WriteString(conn, "220 sink.example.net ESMTP\r\n")
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		verb, _, _ := strings.Cut(strings.ToUpper(strings.TrimSpace(line)), " ")
		switch verb {
		case "EHLO":
			io.WriteString(conn, "250-sink.example.net\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
		case "DATA":
			io.WriteString(conn, "354 go on\r\n")
			n, err := countContent(r)
			if err != nil {
				return
			}
			s.messages <- n
			io.WriteString(conn, "250 taken\r\n")
		case "QUIT":
			io.WriteString(conn, "221 bye\r\n")
			return
		default:
			io.WriteString(conn, "250 ok\r\n")
		}
	}
}

// countContent reads to the end of a message and gives its length without the
// dot. Nothing comes after the dot, as its reply is waited for.
func countContent(r io.Reader) (n int, err error) {
	const end = "\r\n.\r\n"
	buf := make([]byte, 512<<10)
	tail := make([]byte, 0, 2*len(end))
	for string(tail) != end {
		got, err := r.Read(buf)
		n += got
		tail = append(tail, buf[max(0, got-len(end)):got]...)
		tail = tail[max(0, len(tail)-len(end)):]
		if err != nil && string(tail) != end {
			return n, err
		}
	}
	return n - len(".\r\n"), nil
}
