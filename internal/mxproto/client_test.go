package mxproto

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"postern/internal/testenv"
)

// fake is a multiplexor: answer gives the reply to a request line. With
// persistent it grants hello 2.
type fake struct {
	net.Listener
	persistent bool
	answer     func(line string) string
	conns      atomic.Int32
	wg         sync.WaitGroup
}

func newFake(t *testing.T, persistent bool, answer func(string) string) *fake {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{Listener: l, persistent: persistent, answer: answer}
	f.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			f.conns.Add(1)
			f.wg.Go(func() { f.serve(conn) })
		}
	})
	t.Cleanup(func() { l.Close() })
	return f
}

func (f *fake) serve(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	line, _ := r.ReadString('\n')
	if !f.persistent || line != Hello+"\n" {
		io.WriteString(conn, f.answer(strings.TrimSuffix(line, "\n")))
		return
	}
	io.WriteString(conn, HelloOK)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		reply := f.answer(strings.TrimSuffix(line, "\n"))
		if reply == "close" {
			return
		}
		conn.Write(AppendFrame(nil, []byte(reply)))
	}
}

func (f *fake) dial(ctx context.Context) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", f.Addr().String())
}

func echo(line string) string { return "got " + line + "\n" }

func TestAsk(t *testing.T) {
	tests := []struct {
		name               string
		client, server     bool // persistent
		conns              int32
		unknownHelloAnswer string
	}{
		{name: "classic", conns: 3},
		{name: "persistent", client: true, server: true, conns: 1},
		{name: "persistent client, old multiplexor", client: true, conns: 4}, // one hello, three requests
		{name: "classic client, new multiplexor", server: true, conns: 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t, tt.server, echo)
			c := &Client{Dial: f.dial, Persistent: tt.client}
			defer c.Close()
			for i := range 3 {
				req := fmt.Sprint("ping ", i)
				if got, err := c.Ask(t.Context(), req); err != nil || got != "got "+req+"\n" {
					t.Fatalf("Ask(%q) = %q, %v", req, got, err)
				}
			}
			if n := f.conns.Load(); n != tt.conns {
				t.Errorf("%d connections, want %d", n, tt.conns)
			}
		})
	}
}

// TestAskOurs: a multiplexor that is not ours gets no request that it would hand to a worker.
func TestAskOurs(t *testing.T) {
	ours := newFake(t, true, echo)
	c := &Client{Dial: ours.dial, Persistent: true}
	defer c.Close()
	if got, err := c.AskOurs(t.Context(), "empty x"); err != nil || got != "got empty x\n" {
		t.Errorf("%q, %v", got, err)
	}
	asked := make(chan string, 10)
	theirs := newFake(t, false, func(line string) string { asked <- line; return "error: Unknown command\n" })
	c = &Client{Dial: theirs.dial, Persistent: true}
	defer c.Close()
	for range 2 {
		if got, err := c.AskOurs(t.Context(), "empty x"); !errors.Is(err, ErrClassic) {
			t.Errorf("%q, %v; want ErrClassic", got, err)
		}
	}
	close(asked)
	for line := range asked {
		if line != Hello {
			t.Errorf("asked %q", line)
		}
	}
}

func TestAskAtTheSameTime(t *testing.T) {
	f := newFake(t, true, echo)
	c := &Client{Dial: f.dial, Persistent: true}
	defer c.Close()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 50 {
				req := fmt.Sprintf("r %d %d", i, j)
				if got, err := c.Ask(t.Context(), req); err != nil || got != "got "+req+"\n" {
					t.Errorf("Ask(%q) = %q, %v", req, got, err)
				}
			}
		})
	}
	wg.Wait()
	if n := f.conns.Load(); n > 8 {
		t.Errorf("%d connections for 8 callers", n)
	}
}

func TestAskAfterRestart(t *testing.T) {
	f := newFake(t, true, func(line string) string {
		if line == "last" {
			return "close"
		}
		return echo(line)
	})
	c := &Client{Dial: f.dial, Persistent: true}
	defer c.Close()
	if _, err := c.Ask(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Ask(t.Context(), "last"); !errors.Is(err, ErrNoReply) {
		t.Errorf("connection closed instead of an answer: error %v, want ErrNoReply", err)
	}
	// An idle connection that the other side has closed is not used.
	if _, err := c.Ask(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	idle := c.idle[0]
	c.mu.Unlock()
	idle.Conn.(*net.TCPConn).CloseWrite() // the fake sees end of file and closes
	if b, err := io.ReadAll(idle.Conn); len(b) > 0 || err != nil {
		t.Fatalf("read %q, %v", b, err)
	}
	if got, err := c.Ask(t.Context(), "c"); err != nil || got != "got c\n" {
		t.Errorf("after the idle connection was closed: %q, %v", got, err)
	}
}

func TestAskErrors(t *testing.T) {
	silent := make(chan struct{})
	defer close(silent)
	for _, persistent := range []bool{false, true} {
		t.Run(fmt.Sprint("persistent ", persistent), func(t *testing.T) {
			f := newFake(t, persistent, func(line string) string {
				switch line {
				case "long":
					return strings.Repeat("x", 100)
				case "silent":
					<-silent
				}
				return ""
			})
			c := &Client{Dial: f.dial, Persistent: persistent, MaxReply: 99}
			defer c.Close()
			if _, err := c.Ask(t.Context(), "empty"); !errors.Is(err, ErrNoReply) {
				t.Errorf("empty reply: error %v, want ErrNoReply", err)
			}
			if got, err := c.Ask(t.Context(), "long"); err == nil {
				t.Errorf("reply over the limit was taken: %q", got)
			}
			if _, err := c.Ask(t.Context(), "two\nlines"); err == nil {
				t.Error("request with LF was sent")
			}
			ctx, cancel := testenv.Soon(t.Context())
			defer cancel()
			if _, err := c.Ask(ctx, "silent"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("no answer: error %v, want deadline exceeded", err)
			}
		})
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("3:abc,"))
	f.Add([]byte("99999999999:x,"))
	f.Add([]byte("-1:,"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := readFrame(bufio.NewReader(strings.NewReader(string(b))), 1000)
		if err != nil {
			return
		}
		again, err := readFrame(bufio.NewReader(strings.NewReader(string(AppendFrame(nil, []byte(got))))), 1000)
		if err != nil || again != got {
			t.Errorf("%q read as %q, written and read again %q, %v", b, got, again, err)
		}
	})
}

// TestHelloThatIsNotAnswered: only a worker's answer to hello shows a multiplexor that
// does not know it. From all others the client wants a persistent connection again.
func TestHelloThatIsNotAnswered(t *testing.T) {
	for name, tt := range map[string]struct {
		answer  string // to the first connection
		reply   string // to the request made then; "" = an error
		classic bool
	}{
		"full":                        {TooMany, TooMany, false},
		"not for us":                  {NotAllowed, NotAllowed, false},
		"ending":                      {"", "", false},
		"cut off":                     {HelloOK[:5], "", false},
		"a worker":                    {"error: Unknown command\n", "got a\n", true},
		"a worker without a line end": {"ok", "got a\n", true},
		"no worker of an original":    {"error: No free workers\n", "got a\n", true},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("unix", testenv.ShortDir(t)+"/s")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			var hellos atomic.Int32
			go func() {
				for first := true; ; first = false {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					r := bufio.NewReader(conn)
					line, _ := r.ReadString('\n')
					switch {
					case line != Hello+"\n":
						io.WriteString(conn, echo(strings.TrimSuffix(line, "\n")))
					case first:
						hellos.Add(1)
						io.WriteString(conn, tt.answer)
					default:
						hellos.Add(1)
						io.WriteString(conn, HelloOK)
						line, _ = r.ReadString('\n')
						conn.Write(AppendFrame(nil, []byte(echo(strings.TrimSuffix(line, "\n")))))
					}
					conn.Close()
				}
			}()
			c := &Client{Persistent: true, Dial: func(ctx context.Context) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", l.Addr().String())
			}}
			defer c.Close()
			ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
			defer cancel()
			if got, err := c.Ask(ctx, "a"); got != tt.reply || (err == nil) != (tt.reply != "") {
				t.Errorf("first request: %q, %v, want %q", got, err, tt.reply)
			}
			if got, err := c.Ask(ctx, "b"); got != "got b\n" || err != nil {
				t.Errorf("second request: %q, %v", got, err)
			}
			if n := hellos.Load(); (n == 1) != tt.classic {
				t.Errorf("%d hellos, classic %v", n, tt.classic)
			}
		})
	}
}
