package main

import (
	"net"
	"testing"

	"postern/internal/testenv"
)

// TestTooManyRequestsForStamps: beyond what are served at a time, programs are refused at once, and the loop that accepts
// them goes on.
func TestTooManyRequestsForStamps(t *testing.T) {
	r := start(t, backendAt(t, mailbox("")))
	r.requests.Store(requestsAtATime)
	ask := func(want string) {
		t.Helper()
		a, b := net.Pipe()
		go r.takeStamp(t.Context(), b)
		p := newPeer(t, a)
		p.want(want)
		p.ended()
	}
	ask("-ERR too many requests")
	r.requests.Store(requestsAtATime - 1)
	ask("-ERR not allowed") // at a pipe nobody knows who asks
	testenv.Eventually(t, "the place is free again", func() bool { return r.requests.Load() == requestsAtATime-1 })
	r.requests.Store(0)
}
