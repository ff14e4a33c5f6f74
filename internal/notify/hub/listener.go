package hub

import (
	"io"
	"math"
	"net"
	"syscall"
	"time"

	"postern/internal/notify"
)

// A listener is one connection. Its interest lines are read by a goroutine of
// its own; everything below the line is the distributor's.
type listener struct {
	hub  *Hub
	conn net.Conn
	raw  syscall.RawConn // nil if the connection has no descriptor

	// Handed over under hub.mu.
	asked   *subscription
	letters letters // of the last subscription
	gone    bool    // the peer has left, or reading failed
	wrote   bool    // the goroutine that block started has ended
	fault   error   // its error

	taken chan struct{} // the subscription has taken effect
	done  chan struct{} // closed when the listener is removed

	// ---- owned by the distributor

	sub        *subscription // asked for, not yet in effect
	key        key
	group      *group // not nil: it is up to date with its group
	index      int    // in group.members
	next       uint64 // number of the next message to look at
	seen       uint64 // messages of its letters before next, got or reported lost
	unsent     []byte // bytes to be sent before anything else, never more than a line or a snapshot
	joining    bool   // a snapshot is due when it has caught up
	snapshot   []byte // the one that is due; nil: none
	stands     uint64 // number of the message after the last that is in it
	standsSeen uint64 // messages of its letters before that
	queued     bool   // in the distributor's queue
	blocked    bool   // a goroutine is writing unsent
	since      time.Time
	ending     bool // close when unsent is written
	doomed     bool // an edge that it has not got is kept no more
	removed    bool

	out   []byte // what attempt writes, and what came of it
	n     int
	err   error
	write func(fd uintptr) bool
}

// A key says what a listener is sent. Listeners with the same key get the same
// bytes.
type key struct {
	letters  letters
	extended bool
}

// A subscription is an interest and the place in the history at which it was
// expressed.
type subscription struct {
	interest
	from   uint64 // number of the first message it covers
	seen   uint64 // messages of its letters before that
	before uint64 // messages before that of the letters it replaces
}

func newListener(h *Hub, conn net.Conn) *listener {
	l := &listener{hub: h, conn: conn, next: math.MaxUint64, taken: make(chan struct{}, 1), done: make(chan struct{})}
	if c, ok := conn.(syscall.Conn); ok {
		l.raw, _ = c.SyscallConn()
	}
	l.write = func(fd uintptr) bool {
		l.n, l.err = syscall.Write(int(fd), l.out)
		return l.err != syscall.EINTR
	}
	return l
}

// read greets the listener and follows its interest lines. After the end of
// its input a listener that has subscribed is served until it is gone.
func (l *listener) read() {
	defer l.hub.serving.Done()
	if l.follow() {
		l.watch()
	}
	l.hub.mu.Lock()
	l.gone = true
	l.hub.call(l)
	l.hub.mu.Unlock()
	<-l.done
}

// follow returns at the end of the input, or when the listener is removed; it
// says whether anything may still have to be sent.
func (l *listener) follow() (wanted bool) {
	if _, err := io.WriteString(l.conn, notify.LineOK+"\n"); err != nil {
		return false
	}
	err := readInterests(l.conn, func(in interest) bool {
		wanted = in.letters != 0 || in.extended
		return l.subscribe(in)
	})
	return wanted && err == nil
}

// subscribe hands an interest to the distributor and waits until it is in
// effect, so that a peer can never make more than one wait.
func (l *listener) subscribe(in interest) bool {
	h := l.hub
	h.mu.Lock()
	counts := &h.log.counts
	l.asked = &subscription{in, h.log.next, in.letters.count(counts), l.letters.count(counts)}
	l.letters = in.letters
	h.call(l)
	h.mu.Unlock()
	select {
	case <-l.taken:
		return true
	case <-l.done:
		return false
	}
}

// watch returns when the peer, which will send no more, reads no more either.
// Every change of the socket's state wakes it.
func (l *listener) watch() {
	if l.raw == nil {
		return
	}
	l.raw.Read(func(fd uintptr) bool {
		// Sending nothing fails once the other end is closed altogether.
		_, err := syscall.SendmsgN(int(fd), nil, nil, nil, syscall.MSG_NOSIGNAL|syscall.MSG_DONTWAIT)
		return err != nil && err != syscall.EAGAIN && err != syscall.EINTR
	})
}

// attempt writes what the socket takes at once. It reports less than all of p
// without an error when the socket is full.
func (l *listener) attempt(p []byte) (int, error) {
	if l.raw == nil {
		return 0, nil
	}
	l.out = p
	if err := l.raw.Write(l.write); err != nil {
		return 0, err
	}
	l.out = nil
	switch l.err {
	case nil:
		return l.n, nil
	case syscall.EAGAIN, syscall.EINTR:
		return 0, nil
	}
	return 0, l.err
}

// send writes what is unsent, and says whether all of it is gone. If not, either
// a goroutine has taken over and will report, or err says why it is hopeless.
func (l *listener) send() (all bool, err error) {
	for len(l.unsent) > 0 {
		n, err := l.attempt(l.unsent)
		if err != nil {
			return false, err
		}
		if n == 0 {
			l.block()
			return false, nil
		}
		l.unsent = l.unsent[n:]
	}
	l.unsent = nil
	return true, nil
}

// block leaves what is unsent to a goroutine that may wait, and lets it report.
func (l *listener) block() {
	l.blocked, l.since = true, time.Now()
	go func() {
		_, err := l.conn.Write(l.unsent)
		l.hub.mu.Lock()
		defer l.hub.mu.Unlock()
		l.wrote, l.fault = true, err
		l.hub.call(l)
	}()
}
