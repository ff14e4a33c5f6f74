package gate

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"
)

func TestWorkers(t *testing.T) {
	now := time.Unix(1700000000, 0)
	free, status := "0\n", "ssss 0 4 2 1 100\n"
	asked := 0
	g := &Workers{log: slog.New(slog.DiscardHandler), now: func() time.Time { return now }, ask: func(_ context.Context, request string) (string, error) {
		asked++
		switch {
		case free == "":
			return "", errors.New("no multiplexor")
		case request == "free":
			return free, nil
		}
		return status, nil
	}}
	check := func(what string, want bool) {
		t.Helper()
		now = now.Add(2 * time.Second)
		if got := g.closed(context.Background()); got != want {
			t.Errorf("%s: shut %v, want %v", what, got, want)
		}
	}
	check("none free, room in the queue", false)
	status = "ssss 0 4 2 2 100\n"
	check("none free, queue full", true)
	status = "ssss 0 4 0 0 100\n"
	check("none free, no queue", true)
	free = "3\n"
	check("some free", false)
	free = ""
	check("no answer", true)
	g.Event('F', "2")
	asked = 0
	check("an event says some are free", false)
	g.Event('F', "0")
	g.Event('Z', "") // as the multiplexor says it
	free = "0\n"
	check("events say that none is", true)
	g.Event('Y', "")
	check("and one is again", false)
	if asked != 2 {
		t.Errorf("asked %d times, want 2", asked)
	}
	g.Lost()
	check("events are lost", true)
	if g.closed(context.Background()); asked != 4 {
		t.Errorf("asked %d times, want 4: answers are not kept for a second", asked)
	}
}

// TestWorkersDoesNotQueue: sessions that waited while a multiplexor kept silent do not ask it one after the other.
func TestWorkersDoesNotQueue(t *testing.T) {
	now := time.Unix(1700000000, 0)
	asked := 0
	g := &Workers{log: slog.New(slog.DiscardHandler), now: func() time.Time { return now }, ask: func(context.Context, string) (string, error) {
		asked++
		now = now.Add(5 * time.Second)
		return "", context.DeadlineExceeded
	}}
	for range 3 {
		if !g.closed(context.Background()) {
			t.Error("the gate is open although nobody answers")
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times, want once for all that waited", asked)
	}
}
