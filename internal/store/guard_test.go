package store

import (
	"errors"
	"testing"
	"time"
)

// TestGuard: a server that has failed some times in a row is asked by one caller at a time, until one is answered.
func TestGuard(t *testing.T) {
	now := time.Unix(1000, 0)
	var told []bool
	g := guard{now: func() time.Time { return now }, every: time.Second, told: func(down bool, _ time.Duration, _ error) { told = append(told, down) }}
	fault := errors.New("timeout")
	try := func(err error) bool {
		if !g.allow() {
			return false
		}
		g.done(err)
		return true
	}
	for range 10 {
		try(fault)
		try(nil)
	}
	if g.isDown() {
		t.Error("down, though every second request is answered")
	}
	for i := range patience {
		if !try(fault) {
			t.Errorf("not tried after %d failures", i)
		}
	}
	if !g.isDown() || try(nil) {
		t.Error("requests are tried behind as many failures as it takes to be down")
	}
	if now = now.Add(time.Second); !g.allow() || g.allow() {
		t.Error("when it is time, one may try and no other")
	}
	g.done(fault)
	if try(nil) {
		t.Error("tried again at once")
	}
	now = now.Add(time.Second)
	for range 2 {
		if !try(nil) || g.isDown() {
			t.Error("not back after an answer")
		}
	}
	if len(told) != 2 || !told[0] || told[1] {
		t.Errorf("told %v, want down and up, once", told)
	}
}
