package hub

import (
	"log/slog"
	"net"
	"sync"
	"time"

	"postern/internal/notify"
)

// Options are what a Hub needs to know. The zero value serves everybody.
type Options struct {
	Letters      string       // letters the daemon publishes, "" for A to Z; messages with others go nowhere
	MaxListeners int          // listeners at a time, 0 for DefaultMaxListeners
	Users        []uint32     // user ids that may listen on a UNIX socket, empty for all that can connect
	Log          *slog.Logger // nil for none
}

// DefaultMaxListeners is the number of listeners a Hub serves at a time if the
// options do not say another.
const DefaultMaxListeners = 10000

// closeGrace is how long Close lets listeners read what they have not got.
const closeGrace = time.Second

// A Hub sends a daemon's messages to its listeners. Its methods may be called
// from any goroutine. It must be made by New.
type Hub struct {
	opt     Options
	letters letters
	run     uint64        // microseconds since 1970 at the start: names this run of the daemon
	grace   time.Duration // how long Close waits for listeners to read
	wake    chan struct{}

	mu        sync.Mutex
	log       *history
	state     *state
	idle      bool    // the distributor sleeps until woken
	wanted    letters // what the listeners it has served up to now wait for
	ready     []*listener
	listeners map[*listener]bool
	sockets   map[net.Listener]bool
	stats     Stats
	started   bool
	closed    bool

	serving  sync.WaitGroup // accept loops and goroutines of listeners
	finished chan struct{}  // the distributor has ended
	refusals chan struct{}  // as many connections may be refused politely at a time
}

// Stats are counts of a hub for status lines and metrics. All but Listeners
// only ever grow.
type Stats struct {
	Listeners int    // connected now
	Messages  uint64 // published
	Lost      uint64 // dropped for listeners that were too far behind, each counted per listener
	TooSlow   uint64 // listeners closed because they did not even take the edges
	Refused   uint64 // connections refused: over the limit, or not allowed

	Subscriptions uint64 // interest lines that took effect
}

// New returns a hub without listeners.
func New(opt Options) *Hub {
	if opt.MaxListeners <= 0 {
		opt.MaxListeners = DefaultMaxListeners
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	set := letterSet(opt.Letters)
	if set == 0 {
		set = allLetters
	}
	return &Hub{
		opt: opt, letters: set, grace: closeGrace, run: uint64(time.Now().UnixMicro()),
		wake: make(chan struct{}, 1),
		log:  newHistory(), state: newState(),
		listeners: map[*listener]bool{}, sockets: map[net.Listener]bool{},
		finished: make(chan struct{}), refusals: make(chan struct{}, maxRefusals),
	}
}

// Reloaded publishes what became of a reload of settings.
func (h *Hub) Reloaded(text string) {
	h.Publish(notify.Message{Letter: notify.LetterReread, Text: text})
}

// Publish gives each message the next number and tells every listener that
// asked for its letter, in order. It copies the messages into the history and
// returns; it never waits for a listener.
func (h *Hub) Publish(msgs ...notify.Message) {
	now := time.Now()
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return
	}
	call := false
	for i := range msgs {
		m := msgs[i]
		if !h.publishes(m.Letter) {
			continue
		}
		grown := h.log.add(m, now, h.idle || !h.started)
		h.state.apply(m, now)
		call = call || grown || h.wanted.has(m.Letter)
	}
	call = call && h.idle && h.started
	if call {
		h.idle = false
	}
	h.mu.Unlock()
	if call {
		h.signal()
	}
}

func (h *Hub) publishes(letter byte) bool {
	return letter >= 'A' && letter <= 'Z' && h.letters.has(letter)
}

// call asks the distributor to look at a listener. The lock is held.
func (h *Hub) call(l *listener) {
	h.ready = append(h.ready, l)
	if h.idle {
		h.idle = false
		h.signal()
	}
}

// signal wakes the distributor. A signal that is not yet taken is enough.
func (h *Hub) signal() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// Seed tells the hub the state before the first event. It is not sent; it is
// what a snapshot shows until messages say otherwise.
func (h *Hub) Seed(msgs ...notify.Message) {
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range msgs {
		if h.publishes(m.Letter) {
			h.state.apply(m, now)
		}
	}
}

// Stats returns the present counts.
func (h *Hub) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.stats
	s.Listeners, s.Messages = len(h.listeners), h.log.next-1
	return s
}

// Close stops accepting, lets the listeners read for at most a second what
// they have not got, and closes the connections. What is published afterwards goes
// nowhere. Closing twice is harmless.
func (h *Hub) Close() {
	h.mu.Lock()
	first := !h.closed
	h.closed = true
	for l := range h.sockets {
		l.Close()
	}
	deadline := time.Now().Add(h.grace)
	for l := range h.listeners {
		l.conn.SetWriteDeadline(deadline)
	}
	if first && !h.started {
		close(h.finished)
	}
	h.idle = false
	h.mu.Unlock()
	h.signal()
	<-h.finished
	h.serving.Wait()
}
