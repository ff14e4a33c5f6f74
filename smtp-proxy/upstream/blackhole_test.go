package upstream

import (
	"testing"
	"time"

	"postern/internal/testenv"
)

// RES-08: a server whose host does not answer costs a session connect-timeout, twice; from then on the next server is
// taken at once.
func TestRES_08_HostThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	p := startPeer(t, good)
	set := newSet(t, Config{URLs: []string{"smtp://" + testenv.Blackhole(t), p.url()}, ConnectTimeout: second / 2, RetryTime: time.Minute})
	for i := range 4 {
		began := time.Now()
		c := get(t, set, Client{})
		took := time.Since(began)
		if c.Server() != p.url() {
			t.Errorf("connection is to %s", c.Server())
		}
		if i < 2 && took < second/2 {
			t.Errorf("session %d got its connection after %v", i+1, took)
		}
		if tried := set.Stats()[0].Failed; tried != int64(min(i+1, 2)) {
			t.Errorf("session %d: the first server was tried %d times", i+1, tried)
		}
		c.Abort()
	}
	alone := newSet(t, Config{URLs: []string{"smtp://" + testenv.Blackhole(t)}, ConnectTimeout: second / 2})
	if r, err := getError(t, alone, Client{}); r.Enhanced != "4.4.1" {
		t.Errorf("got %v, %v", r, err)
	}
}

// What the next server offers is learned though no client waits so long for the first one.
func TestCapabilitiesBehindBlackhole(t *testing.T) {
	t.Parallel()
	p := startPeer(t, good)
	set := newSet(t, Config{URLs: []string{"smtp://" + testenv.Blackhole(t), p.url()}, ConnectTimeout: second, RetryTime: time.Minute})
	ask := func() error {
		ctx, cancel := testenv.Soon(t.Context())
		defer cancel()
		_, err := set.Capabilities(ctx)
		return err
	}
	failed(t, ask(), 451, "4.4.1")
	testenv.Eventually(t, "the capabilities of the second server", func() bool { return ask() == nil })
	if n := p.count(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}
