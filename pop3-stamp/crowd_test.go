package main

import (
	"net/netip"
	"testing"
	"time"
)

// newCrowd makes a crowd with a clock that stands still.
func newCrowd() (*crowd, *time.Time) {
	now := time.Now()
	return &crowd{max: 3, maxPer: 2, maxFailures: 4, delay: time.Second, now: func() time.Time { return now }}, &now
}

func TestCrowd(t *testing.T) {
	c, _ := newCrowd()
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::ffff:192.0.2.1")
	x, y, z := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::ffff:1"), netip.MustParseAddr("2001:db8:0:1::1")
	for _, tt := range []struct {
		addr netip.Addr
		want refusal
	}{{a, ""}, {b, ""}, {a, tooManyFrom}, {x, ""}, {y, tooMany}} {
		if got := c.enter(tt.addr); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.addr, got, tt.want)
		}
	}
	c.leave(a)
	c.leave(b)
	for _, tt := range []struct {
		addr netip.Addr
		want refusal
	}{{y, ""}, {x, tooManyFrom}, {z, ""}, {a, tooMany}} {
		if got := c.enter(tt.addr); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.addr, got, tt.want)
		}
	}
	for _, addr := range []netip.Addr{x, y, z} {
		c.leave(addr)
	}
	if c.sessions() != 0 || len(c.seen) > 1 {
		t.Errorf("%d sessions and %d addresses are left", c.sessions(), len(c.seen))
	}
}

// TestCrowdLocal: who comes by a UNIX socket has no address, and so no limit that counts by it.
func TestCrowdLocal(t *testing.T) {
	c, _ := newCrowd()
	c.max = 10
	for range 10 {
		c.failed(netip.Addr{})
		if got := c.enter(netip.Addr{}); got != "" {
			t.Fatalf("refused: %s", got)
		}
	}
	if got := c.enter(netip.Addr{}); got != tooMany {
		t.Errorf("eleventh session of ten: %q, want %q", got, tooMany)
	}
	for range 10 {
		c.leave(netip.Addr{})
	}
	if c.sessions() != 0 {
		t.Errorf("%d sessions are left", c.sessions())
	}
}

// POP-09.
func TestFailures(t *testing.T) {
	c, now := newCrowd()
	addr := netip.MustParseAddr("192.0.2.1")
	for i, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		if got := c.failed(addr); got != want*time.Second {
			t.Errorf("failure %d waits %v, want %v", i+1, got, want*time.Second)
		}
	}
	if got := c.enter(addr); got != tooManyFailures {
		t.Errorf("after the failures: %q", got)
	}
	if got := c.enter(netip.MustParseAddr("192.0.2.2")); got != "" {
		t.Errorf("another address: %q", got)
	}
	*now = now.Add(failureWindow)
	if got := c.enter(addr); got != "" {
		t.Errorf("later: %q", got)
	}
	if got := c.failed(addr); got != time.Second {
		t.Errorf("first failure of a new time waits %v", got)
	}
	c.failed(addr)
	c.succeeded(addr)
	if got := c.failed(addr); got != time.Second {
		t.Errorf("first failure after a login waits %v", got)
	}
}

// POP-09.
func TestCrowdIsBounded(t *testing.T) {
	c, _ := newCrowd()
	busy := netip.MustParseAddr("192.0.2.1")
	if c.enter(busy) != "" {
		t.Fatal("refused")
	}
	addr := netip.MustParseAddr("10.0.0.0")
	for range tableLimit * 5 / 4 {
		c.failed(addr)
		addr = addr.Next()
	}
	if len(c.seen) > tableLimit {
		t.Errorf("%d addresses are remembered", len(c.seen))
	}
	if c.seen[origin(busy)] == nil {
		t.Error("an address with a session was forgotten")
	}
}
