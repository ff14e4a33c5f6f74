package main

import (
	"net/netip"
	"testing"
)

func TestCrowd(t *testing.T) {
	c := &crowd{max: 3, maxPer: 2}
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
	if c.sessions() != 0 || len(c.of) > 0 {
		t.Errorf("%d sessions and %d addresses are left", c.sessions(), len(c.of))
	}
}

// TestCrowdLocal: who comes by a UNIX socket has no address, and so no limit that counts by it.
func TestCrowdLocal(t *testing.T) {
	c := &crowd{max: 10, maxPer: 2}
	c.logins.Set(1, 0)
	for range 10 {
		c.logins.Failed(netip.Addr{}, "bob")
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
