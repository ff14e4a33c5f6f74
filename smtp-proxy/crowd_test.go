package main

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func TestCrowdLimits(t *testing.T) {
	now := time.Unix(1700000000, 0)
	c := &crowd{max: 2, maxPer: 2, rate: 10, exempt: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	for i, want := range []bool{true, true, false} {
		if got := c.enterTotal(); got != want {
			t.Errorf("session %d gets in: %v, want %v", i+1, got, want)
		}
	}
	c.leaveTotal()
	if !c.enterTotal() {
		t.Error("slot of a session that left is not free")
	}
	a, b := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	if c.enterAddress(a, now) != fits || c.enterAddress(b, now) != fits || c.enterAddress(a, now) != fullAddress {
		t.Error("two addresses of one /64 do not count together")
	}
	if got := c.enterAddress(netip.MustParseAddr("2001:db8:0:1::1"), now); got != fits {
		t.Errorf("address of another /64: %v, want fits", got)
	}
	c.leaveAddress(a)
	if got := c.enterAddress(b, now); got != fits {
		t.Errorf("after one left: %v, want fits", got)
	}
	v4 := netip.MustParseAddr("192.0.2.1")
	for range 10 {
		c.enterAddress(v4, now)
		c.leaveAddress(v4)
	}
	if got := c.enterAddress(v4, now); got != fullRate {
		t.Errorf("eleventh session of a second: %v, want fullRate", got)
	}
	if got := c.enterAddress(v4, now.Add(time.Second)); got != fits {
		t.Errorf("a second later: %v, want fits", got)
	}
	for range 100 {
		if got := c.enterAddress(netip.MustParseAddr("10.1.1.1"), now); got != fits {
			t.Fatalf("exempt address: %v", got)
		}
	}
}

// TestCrowdTellsNewLimit: listeners hear how many more sessions there may be when a reload changes that.
func TestCrowdTellsNewLimit(t *testing.T) {
	var told [][2]int
	c := &crowd{max: 2, change: func(free, before int) { told = append(told, [2]int{free, before}) }}
	c.enterTotal()
	c.enterTotal()
	told = nil
	for _, tt := range []struct {
		most int
		want string // free, and before
	}{{2, "[]"}, {5, "[[3 0]]"}, {1, "[[0 3]]"}, {0, "[[2147483647 0]]"}, {4, "[[2 2147483647]]"}} {
		c.set(&settings{LimitSettings: LimitSettings{MaxSessions: tt.most}})
		if got := fmt.Sprint(told); got != tt.want {
			t.Errorf("with %d sessions at most listeners hear %s, want %s", tt.most, got, tt.want)
		}
		told = nil
	}
}

func TestCrowdTableIsBounded(t *testing.T) {
	now := time.Unix(1700000000, 0)
	c := &crowd{maxPer: 1, rate: 1}
	for i := range tableLimit + 1000 {
		addr := netip.MustParseAddr(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255))
		now = now.Add(time.Millisecond)
		if c.enterAddress(addr, now) == fits {
			c.leaveAddress(addr)
		}
	}
	if len(c.seen) > tableLimit {
		t.Errorf("table has %d entries, want at most %d", len(c.seen), tableLimit)
	}
	if got := c.enterAddress(netip.MustParseAddr("192.0.2.9"), now.Add(time.Minute)); got != fits {
		t.Errorf("new address after old ones were forgotten: %v", got)
	}
}
