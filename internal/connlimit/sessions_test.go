package connlimit

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"postern/internal/testenv"
)

func limited(l SessionLimits) *Sessions {
	s := &Sessions{}
	s.Set(l)
	return s
}

func TestSessionsTotal(t *testing.T) {
	s := limited(SessionLimits{Total: 2})
	for i, want := range []bool{true, true, false} {
		if got := s.EnterTotal(); got != want {
			t.Errorf("session %d gets in: %v, want %v", i+1, got, want)
		}
	}
	s.LeaveTotal()
	if !s.EnterTotal() {
		t.Error("slot of a session that left is not free")
	}
}

func TestSessionsOfOrigin(t *testing.T) {
	now := time.Unix(1700000000, 0)
	s := limited(SessionLimits{PerOrigin: 2})
	a, b := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	if s.Enter(a, false, now) != Fits || s.Enter(b, false, now) != Fits || s.Enter(a, false, now) != FullOrigin {
		t.Error("two addresses of one /64 do not count together")
	}
	if got := s.Enter(netip.MustParseAddr("2001:db8:0:1::1"), false, now); got != Fits {
		t.Errorf("address of another /64: %v, want Fits", got)
	}
	if got := s.Of(b); got != 2 {
		t.Errorf("%d sessions of the /64, want 2", got)
	}
	s.Leave(a)
	if got := s.Enter(b, false, now); got != Fits {
		t.Errorf("after one left: %v, want Fits", got)
	}
	for range 100 {
		if got := s.Enter(netip.MustParseAddr("10.1.1.1"), true, now); got != Fits {
			t.Fatalf("exempt address: %v", got)
		}
	}
	for range 100 { // who comes by a UNIX socket has no address
		if got := s.Enter(netip.Addr{}, false, now); got != Fits {
			t.Fatalf("no address: %v", got)
		}
	}
	for range 100 {
		s.Leave(netip.Addr{})
		s.Leave(netip.MustParseAddr("10.1.1.1"))
	}
	for _, addr := range []netip.Addr{a, b, netip.MustParseAddr("2001:db8:0:1::1")} {
		s.Leave(addr)
	}
	if _, origins := s.Stats(); origins != 0 {
		t.Errorf("%d origins are kept", origins)
	}
}

func TestSessionsRate(t *testing.T) {
	now := time.Unix(1700000000, 0)
	s := limited(SessionLimits{Rate: 10})
	addr := netip.MustParseAddr("192.0.2.1")
	for range 10 {
		s.Enter(addr, false, now)
		s.Leave(addr)
	}
	if got := s.Enter(addr, false, now); got != FullRate {
		t.Errorf("eleventh session of a second: %v, want FullRate", got)
	}
	if got := s.Enter(addr, false, now.Add(time.Second)); got != Fits {
		t.Errorf("a second later: %v, want Fits", got)
	}
}

// TestRES_12_SessionsAndClockThatJumps sets the clock by a day either way between sessions.
func TestRES_12_SessionsAndClockThatJumps(t *testing.T) {
	for _, by := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		t.Run(fmt.Sprint(by), func(t *testing.T) {
			start := time.Now()
			at := func(d time.Duration) time.Time { return testenv.Jumped(t, start.Add(d), by) }

			s := limited(SessionLimits{PerOrigin: 10, Rate: 1})
			client := netip.MustParseAddr("192.0.2.1")
			for i, step := range []struct {
				when time.Time
				want Fullness
			}{{start, Fits}, {at(0), FullRate}, {at(1100 * time.Millisecond), Fits}, {at(1200 * time.Millisecond), FullRate}} {
				if got := s.Enter(client, false, step.when); got != step.want {
					t.Errorf("session %d: %v, want %v", i, got, step.want)
				}
			}
			s.Leave(client)
			s.Leave(client)
			if s.forget(at(5 * time.Second)); len(s.seen) != 1 {
				t.Error("an origin is forgotten at once")
			}
			if s.forget(at(time.Minute)); len(s.seen) != 0 {
				t.Error("an origin is kept for ever")
			}
		})
	}
}

// TestSessionsTellNewLimit: listeners hear how many more sessions there may be when a reload changes that.
func TestSessionsTellNewLimit(t *testing.T) {
	var told [][2]int
	s := limited(SessionLimits{Total: 2})
	s.Change = func(free, before int) { told = append(told, [2]int{free, before}) }
	s.EnterTotal()
	s.EnterTotal()
	told = nil
	for _, tt := range []struct {
		most int
		want string // free, and before
	}{{2, "[]"}, {5, "[[3 0]]"}, {1, "[[0 3]]"}, {0, "[[2147483647 0]]"}, {4, "[[2 2147483647]]"}} {
		s.Set(SessionLimits{Total: tt.most})
		if got := fmt.Sprint(told); got != tt.want {
			t.Errorf("with %d sessions at most listeners hear %s, want %s", tt.most, got, tt.want)
		}
		told = nil
	}
}

func TestSessionsTableIsBounded(t *testing.T) {
	now := time.Unix(1700000000, 0)
	s := limited(SessionLimits{PerOrigin: 1, Rate: 1})
	for i := range sessionTable + 1000 {
		addr := netip.MustParseAddr(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255))
		now = now.Add(time.Millisecond)
		if s.Enter(addr, false, now) == Fits {
			s.Leave(addr)
		}
	}
	if _, origins := s.Stats(); origins > sessionTable {
		t.Errorf("table has %d entries, want at most %d", origins, sessionTable)
	}
	if got := s.Enter(netip.MustParseAddr("192.0.2.9"), false, now.Add(time.Minute)); got != Fits {
		t.Errorf("new address after old ones were forgotten: %v", got)
	}
}
