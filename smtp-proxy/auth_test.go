package main

import (
	"strings"
	"sync/atomic"
	"testing"

	"postern/internal/testenv"
)

// TestAuthIsGone has the server offer AUTH when it is asked what it can, and not on the connection for the client, as
// when TLS with it fails: the password stays here.
func TestAuthIsGone(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	var gone atomic.Bool
	b.Answer(func(a testenv.Asked) string {
		if a.Verb == "EHLO" && !gone.Load() {
			return "250-backend.example\r\n250 AUTH PLAIN"
		}
		if a.Verb == "RSET" {
			return "close" // a kept connection is no more
		}
		return ""
	})
	c := greeted(t, startProxy(t, behind(b), "--auth-requires-tls=no").addr)
	gone.Store(true)
	b.Forget()
	c.cmd("AUTH PLAIN AGJvYgBzZWNyZXQ=", "454 4.7.0")
	c.cmd("AUTH PLAIN AGJvYgBzZWNyZXQ=", "504 5.5.4") // now it is known
	if all := strings.Join(b.Commands(), "\n"); strings.Contains(all, "AUTH") {
		t.Errorf("the next hop saw\n%s", all)
	}
}
