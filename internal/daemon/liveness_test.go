package daemon

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"postern/internal/listen"
	"postern/internal/testenv"
)

// watched is a program whose parts a test can stop: each waits for its lock at each turn.
type watched struct {
	main, loop, more sync.Mutex
	socket           string
	nudge            chan struct{} // has the main loop do a turn
	turning          chan struct{} // gets a value when it does
}

func (w *watched) program() Program {
	return Program{
		Listeners: func() []listen.Request { return []listen.Request{{Name: "a", Specs: []string{w.socket}}} },
		Serve: func(ctx context.Context, env *Env) error {
			l := env.Listeners["a"][0]
			var accepting sync.WaitGroup
			accepting.Go(func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					_, _ = io.WriteString(c, "hello\n")
					pass(&w.loop)
					_ = c.Close()
				}
			})
			env.Watchdog("something else", func() { pass(&w.more) })
			env.Ready()
			for ctx.Err() == nil {
				select {
				case <-ctx.Done():
				case <-env.Pulse:
				case <-w.nudge:
					w.turning <- struct{}{}
					w.main.Lock()
					w.main.Unlock()
				}
			}
			_ = l.Close()
			accepting.Wait()
			return nil
		},
	}
}

// TestWatchdogOfEachPart: whatever hangs, there is no sign of life, and the log names it; when it goes on, there is one
// again.
func TestWatchdogOfEachPart(t *testing.T) {
	m := testenv.StartManager(t)
	t.Setenv("NOTIFY_SOCKET", m.Path)
	w := &watched{socket: filepath.Join(testenv.ShortDir(t), "s"), nudge: make(chan struct{}), turning: make(chan struct{})}
	r := runStd(t, w.program(), Std{Ticks: m.Ticks})
	m.AwaitPat() // at once
	for range 3 {
		m.Lives()
	}
	for _, tt := range []struct {
		name string
		lock *sync.Mutex
		stop func() // has the part run into the lock
	}{
		{"accept loop of a " + w.socket, &w.loop, func() {
			if text, err := dial(w.socket); text != "hello\n" {
				t.Fatalf("answer %q, %v", text, err)
			}
		}},
		{"main loop", &w.main, func() {
			testenv.Go(t, "a turn of the main loop", func() error { w.nudge <- struct{}{}; <-w.turning; return nil }).Wait()
		}},
		{"something else", &w.more, func() {}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.lock.Lock()
			release := sync.OnceFunc(tt.lock.Unlock)
			defer release()
			tt.stop()
			m.Hangs(tt.name, r.err.String, release)
		})
	}
	r.send(syscall.SIGTERM)
	r.wait(0, "msg=stopped")
}

// TestWatchdogOfEndedLoop: a listener that nobody accepts from any more is a part that hangs. A drain is not: then all
// loops end.
func TestWatchdogOfEndedLoop(t *testing.T) {
	v := newLiveness()
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	l := v.watch(listen.Set{"a": {&oneListener{conn: server}}})["a"][0]
	go func() { <-v.pulse }()
	answered := make(chan bool)
	go func() { v.alive(); answered <- true }()
	testenv.NotYet(t, "an answer of a loop that has not begun", answered)
	if c, err := l.Accept(); c != server {
		t.Fatalf("connection %v, %v", c, err)
	}
	testenv.Receive(t, "an answer after a turn", answered)
	go func() { v.alive(); answered <- true }()
	testenv.NotYet(t, "an answer of a loop that has ended", answered)
	close(v.draining)
	testenv.Receive(t, "an answer in the drain", answered)
}

// oneListener has one client.
type oneListener struct{ conn net.Conn }

func (l *oneListener) Accept() (net.Conn, error) { return l.conn, nil }
func (l *oneListener) Close() error              { return nil }
func (l *oneListener) Addr() net.Addr            { return &net.UnixAddr{Name: os.DevNull} }

// pass waits until nobody holds the lock.
func pass(l sync.Locker) {
	l.Lock()
	defer l.Unlock()
}
