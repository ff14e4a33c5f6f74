package main

import (
	"math"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// tableLimit bounds the table of addresses, in entries: forgotten ones are dropped from it first.
const tableLimit = 100000

// crowd counts sessions: in all, per address, and how fast new ones come from an address.
type crowd struct {
	max, maxPer int        // 0 = no limit
	rate        rate.Limit // new sessions per second from an address; 0 = no limit
	exempt      []netip.Prefix
	change      func(free, before int) // called with the lock held when a slot was taken or given back; may be nil

	mu    sync.Mutex
	total int
	seen  map[netip.Prefix]*visitor
}

type visitor struct {
	sessions int
	limiter  *rate.Limiter
	last     time.Time
}

// fullness says which limit a session ran into.
type fullness int

const (
	fits fullness = iota
	fullTotal
	fullAddress
	fullRate
)

// origin is what limits count by: an IPv4 address, or the /64 of an IPv6 address.
func origin(addr netip.Addr) netip.Prefix {
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	p, err := addr.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{} // a UNIX socket has no address: all its sessions are one origin
	}
	return p
}

// enterTotal takes a slot for a session whose client is not known yet.
func (c *crowd) enterTotal() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.max > 0 && c.total >= c.max {
		return false
	}
	c.total++
	c.tell(-1)
	return true
}

func (c *crowd) leaveTotal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total--
	c.tell(1)
}

func (c *crowd) tell(more int) {
	if c.change != nil && c.max > 0 {
		free := c.free()
		c.change(free, max(free-more, 0))
	}
}

// free is how many more sessions there may be.
func (c *crowd) free() int {
	if c.max == 0 {
		return math.MaxInt32
	}
	return max(c.max-c.total, 0) // a reload may have made it less than there are
}

// set changes the limits.
func (c *crowd) set(s *settings) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.free()
	c.max, c.maxPer, c.exempt = s.MaxSessions, s.MaxSessionsPerAddress, s.limitExemptNets
	if free := c.free(); free != before && c.change != nil {
		c.change(free, before)
	}
	c.rate = rate.Limit(s.MaxRatePerAddress)
	for _, v := range c.seen {
		v.limiter = nil
	}
}

// enterAddress counts a session for its address; leaveAddress must follow if it fits.
func (c *crowd) enterAddress(addr netip.Addr, now time.Time) fullness {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == nil {
		c.seen = make(map[netip.Prefix]*visitor)
	}
	key := origin(addr)
	v := c.seen[key]
	if v == nil {
		if len(c.seen) >= tableLimit {
			c.forget(now)
		}
		if len(c.seen) >= tableLimit {
			return fullTotal
		}
		v = &visitor{}
		c.seen[key] = v
	}
	if v.limiter == nil && c.rate > 0 {
		v.limiter = rate.NewLimiter(c.rate, max(1, int(c.rate)))
	}
	v.last = now
	if !addr.IsValid() || within(addr, c.exempt) { // who comes by a UNIX socket has no address
		v.sessions++
		return fits
	}
	if v.limiter != nil && !v.limiter.AllowN(now, 1) {
		return fullRate
	}
	if c.maxPer > 0 && v.sessions >= c.maxPer {
		return fullAddress
	}
	v.sessions++
	return fits
}

func (c *crowd) leaveAddress(addr netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.seen[origin(addr)]
	if v == nil {
		return
	}
	if v.sessions--; v.sessions <= 0 && v.limiter == nil {
		delete(c.seen, origin(addr))
	}
}

// forget drops the addresses without sessions that have been away for ten seconds.
func (c *crowd) forget(now time.Time) {
	for key, v := range c.seen {
		if v.sessions == 0 && now.Sub(v.last) > 10*time.Second {
			delete(c.seen, key)
		}
	}
}

// sessions gives how many sessions there are.
func (c *crowd) sessions() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total
}
