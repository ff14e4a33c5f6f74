package main

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/time/rate"
)

// jumped gives the moment t on a machine whose clock was set forward by that much after the program began: the wall
// clock's part of t is another, the monotonic one is the same.
func jumped(t *testing.T, moment time.Time, by time.Duration) time.Time {
	t.Helper()
	other := moment
	// time.Time begins with the wall clock: 1 bit for a monotonic reading, 33 of seconds, 30 of nanoseconds.
	wall := (*uint64)(unsafe.Pointer(&other))
	*wall += uint64(int64(by/time.Second)) << 30
	if other.Sub(moment) != 0 || other.Unix()-moment.Unix() != int64(by/time.Second) {
		t.Fatalf("%v is not %v with its clock set by %v", other, moment, by)
	}
	return other
}

// TestRES_12_ClockThatJumps sets the clock by a day either way in the middle of everything that is timed.
func TestRES_12_ClockThatJumps(t *testing.T) {
	for _, by := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		t.Run(fmt.Sprint(by), func(t *testing.T) {
			start := time.Now()
			at := func(d time.Duration) time.Time { return jumped(t, start.Add(d), by) }

			conf := &live{settings: &settings{LimitSettings: LimitSettings{DataTimeout: time.Minute, MessageTimeout: time.Hour, MinDataRate: 100}}}
			p := newPace(conf, start)
			for i := 1; i <= 10; i++ {
				until, err := p.next(at(time.Duration(i)*10*time.Second), int64(i)*1500)
				if wait := until.Sub(start.Add(time.Duration(i) * 10 * time.Second)); err != nil || wait <= 0 || wait > time.Minute {
					t.Errorf("content is waited for %v, %v", wait, err)
				}
			}
			if _, err := p.next(at(100*time.Second+paceSpan), 10*1500+100); err == nil {
				t.Error("a slow client passes")
			}

			g, changes, _, now := loadGateFor(t, "1", "2 2 2 1/1 1\n")
			*now = start
			if !g.closed() || *changes != 1 {
				t.Error("the load gate is open")
			}
			writeFile(t, g.file, "0 0 0 1/1 1\n")
			if *now = at(readingAge / 2); !g.closed() {
				t.Error("a reading is not kept for its time")
			}
			if *now = at(2 * readingAge); g.closed() {
				t.Error("the load gate does not look again")
			}

			c := &crowd{maxPer: 10, rate: rate.Limit(1)}
			client := netip.MustParseAddr("192.0.2.1")
			for i, step := range []struct {
				when time.Time
				want fullness
			}{{start, fits}, {at(0), fullRate}, {at(1100 * time.Millisecond), fits}, {at(1200 * time.Millisecond), fullRate}} {
				if got := c.enterAddress(client, step.when); got != step.want {
					t.Errorf("session %d: %v, want %v", i, got, step.want)
				}
			}
			c.leaveAddress(client)
			c.leaveAddress(client)
			if c.forget(at(5 * time.Second)); len(c.seen) != 1 {
				t.Error("an address is forgotten at once")
			}
			if c.forget(at(time.Minute)); len(c.seen) != 0 {
				t.Error("an address is kept for ever")
			}
		})
	}
}
