package main

import (
	"net/netip"
	"sync"

	"postern/internal/connlimit"
)

// crowd counts sessions, of all and of each origin, and knows who has failed to log in too often.
type crowd struct {
	max, maxPer int // 0 = no limit
	logins      connlimit.Logins

	mu    sync.Mutex
	total int
	of    map[netip.Prefix]int
}

// refusal is why a client may not come in; "" if it may.
type refusal string

const (
	tooMany         refusal = "too many sessions"
	tooManyFrom     refusal = "too many sessions from this address"
	tooManyFailures refusal = "too many failed logins from this address"
)

// enter takes a place for a session; the caller gives it back with leave if there was no refusal.
func (c *crowd) enter(addr netip.Addr) refusal {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := connlimit.Origin(addr)
	switch {
	case c.max > 0 && c.total >= c.max:
		return tooMany
	case !addr.IsValid(): // who comes by a UNIX socket has no address
	case c.maxPer > 0 && c.of[p] >= c.maxPer:
		return tooManyFrom
	case c.logins.Shut(addr):
		return tooManyFailures
	}
	if c.of == nil {
		c.of = make(map[netip.Prefix]int)
	}
	c.total++
	c.of[p]++
	return ""
}

// leave gives a place back.
func (c *crowd) leave(addr netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total--
	p := connlimit.Origin(addr)
	if c.of[p]--; c.of[p] == 0 {
		delete(c.of, p)
	}
}

func (c *crowd) sessions() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total
}
