package store

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/testenv"
)

var ctx = context.Background()

// echo returns its argument.
var echo = NewScript("return ARGV[1]")

// open makes a client for a store.
func open(t *testing.T, s Settings, log *slog.Logger) *Client {
	t.Helper()
	if s.StoreTimeout == 0 {
		s.StoreTimeout = testenv.Patience
	}
	o, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	c := Open(o, log)
	t.Cleanup(func() { c.Close() })
	return c
}

func quietLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

func says(t *testing.T, c *Client, text string) bool {
	t.Helper()
	got, err := c.Run(ctx, echo, []string{c.Key("k")}, text)
	return err == nil && got == text
}

func TestRun(t *testing.T) { testenv.EachStore(t, runs) }

func runs(t *testing.T, program string) {
	s := testenv.StartStore(t, program, "--requirepass", "", "--user", "ann", "on", ">secret", "~mx:*", "&mx:*", "+@all", "-@admin")
	auth := filepath.Join(t.TempDir(), "auth")
	if err := os.WriteFile(auth, []byte("ann:secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, set := range map[string]Settings{
		"TCP":         {StoreURL: s.URL()},
		"UNIX socket": {StoreURL: "unix://" + s.Socket()},
		"user":        {StoreURL: s.URL() + "?prefix=mx:", AuthFile: auth},
	} {
		c := open(t, set, quietLog())
		if !says(t, c, "hello") || c.Ping(ctx) != nil {
			t.Errorf("%s: not answered: %v", name, c.Ping(ctx))
		}
		got, err := c.RunAll(ctx, Step{echo, []string{c.Key("a")}, []any{"1"}}, Step{NewScript("return false"), []string{c.Key("b")}, nil}, Step{echo, []string{c.Key("c")}, []any{"3"}})
		if err != nil || len(got) != 3 || got[0] != "1" || got[1] != nil || got[2] != "3" {
			t.Errorf("%s: several at once: %v, %v", name, got, err)
		}
	}
	c := open(t, Settings{StoreURL: s.URL() + "?prefix=other:", AuthFile: auth}, quietLog())
	if _, err := c.Run(ctx, NewScript("return redis.call('GET', KEYS[1])"), []string{c.Key("k")}); err == nil || c.Counts().Down {
		t.Errorf("a key that the user may not read: %v, down %v; want an error, and no doubt in the server", err, c.Counts().Down)
	}
	if _, err := c.RunAll(ctx, Step{NewScript("return false"), nil, nil}, Step{NewScript("return redis.call('GET', KEYS[1])"), []string{c.Key("k")}, nil}); err == nil {
		t.Error("an error behind an empty answer is lost")
	}
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	a := testenv.NewAuthority(t)
	ca := a.File(dir)
	cert, key := a.Files(dir, "127.0.0.1")
	port := testenv.FreePort(t)
	testenv.StartRedis(t, "--tls-port", strconv.Itoa(port), "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", ca)
	url := "rediss://127.0.0.1:" + strconv.Itoa(port)
	if c := open(t, Settings{StoreURL: url, StoreCA: ca, StoreCert: cert, StoreKey: key}, quietLog()); !says(t, c, "hello") {
		t.Errorf("with certificates: %v", c.Ping(ctx))
	}
	for name, s := range map[string]Settings{"no certificate of ours": {StoreURL: url, StoreCA: ca}, "authority unknown": {StoreURL: url, StoreCert: cert, StoreKey: key}} {
		if c := open(t, s, quietLog()); c.Ping(ctx) == nil {
			t.Errorf("%s: let in", name)
		}
	}
}

// logged collects what is logged.
type logged struct {
	mu    sync.Mutex
	lines []string
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(p))
	return len(p), nil
}

func (l *logged) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(strings.Join(l.lines, ""), text)
}

// TestPOP_81_StoreThatHangs: many callers ask a server that takes connections and answers nothing. None of them waits
// longer than the time-out, connections have a bound, nothing goes on behind the answers, and it is said once. When the
// server goes on, so do we.
func TestPOP_81_StoreThatHangs(t *testing.T) { testenv.EachStore(t, hangs) }

func hangs(t *testing.T, program string) {
	s := testenv.StartStore(t, program)
	said := &logged{}
	c := open(t, Settings{StoreURL: s.URL(), StoreTimeout: 300 * time.Millisecond}, slog.New(slog.NewTextHandler(said, nil)))
	testenv.Eventually(t, "an answer", func() bool { return says(t, c, "hello") })
	before := runtime.NumGoroutine()
	s.Hang()
	defer s.Resume()
	for range 4 {
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				if _, err := c.Run(ctx, echo, []string{c.Key("k")}, "x"); err == nil {
					t.Error("an answer from a server that hangs")
				}
			})
		}
		wg.Wait()
		if n := c.Counts(); !n.Down {
			t.Errorf("not down after %+v", n)
		}
	}
	if n := c.Counts(); n.Skipped < 200 {
		t.Errorf("%+v: most callers should have heard at once", n)
	}
	testenv.Eventually(t, "no goroutine of ours is left", func() bool { return runtime.NumGoroutine() <= before+5 })
	if n := said.count("store does not answer"); n != 1 {
		t.Errorf("said %d times that it does not answer", n)
	}
	s.Resume()
	testenv.Eventually(t, "it is back", func() bool { return says(t, c, "hello") })
	testenv.Eventually(t, "no more connections than the bound, once the server has seen which are closed", func() bool {
		return len(strings.Split(s.Do("CLIENT", "LIST", "TYPE", "normal"), "\n")) <= connections+1
	})
	if n := said.count("store answers again"); n != 1 {
		t.Errorf("said %d times that it answers again", n)
	}
}

// TestRestart: a server that is killed is no server, and one that is started in its place is used at the next request.
func TestRestart(t *testing.T) {
	s := testenv.StartRedis(t)
	c := open(t, Settings{StoreURL: s.URL()}, quietLog())
	if !says(t, c, "hello") {
		t.Fatal("no answer")
	}
	s.Kill()
	for range patience {
		if says(t, c, "hello") {
			t.Error("an answer from a dead server")
		}
	}
	if _, err := c.Run(ctx, echo, nil, "x"); !errors.Is(err, ErrDown) {
		t.Errorf("got %v, want %v", err, ErrDown)
	}
	s.Start()
	testenv.Eventually(t, "it is back", func() bool { return says(t, c, "hello") })
}

// TestListen: messages come, and come again after a restart; each change is told.
func TestListen(t *testing.T) { testenv.EachStore(t, listens) }

func listens(t *testing.T, program string) {
	s := testenv.StartStore(t, program)
	c := open(t, Settings{StoreURL: s.URL(), StoreTimeout: 500 * time.Millisecond}, quietLog())
	within, cancel := context.WithCancel(ctx)
	messages, states, ended := make(chan string, 100), make(chan bool, 100), make(chan struct{})
	go func() {
		defer close(ended)
		c.Listen(within, "news", func(m string) { messages <- m }, func(hears bool) { states <- hears })
	}()
	hear := func() {
		t.Helper()
		for !testenv.Receive(t, "the channel is open", states) {
		}
		s.Do("PUBLISH", "news", "hello")
		if m := testenv.Receive(t, "a message", messages); m != "hello" {
			t.Errorf("got %q", m)
		}
	}
	hear()
	s.Kill()
	if testenv.Receive(t, "the end of the channel", states) {
		t.Error("heard without a server")
	}
	s.Start()
	hear()
	cancel()
	testenv.Receive(t, "the end of Listen", ended)
}
