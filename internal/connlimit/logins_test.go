package connlimit

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// clock is a time that the test moves.
type clock struct{ t time.Time }

func newLogins(most int, delay time.Duration) (*Logins, *clock) {
	c := &clock{time.Unix(1_000_000, 0)}
	l := &Logins{Now: func() time.Time { return c.t }}
	l.Set(most, delay)
	return l, c
}

func TestOrigin(t *testing.T) {
	for _, c := range []struct{ a, b string }{
		{"2001:db8::1", "2001:db8::ffff:1"}, {"::ffff:192.0.2.1", "192.0.2.1"}, {"fe80::1%eth0", "fe80::2"},
	} {
		if a, b := Origin(netip.MustParseAddr(c.a)), Origin(netip.MustParseAddr(c.b)); a != b {
			t.Errorf("%s is of %v, %s of %v", c.a, a, c.b, b)
		}
	}
	if a, b := Origin(netip.MustParseAddr("192.0.2.1")), Origin(netip.MustParseAddr("192.0.2.2")); a == b {
		t.Error("two IPv4 addresses are one origin")
	}
	if p := Origin(netip.Addr{}); p.IsValid() {
		t.Errorf("no address is of %v", p)
	}
}

func TestLoginsDelayAndShut(t *testing.T) {
	l, c := newLogins(5, time.Second)
	addr, other := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:0:1::1")
	for i, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		if shut := l.Shut(addr); shut != (i >= 5) {
			t.Errorf("behind %d failures: shut %v", i, shut)
		}
		if got := l.Failed(netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", i)), "bob"); got != want*time.Second {
			t.Errorf("failure %d: delay %v, want %v", i+1, got, want*time.Second)
		}
	}
	if l.Shut(other) {
		t.Error("another origin is shut out")
	}
	if c.t = c.t.Add(LoginWindow - 1); !l.Shut(addr) {
		t.Error("forgotten too early")
	}
	if c.t = c.t.Add(1); l.Shut(addr) {
		t.Error("never forgotten")
	}
	if got := l.Failed(addr, "bob"); got != time.Second {
		t.Errorf("first failure of a new window: delay %v", got)
	}
}

func TestLoginsSucceeded(t *testing.T) {
	l, _ := newLogins(3, 0)
	addr := netip.MustParseAddr("192.0.2.1")
	for range 2 {
		l.Failed(addr, "bob")
	}
	l.Failed(addr, "")
	l.Succeeded(addr, "mallory")
	l.Succeeded(addr, "")
	if !l.Shut(addr) {
		t.Error("a login as somebody else wiped out the failures")
	}
	l.Succeeded(addr, "bob")
	if l.Shut(addr) {
		t.Error("the failures of who found his password still count")
	}
	for range 2 {
		l.Failed(addr, "alice")
	}
	if !l.Shut(addr) {
		t.Error("the failure without a name was forgotten")
	}
}

func TestLoginsWithoutLimit(t *testing.T) {
	l, _ := newLogins(0, time.Second)
	addr := netip.MustParseAddr("192.0.2.1")
	for range 1000 {
		l.Failed(addr, "bob")
	}
	if l.Shut(addr) {
		t.Error("shut out without a limit")
	}
	l.Set(1000, 0)
	if !l.Shut(addr) {
		t.Error("a limit that was set later does not count")
	}
	if l.Failed(netip.Addr{}, "bob"); l.Shut(netip.Addr{}) {
		t.Error("clients of a UNIX socket are shut out")
	}
}

// TestLoginsBounded floods the table from many origins, and one origin with many names.
func TestLoginsBounded(t *testing.T) {
	l, c := newLogins(3, 0)
	for i := range tableLimit + 10 {
		l.Failed(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), "bob")
		if i == tableLimit/2 {
			c.t = c.t.Add(LoginWindow)
		}
	}
	if n := len(l.seen); n > tableLimit {
		t.Errorf("%d origins are remembered", n)
	}
	addr := netip.MustParseAddr("192.0.2.1")
	for i := range 10 * userLimit {
		l.Failed(addr, fmt.Sprint(i))
	}
	if n := len(l.seen[Origin(addr)].users); n > userLimit {
		t.Errorf("%d names are remembered", n)
	}
}
