package main

import (
	"testing"
	"time"
)

// TestErrorLimits: what is counted, when it is too much, and how long the client waits.
func TestErrorLimits(t *testing.T) {
	t.Parallel()
	const e, r, j, m = 'e', 'r', 'j', 'm' // an error, a refusal, a junk command, a message
	for _, tt := range []struct {
		name    string
		done    string
		tooMany bool // by the last of it
		delay   time.Duration
		total   int
	}{
		{"nothing", "", false, 0, 0},
		{"half of the errors cost no time", "ee", false, 0, 2},
		{"behind the half each costs", "eee", false, time.Second, 3},
		{"last error", "eeee", true, 2 * time.Second, 4},
		{"half of the refusals", "rrr", false, 0, 3},
		{"last refusal", "rrrrrr", true, 3 * time.Second, 6},
		{"errors and refusals are two things", "eeerrrrr", false, 3 * time.Second, 8},
		{"junk", "jjjjjjj", false, 0, 0},
		{"last junk", "jjjjjjjj", true, 0, 0},
		{"message forgives", "eeerrrrrjjjjjjjm", false, 0, 8},
		{"and all begins anew", "eeemeee", false, time.Second, 6},
		{"no more than ten delays at a time", "rrrrrrrrrrrrrrrrrrrrrrrr", true, mostDelays * time.Second, 24},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := errorLimits{maxErrors: 4, maxRefusals: 6, maxJunk: 8, errorDelay: time.Second}
			tooMany := false
			for _, what := range tt.done {
				switch what {
				case e:
					tooMany = l.addError()
				case r:
					tooMany = l.addRefusal()
				case j:
					tooMany = l.addJunk()
				case m:
					l.forgive()
					tooMany = false
				}
			}
			delay := l.takeDelay()
			if tooMany != tt.tooMany || delay != tt.delay || l.total != tt.total {
				t.Errorf("too many %v, delay %v, total %d; want %+v", tooMany, delay, l.total, tt)
			}
			if again := l.takeDelay(); again != 0 {
				t.Errorf("a delay of %v is waited for twice", again)
			}
		})
	}
}

// TestGuesses: unknown recipients are made up for by ten times as many who are known.
func TestGuesses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		refused, accepted int
		want              bool
	}{{1, 0, false}, {2, 0, true}, {2, 19, true}, {2, 20, false}, {3, 20, true}, {3, 30, false}} {
		l := errorLimits{maxRefusals: 2, refusals: tt.refused}
		if got := l.guesses(tt.accepted); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}
