package main

import (
	"bufio"
	"context"
	"errors"

	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"postern/internal/config"
	"postern/internal/daemon"
	"postern/internal/listen"
	"postern/internal/testenv"
)

// backendFunc plays the upstream server for one connection.
type backendFunc func(c *peer)

// peer is one side of a dialog in a test.
type peer struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func newPeer(t testing.TB, c net.Conn) *peer {
	_ = testenv.Patient(c)
	return &peer{t, c, bufio.NewReader(c)}
}

// send sends text as it is.
func (p *peer) send(text string) {
	if _, err := io.WriteString(p.Conn, text); err != nil && !errors.Is(err, net.ErrClosed) {
		p.t.Logf("send %.60q: %v", text, err)
	}
}

// line reads a line without CR LF; "" at the end.
func (p *peer) line() string {
	s, err := p.r.ReadString('\n')
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(s, "\r\n")
}

// want reads a line that must begin so.
func (p *peer) want(prefix string) string {
	p.t.Helper()
	got := p.line()
	if !strings.HasPrefix(got, prefix) {
		p.t.Fatalf("got %q, want %q", got, prefix)
	}
	return got
}

// ask sends a line and wants a reply that begins so.
func (p *peer) ask(line, prefix string) string {
	p.t.Helper()
	p.send(line + "\r\n")
	got := p.line()
	if !strings.HasPrefix(got, prefix) {
		p.t.Fatalf("%.80q: got %q, want %q", line, got, prefix)
	}
	return got
}

// ended wants the other side to have closed the connection, with nothing more said.
func (p *peer) ended() {
	p.t.Helper()
	if rest, err := io.ReadAll(p.r); err != nil || len(rest) > 0 {
		p.t.Errorf("want the end, got %.200q, %v", rest, err)
	}
}

// backend starts an upstream server and returns its URL.
func backendAt(t testing.TB, f backendFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				f(newPeer(t, c))
			})
		}
	})
	return "pop3://" + l.Addr().String()
}

// mailbox is an upstream server with the user bob, the password "secret word" and one message.
func mailbox(message string) backendFunc {
	return func(p *peer) {
		p.send("+OK ready <1896.697170952@dbc.mtview.ca.us>\r\n")
		user := ""
		for {
			line := p.line()
			verb, arg, _ := strings.Cut(line, " ")
			switch verb {
			case "USER":
				user = arg
				p.send("+OK send PASS\r\n")
			case "PASS":
				if user == "bob" && arg == "secret word" {
					p.send("+OK logged in\r\n")
				} else {
					p.send("-ERR [AUTH] no\r\n")
				}
			case "STAT":
				p.send("+OK 1 12345678901 and more\r\n")
			case "LIST", "UIDL":
				if arg != "" {
					p.send("+OK 1 120\r\n")
				} else {
					p.send("+OK\r\n1 120\r\n.\r\n")
				}
			case "RETR", "TOP":
				p.send("+OK here\r\n" + message + ".\r\n")
			case "QUIT":
				p.send("+OK bye\r\n")
				return
			case "AUTH":
				p.send("-ERR [AUTH] no\r\n")
			case "CAPA":
				p.send("-ERR\r\n")
			case "":
				return
			default:
				p.send("+OK " + line + "\r\n")
			}
		}
	}
}

// running is a server under test.
type running struct {
	*server
	addr   string
	stamp  string // directory
	hangup chan os.Signal
	log    *testenv.Buffer
}

// start starts a server with the given flags before the upstream server at url.
func start(t testing.TB, url string, flags ...string) *running {
	t.Helper()
	return startWith(t, func(w io.Writer) *slog.Logger {
		return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}, url, flags...)
}

// startWith is start with a log of its own.
func startWith(t testing.TB, logger func(io.Writer) *slog.Logger, url string, flags ...string) *running {
	t.Helper()
	dir := t.TempDir()
	s := &settings{}
	p := config.Parser{Program: programName, DefaultFile: "/nonexistent", Vars: map[string]string{"syslog_tag": programName}}
	args := append([]string{"--config", os.DevNull, "--upstream", url, "--clientip-dir", dir, "--hostname", "pop.test", "--login-delay", "0s", "--expire-interval", "0s"}, flags...)
	if _, err := p.Parse(s, args); err != nil {
		t.Fatal(err)
	}
	r := &running{server: &server{conf: s}, stamp: dir, log: &testenv.Buffer{}, hangup: make(chan os.Signal, 1)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	name := listenPOP3
	if len(s.TLS.Cert) > 0 && len(s.POP3S) > 0 {
		name = listenPOP3S
	}
	env := &daemon.Env{
		Log: logger(r.log), Listeners: listen.Set{name: {l}},
		Ready: func() {}, Status: func(string) {}, Hangup: r.hangup, Watchdog: func(string, func()) {},
		Reread: func(fresh daemon.Settings, _ []string) ([]string, error) {
			_, err := p.Parse(fresh, args)
			return nil, err
		},
		Reloaded: func(error, []string) {},
	}
	if err := r.open(env); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	ready := make(chan struct{})
	env.Ready = sync.OnceFunc(func() { close(ready) })
	go func() { done <- r.serve(ctx, env) }()
	testenv.Receive(t, "a server that is ready", ready)
	t.Cleanup(func() {
		cancel()
		if err := testenv.Receive(t, "the end of the server", done); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return r
}

// connect connects a client and reads the greeting.
func (r *running) client(t testing.TB) *peer {
	t.Helper()
	c := testenv.Dial(t, "tcp", r.addr)
	t.Cleanup(func() { _ = c.Close() })
	p := newPeer(t, c)
	p.want("+OK pop.test POP3 ready")
	return p
}

// login connects a client and logs it in.
func (r *running) login(t testing.TB) *peer {
	t.Helper()
	p := r.client(t)
	p.ask("USER bob", "+OK")
	p.ask("PASS secret word", "+OK logged in")
	return p
}
