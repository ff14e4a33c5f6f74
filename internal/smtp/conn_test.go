package smtp

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"postern/internal/testenv"
)

// pair gives the two ends of a TCP connection on loopback.
func pair(t testing.TB) (client net.Conn, server *Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client = testenv.Dial(t, "tcp", l.Addr().String())
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	server = NewConn(nc)
	t.Cleanup(func() { client.Close(); server.Close() })
	if err := testenv.Patient(server); err != nil {
		t.Fatal(err)
	}
	return client, server
}

// pipe is the same without a descriptor.
func pipe(t testing.TB) (client net.Conn, server *Conn) {
	t.Helper()
	client, nc := net.Pipe()
	server = NewConn(nc)
	t.Cleanup(func() { client.Close(); server.Close() })
	if err := testenv.Patient(server); err != nil {
		t.Fatal(err)
	}
	return client, server
}

func both(t *testing.T, test func(t *testing.T, client net.Conn, server *Conn)) {
	t.Run("tcp", func(t *testing.T) {
		c, s := pair(t)
		test(t, c, s)
	})
	t.Run("pipe", func(t *testing.T) {
		c, s := pipe(t)
		test(t, c, s)
	})
}

func TestReadLine(t *testing.T) {
	long := strings.Repeat("x", 9000)
	both(t, func(t *testing.T, client net.Conn, server *Conn) {
		go func() {
			io.WriteString(client, "NOOP\r\nQUIT\n")
			io.WriteString(client, "HE")
			io.WriteString(client, "LP\r\n\r\n")
			io.WriteString(client, long+"\r\nRSET\r\n")
		}()
		for _, want := range []struct {
			text string
			bare bool
		}{{"NOOP", false}, {"QUIT", true}, {"HELP", false}, {"", false}, {long, false}, {"RSET", false}} {
			got, bare, err := server.ReadLine(MaxAuth)
			if err != nil || string(got) != want.text || bare != want.bare {
				t.Fatalf("ReadLine = %.40q, %v, %v; want %.40q, %v", got, bare, err, want.text, want.bare)
			}
		}
	})
}

func TestReadLineTooLong(t *testing.T) {
	both(t, func(t *testing.T, client net.Conn, server *Conn) {
		go func() {
			io.WriteString(client, strings.Repeat("x", 513)+"\r\n")
			io.WriteString(client, strings.Repeat("x", 30000)+"\r\nNOOP\r\n")
		}()
		for range 2 {
			if _, _, err := server.ReadLine(MaxCommand); !errors.Is(err, ErrLineTooLong) {
				t.Fatalf("error is %v, want ErrLineTooLong", err)
			}
		}
		if got, _, err := server.ReadLine(MaxCommand); err != nil || string(got) != "NOOP" {
			t.Fatalf("after long lines: %q, %v; want NOOP", got, err)
		}
	})
}

func TestReadLineEndless(t *testing.T) {
	both(t, func(t *testing.T, client net.Conn, server *Conn) {
		go client.Write(bytes.Repeat([]byte("x"), 1<<20))
		if _, _, err := server.ReadLine(MaxCommand); !errors.Is(err, ErrLineEndless) {
			t.Fatalf("error is %v, want ErrLineEndless", err)
		}
	})
}

func TestReadLineEnd(t *testing.T) {
	both(t, func(t *testing.T, client net.Conn, server *Conn) {
		go func() {
			io.WriteString(client, "NOO")
			client.Close()
		}()
		if _, _, err := server.ReadLine(MaxCommand); !errors.Is(err, io.EOF) {
			t.Errorf("error is %v, want EOF", err)
		}
	})
}

func TestReadLineDeadline(t *testing.T) {
	both(t, func(t *testing.T, client net.Conn, server *Conn) {
		if err := testenv.Impatient(server); err != nil {
			t.Fatal(err)
		}
		if _, _, err := server.ReadLine(MaxCommand); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("error is %v, want deadline exceeded", err)
		}
		if server.buf != nil {
			t.Error("a buffer was held while waiting")
		}
	})
}

func TestWindowBehindLines(t *testing.T) {
	both(t, func(t *testing.T, client net.Conn, server *Conn) {
		content := strings.Repeat("0123456789", 20000)
		go io.WriteString(client, "DATA\r\n"+content+"QUIT\r\n")
		if line, _, err := server.ReadLine(MaxCommand); err != nil || string(line) != "DATA" {
			t.Fatalf("ReadLine = %q, %v", line, err)
		}
		var got strings.Builder
		for got.Len() < len(content) {
			w, err := server.Window()
			if err != nil {
				t.Fatal(err)
			}
			n := min(len(w), len(content)-got.Len())
			got.Write(w[:n])
			server.Discard(n)
		}
		if got.String() != content {
			t.Error("content is not what was sent")
		}
		if line, _, err := server.ReadLine(MaxCommand); err != nil || string(line) != "QUIT" {
			t.Errorf("behind content: %q, %v; want QUIT", line, err)
		}
	})
}

func TestPending(t *testing.T) {
	client, server := pair(t)
	if server.Pending() {
		t.Error("Pending before anything was sent")
	}
	if _, err := io.WriteString(client, "X"); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "Pending to see a byte that was sent", server.Pending)
	if server.Buffered() != 1 {
		t.Errorf("Buffered is %d, want 1", server.Buffered())
	}
}

func TestHasLine(t *testing.T) {
	client, server := pipe(t)
	go io.WriteString(client, "A\r\nB\r\nC")
	if _, _, err := server.ReadLine(MaxCommand); err != nil {
		t.Fatal(err)
	}
	if !server.HasLine() {
		t.Error("HasLine does not see the second line")
	}
	if _, _, err := server.ReadLine(MaxCommand); err != nil {
		t.Fatal(err)
	}
	if server.HasLine() || server.Buffered() != 1 {
		t.Errorf("HasLine sees half a line, or %d bytes are left, want 1", server.Buffered())
	}
	if rest := server.TakeBuffered(); string(rest) != "C" || server.Buffered() != 0 || server.buf != nil {
		t.Errorf("TakeBuffered = %q, %d left", rest, server.Buffered())
	}
}

func TestRepliesGoOutInOneWrite(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	testenv.Patient(client)
	c := NewConn(server)
	defer c.Close()
	c.Reply(NewReply(250, "2.0.0", "Ok"))
	c.Reply(NewReply(354, "", "Go"))
	flush := testenv.Go(t, "the flush", func() error { return c.Flush(time.Now().Add(testenv.Patience)) })
	buf := make([]byte, 1000)
	n, err := client.Read(buf)
	if err != nil || string(buf[:n]) != "250 2.0.0 Ok\r\n354 Go\r\n" {
		t.Errorf("first read gave %q, %v", buf[:n], err)
	}
	if err := flush.Err(); err != nil || c.Unsent() != 0 || c.out != nil {
		t.Errorf("flush: %v, %d bytes left", err, c.Unsent())
	}
}

func BenchmarkReadLine(b *testing.B) {
	client, server := pair(b)
	if err := server.SetDeadline(time.Time{}); err != nil {
		b.Fatal(err)
	}
	go func() {
		lines := bytes.Repeat([]byte("RCPT TO:<somebody@example.com>\r\n"), 100)
		for {
			if _, err := client.Write(lines); err != nil {
				return
			}
		}
	}()
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := server.ReadLine(MaxRcpt); err != nil {
			b.Fatal(err)
		}
	}
}
