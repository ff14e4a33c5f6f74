package notify

import (
	"bufio"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"
)

// Options are what a Hub needs to know. The zero value serves everybody.
type Options struct {
	Letters      string       // letters the daemon publishes, "" for all
	MaxListeners int          // listeners at a time, 0 for DefaultMaxListeners
	Log          *slog.Logger // nil for none
}

// DefaultMaxListeners is the number of listeners a Hub serves at a time if the
// options do not say another.
const DefaultMaxListeners = 10000

// A Hub sends a daemon's messages to its listeners.
type Hub struct {
	opt       Options
	mu        sync.Mutex
	sessions  map[*session]bool
	listeners map[net.Listener]bool
	closed    bool
	wg        sync.WaitGroup
}

type session struct {
	conn   net.Conn
	wake   chan struct{}
	mu     sync.Mutex
	letter [256]bool
	owed   []byte
}

// NewHub returns a hub without listeners.
func NewHub(opt Options) *Hub {
	if opt.MaxListeners <= 0 {
		opt.MaxListeners = DefaultMaxListeners
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	return &Hub{opt: opt, sessions: map[*session]bool{}, listeners: map[net.Listener]bool{}}
}

// Serve accepts listeners from l until the hub or l is closed; then it returns
// nil. Any other error of l is returned.
func (h *Hub) Serve(l net.Listener) error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return l.Close()
	}
	h.listeners[l] = true
	h.mu.Unlock()
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		h.open(conn)
	}
}

func (h *Hub) open(conn net.Conn) {
	s := &session{conn: conn, wake: make(chan struct{}, 1), owed: []byte("*OK\n")}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || len(h.sessions) >= h.opt.MaxListeners {
		conn.SetWriteDeadline(time.Now().Add(time.Second))
		conn.Write([]byte("*ERR No free listening slots\n"))
		conn.Close()
		return
	}
	h.sessions[s] = true
	h.wg.Add(2)
	go func() { defer h.wg.Done(); s.read() }()
	go func() { defer h.wg.Done(); s.write(); h.drop(s) }()
}

func (h *Hub) drop(s *session) {
	s.conn.Close()
	h.mu.Lock()
	delete(h.sessions, s)
	h.mu.Unlock()
}

func (s *session) read() {
	r := bufio.NewReaderSize(s.conn, 256)
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return
		}
		if line[0] != '?' {
			continue
		}
		var want [256]bool
		for c := 'A'; c <= 'Z'; c++ {
			want[c] = strings.ContainsRune(string(line), c) || strings.Contains(string(line), "*")
		}
		s.mu.Lock()
		s.letter = want
		s.mu.Unlock()
	}
}

func (s *session) write() {
	for {
		s.mu.Lock()
		owed := s.owed
		s.owed = nil
		s.mu.Unlock()
		if len(owed) == 0 {
			if _, open := <-s.wake; !open {
				return
			}
			continue
		}
		if _, err := s.conn.Write(owed); err != nil {
			return
		}
	}
}

// Publish tells every listener that asked for it of each message, in order.
// It never waits for a listener.
func (h *Hub) Publish(msgs ...Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.sessions {
		s.mu.Lock()
		for _, m := range msgs {
			if s.letter[m.Letter] && len(s.owed) < 1<<20 {
				s.owed = m.append(s.owed)
			}
		}
		s.mu.Unlock()
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// Seed tells the hub the state before the first event. It is not sent to
// listeners; it is what a snapshot shows until messages say otherwise.
func (h *Hub) Seed(msgs ...Message) {}

// Close stops accepting, lets each listener read for a short time what it is
// owed, and closes the connections.
func (h *Hub) Close() {
	h.mu.Lock()
	h.closed = true
	for l := range h.listeners {
		l.Close()
	}
	for s := range h.sessions {
		s.conn.SetDeadline(time.Now().Add(time.Second))
		close(s.wake)
	}
	h.mu.Unlock()
	h.wg.Wait()
}
