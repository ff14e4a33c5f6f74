package main

import (
	"net/netip"
	"testing"

	"postern/internal/connlimit"
)

func TestLimitsInAllAndOfAnAddress(t *testing.T) {
	t.Parallel()
	l := &limits{}
	l.sessions.Set(connlimit.SessionLimits{Total: 3, PerOrigin: 2})
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::ffff:192.0.2.1")
	x, y, z := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::ffff:1"), netip.MustParseAddr("2001:db8:0:1::1")
	for _, tt := range []struct {
		addr netip.Addr
		want refusal
	}{{a, ""}, {b, ""}, {a, tooManyFrom}, {x, ""}, {y, tooMany}} {
		if got := l.enter(t.Context(), tt.addr); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.addr, got, tt.want)
		}
	}
	l.leave(a)
	l.leave(b)
	for _, tt := range []struct {
		addr netip.Addr
		want refusal
	}{{y, ""}, {x, tooManyFrom}, {z, ""}, {a, tooMany}} {
		if got := l.enter(t.Context(), tt.addr); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.addr, got, tt.want)
		}
	}
	for _, addr := range []netip.Addr{x, y, z} {
		l.leave(addr)
	}
	if n, addresses := l.sessions.Stats(); n != 0 || addresses > 0 {
		t.Errorf("%d sessions and %d addresses are left", n, addresses)
	}
}

// TestLimitsOfALocalSocket: who comes by a UNIX socket has no address, and so no limit that counts by it.
func TestLimitsOfALocalSocket(t *testing.T) {
	t.Parallel()
	l := &limits{}
	l.sessions.Set(connlimit.SessionLimits{Total: 10, PerOrigin: 2})
	l.logins.Set(1, 0)
	for range 10 {
		l.logins.Failed(t.Context(), netip.Addr{}, "bob")
		if got := l.enter(t.Context(), netip.Addr{}); got != "" {
			t.Fatalf("refused: %s", got)
		}
	}
	if got := l.enter(t.Context(), netip.Addr{}); got != tooMany {
		t.Errorf("eleventh session of ten: %q, want %q", got, tooMany)
	}
	for range 10 {
		l.leave(netip.Addr{})
	}
	if l.count() != 0 {
		t.Errorf("%d sessions are left", l.count())
	}
}
