package failures

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"postern/internal/connlimit"
	"postern/internal/store"
	"postern/internal/testenv"
)

var ctx = context.Background()

// gateways makes counters that share a store.
func gateways(t *testing.T, r *testenv.RedisServer, n, most int) []*Counter {
	t.Helper()
	var all []*Counter
	for range n {
		set := store.Settings{StoreURL: r.URL(), StoreTimeout: testenv.Patience}
		o, err := set.Load()
		if err != nil {
			t.Fatal(err)
		}
		c := store.Open(o, slog.New(slog.DiscardHandler))
		t.Cleanup(func() { c.Close() })
		l := &Counter{}
		l.Set(most, time.Second)
		l.Share(c)
		all = append(all, l)
	}
	return all
}

// TestPOP_88_GuessingOverGateways: who spreads guesses over gateways, and over the addresses of a network, is shut out at
// all of them as soon as at one, however many guess at once; who finds his own password wipes out his own failures alone.
func TestPOP_88_GuessingOverGateways(t *testing.T) {
	r := testenv.StartRedis(t)
	g := gateways(t, r, 3, 30)
	addr := func(i int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", i+1)) }
	var wg sync.WaitGroup
	for i := range 29 {
		wg.Go(func() { g[i%3].Failed(ctx, addr(i), fmt.Sprint("user", i%2)) })
	}
	wg.Wait()
	for i, l := range g {
		if l.ShutByAny(ctx, addr(99)) {
			t.Errorf("gateway %d: shut by 29 failures of 30", i)
		}
	}
	g[0].Succeeded(ctx, addr(0), "mallory")
	g[0].Succeeded(ctx, addr(0), "")
	g[0].Failed(ctx, addr(0), "")
	for i, l := range g {
		if !l.ShutByAny(ctx, addr(99)) || l.Shut(addr(99)) {
			t.Errorf("gateway %d: by any %v, here %v; want by any alone", i, l.ShutByAny(ctx, addr(99)), l.Shut(addr(99)))
		}
		if l.ShutByAny(ctx, netip.MustParseAddr("2001:db8:0:1::1")) || l.ShutByAny(ctx, netip.Addr{}) {
			t.Errorf("gateway %d: others are shut out", i)
		}
	}
	g[1].Succeeded(ctx, addr(0), "user1")
	if g[2].ShutByAny(ctx, addr(0)) {
		t.Error("the failures of who found the password count at the others")
	}
	if ttl := r.Do("PTTL", "postern:logins:{2001:db8::/64}"); ttl == "-1" || ttl == "-2" {
		t.Errorf("time to live %s: want one that ends", ttl)
	}
	for i := range 2 * namesPerOrigin {
		g[0].Failed(ctx, netip.MustParseAddr("192.0.2.1"), fmt.Sprint(i))
	}
	if n := r.Do("HLEN", "postern:logins:{192.0.2.1/32}"); n != fmt.Sprint(namesPerOrigin+1) {
		t.Errorf("%s names of one origin are kept, want %d", n, namesPerOrigin+1)
	}
}

// TestForgive: what a gateway takes back are failures that it has seen itself.
func TestForgive(t *testing.T) {
	g := gateways(t, testenv.StartRedis(t), 2, 9)
	addr := netip.MustParseAddr("192.0.2.1")
	for range 5 {
		g[0].Failed(ctx, addr, "")
	}
	count := func(n int) bool {
		g[1].Set(n, 0)
		here := g[1].ShutByAny(ctx, addr)
		g[1].Set(n+1, 0)
		return here && !g[1].ShutByAny(ctx, addr)
	}
	g[1].Forgive(ctx, addr, 3)
	if !count(5) {
		t.Error("failures at another gateway were forgiven")
	}
	g[1].Failed(ctx, addr, "")
	g[1].Forgive(ctx, addr, 4)
	if !count(5) {
		t.Error("want one of six failures forgiven")
	}
	g[0].Forgive(ctx, addr, 2)
	if !count(3) {
		t.Error("want two of five failures forgiven")
	}
}

// TestStoreAway: while the store does not answer, each gateway counts for itself.
func TestStoreAway(t *testing.T) {
	r := testenv.StartRedis(t)
	g := gateways(t, r, 2, 3)
	addr := netip.MustParseAddr("192.0.2.1")
	r.Kill()
	for i := range 3 {
		if g[0].ShutByAny(ctx, addr) {
			t.Errorf("shut by %d failures of 3", i)
		}
		if d := g[0].Failed(ctx, addr, "bob"); d != time.Second<<i || d > connlimit.LongestDelay {
			t.Errorf("failure %d: delay %v", i+1, d)
		}
	}
	if !g[0].ShutByAny(ctx, addr) || g[1].ShutByAny(ctx, addr) {
		t.Error("the gateway's own limit does not hold alone")
	}
	r.Start()
	testenv.Eventually(t, "failures are counted for all again", func() bool {
		g[0].Failed(ctx, addr, "bob")
		return g[1].ShutByAny(ctx, addr)
	})
}
