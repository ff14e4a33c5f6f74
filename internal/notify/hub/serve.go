package hub

import (
	"errors"
	"io"
	"net"
	"slices"
	"time"

	"postern/internal/notify"
	"postern/internal/sockspec"
)

// What LineErr says to connections that are refused.
const (
	textNoSlots    = "No free listening slots"
	textNotAllowed = "Not allowed"
)

// Bounds of refusing: how many connections at a time are read from while they
// take in the reason, and for how long.
const (
	maxRefusals = 64
	refusalTime = time.Second
)

// Serve accepts listeners from l until the hub or l is closed; then it returns
// nil. When descriptors run out it tries again, ever more slowly; any other
// error of l is returned.
func (h *Hub) Serve(l net.Listener) error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return l.Close()
	}
	h.sockets[l] = true
	h.serving.Add(1)
	h.mu.Unlock()
	defer h.serving.Done()

	var pause time.Duration
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			h.admit(conn)
		case errors.Is(err, net.ErrClosed):
			return nil
		default:
			// For want of something that may come back, or because the peer has left already: accept(2) has many such.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			h.opt.Log.Warn("accept listener", "error", err, "retry_in", pause)
			time.Sleep(pause)
		}
	}
}

// admit makes a connection a listener, or tells it why not.
func (h *Hub) admit(conn net.Conn) {
	if !h.allowed(conn) {
		h.refuse(conn, textNotAllowed)
		return
	}
	l := newListener(h, conn)
	h.mu.Lock()
	full, closed := len(h.listeners) >= h.opt.MaxListeners, h.closed
	if !full && !closed {
		h.listeners[l] = true
		h.serving.Add(1)
		if !h.started {
			h.started = true
			go h.distribute()
		}
	}
	h.mu.Unlock()
	switch {
	case closed:
		conn.Close()
	case full:
		h.refuse(conn, textNoSlots)
	default:
		go l.read()
	}
}

// allowed reports whether the peer may listen. TCP peers are not asked who they are: they are
// a matter of the address listened on.
func (h *Hub) allowed(conn net.Conn) bool {
	if _, ok := conn.(*net.UnixConn); !ok || len(h.opt.Users) == 0 {
		return true
	}
	peer, err := sockspec.Peer(conn)
	if err != nil {
		return false
	}
	if slices.Contains(h.opt.Users, peer.UID) {
		return true
	}
	h.opt.Log.Warn("listener refused", "uid", peer.UID, "pid", peer.PID)
	return false
}

// refuse says why and ends the connection. What the peer has sent is read
// first, or the end of the connection could overtake the reason.
func (h *Hub) refuse(conn net.Conn, reason string) {
	h.mu.Lock()
	h.stats.Refused++
	h.mu.Unlock()
	select {
	case h.refusals <- struct{}{}:
	default:
		conn.Close()
		return
	}
	h.serving.Add(1)
	go func() {
		defer h.serving.Done()
		defer func() { <-h.refusals }()
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(refusalTime))
		if _, err := io.WriteString(conn, notify.LineErr+reason+"\n"); err != nil {
			return
		}
		if c, ok := conn.(interface{ CloseWrite() error }); ok && c.CloseWrite() == nil {
			io.CopyN(io.Discard, conn, 64<<10)
		}
	}()
}
