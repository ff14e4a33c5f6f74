package main

import (
	"net/netip"
	"sync"
	"time"
)

const (
	failureWindow = 10 * time.Minute // failed logins older than this are forgotten
	maxDelay      = 30 * time.Second // of the answer to a failed login
	tableLimit    = 50000            // addresses remembered; a bound, not a setting
)

// crowd counts sessions and failed logins per address. IPv6 clients count by their /64.
type crowd struct {
	max, maxPer, maxFailures int // 0 = no limit
	delay                    time.Duration
	now                      func() time.Time

	mu    sync.Mutex
	total int
	seen  map[netip.Prefix]*visitor
}

type visitor struct {
	sessions, failures int
	last               time.Time // of the last failure
}

// origin is what limits count by.
func origin(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits) // the zero Prefix for clients without an address
	return p
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
	if c.max > 0 && c.total >= c.max {
		return tooMany
	}
	v := c.visitor(origin(addr))
	switch {
	case !addr.IsValid(): // who comes by a UNIX socket has no address
	case c.maxPer > 0 && v.sessions >= c.maxPer:
		return tooManyFrom
	case c.maxFailures > 0 && v.failures >= c.maxFailures && c.now().Sub(v.last) < failureWindow:
		return tooManyFailures
	}
	c.total++
	v.sessions++
	return ""
}

// leave gives a place back.
func (c *crowd) leave(addr netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total--
	p := origin(addr)
	if v := c.seen[p]; v != nil {
		v.sessions--
		if v.sessions == 0 && v.failures == 0 {
			delete(c.seen, p)
		}
	}
}

// failed counts a failed login and says how long its answer is to wait.
func (c *crowd) failed(addr netip.Addr) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.visitor(origin(addr))
	now := c.now()
	if now.Sub(v.last) >= failureWindow {
		v.failures = 0
	}
	v.failures++
	v.last = now
	d := c.delay
	for i := 1; i < v.failures && d < maxDelay; i++ {
		d *= 2
	}
	return min(d, maxDelay)
}

// succeeded forgets the failures of an address.
func (c *crowd) succeeded(addr netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v := c.seen[origin(addr)]; v != nil {
		v.failures = 0
	}
}

func (c *crowd) sessions() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total
}

// visitor gives the entry of an origin. When the table is full, entries without a session are dropped: old ones,
// and if that does not help any of them.
func (c *crowd) visitor(p netip.Prefix) *visitor {
	if v := c.seen[p]; v != nil {
		return v
	}
	if c.seen == nil {
		c.seen = map[netip.Prefix]*visitor{}
	}
	if len(c.seen) >= tableLimit {
		c.prune()
	}
	v := &visitor{}
	c.seen[p] = v
	return v
}

func (c *crowd) prune() {
	now := c.now()
	for p, v := range c.seen {
		if v.sessions == 0 && now.Sub(v.last) >= failureWindow {
			delete(c.seen, p)
		}
	}
	for p, v := range c.seen {
		if len(c.seen) < tableLimit*9/10 {
			return
		}
		if v.sessions == 0 {
			delete(c.seen, p)
		}
	}
}
