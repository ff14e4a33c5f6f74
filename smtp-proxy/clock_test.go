package main

import (
	"fmt"
	"testing"
	"time"

	"postern/internal/testenv"
)

// TestRES_12_ClockThatJumps sets the clock by a day either way while content comes.
func TestRES_12_ClockThatJumps(t *testing.T) {
	t.Parallel()
	for _, by := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		t.Run(fmt.Sprint(by), func(t *testing.T) {
			start := time.Now()
			at := func(d time.Duration) time.Time { return testenv.Jumped(t, start.Add(d), by) }

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
		})
	}
}
