package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/connlimit"
	"postern/internal/store"
	"postern/internal/testenv"
)

var ctx = context.Background()

const anyone = "192.0.2.1"

// gateway is a counter of its own, with limits.
func gateway(t *testing.T, url string, limits connlimit.SessionLimits) *Sessions {
	t.Helper()
	set := store.Settings{StoreURL: url, StoreTimeout: testenv.Patience}
	o, err := set.Load()
	if err != nil {
		t.Fatal(err)
	}
	c := store.Open(o, slog.New(slog.DiscardHandler))
	s := NewSessions(c, "smtp")
	s.Set(limits)
	t.Cleanup(func() { s.Close(); c.Close() })
	return s
}

func enter(s *Sessions, addr string) connlimit.Fullness {
	return s.Enter(ctx, netip.MustParseAddr(addr))
}

// origins returns how many origins are remembered.
func (s *Sessions) origins() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.seats)
}

func leave(s *Sessions, addr string) { s.Leave(netip.MustParseAddr(addr)) }

// alter changes the time that a field of the hash holds, by so many seconds: to the script it is as if its clock had moved.
func alter(r *testenv.RedisServer, key, field string, seconds int) {
	r.Do("EVAL", `for _, f in ipairs(redis.call('HKEYS', KEYS[1])) do
		if ARGV[1] == '' or f == ARGV[1] then
			local before, time = string.match(redis.call('HGET', KEYS[1], f), '^(.-)(%d+)$')
			redis.call('HSET', KEYS[1], f, before .. string.format('%.0f', time + ARGV[2] * 1000000))
		end
	end`, "1", key, field, fmt.Sprint(seconds))
}

// TestRES_13_SessionsOverGateways: there are never more sessions of an origin than may be, over gateways and over the addresses of a
// network, however many come at once; who leaves makes room at all gateways.
func TestRES_13_SessionsOverGateways(t *testing.T) {
	testenv.EachStore(t, func(t *testing.T, program string) {
		r := testenv.StartStore(t, program)
		const most = 20
		var g []*Sessions
		for range 3 {
			g = append(g, gateway(t, r.URL(), connlimit.SessionLimits{PerOrigin: most}))
		}
		var in atomic.Int64
		for round := range 3 {
			var wg sync.WaitGroup
			for i := range 3 * most {
				wg.Go(func() {
					s, addr := g[i%3], fmt.Sprintf("2001:db8::%x", i)
					if enter(s, addr) == connlimit.Fits {
						if in.Add(1) > most {
							t.Errorf("round %d: more than %d sessions", round, most)
						}
					}
				})
			}
			wg.Wait()
			if n := in.Load(); n != most {
				t.Errorf("round %d: %d sessions came in, want %d", round, n, most)
			}
			if got := enter(g[round], "2001:db8:0:1::1"); got != connlimit.Fits {
				t.Errorf("another network: %v", got)
			}
			leaveAll(g, "2001:db8::1")
			leave(g[round], "2001:db8:0:1::1")
			in.Store(0)
			testenv.Eventually(t, "the store knows that all have left", func() bool { return r.Do("DBSIZE") == "0" })
		}
		for i, s := range g {
			testenv.Eventually(t, "nobody is remembered", func() bool { return s.origins() == 0 })
			if got := enter(s, "::ffff:"+anyone); got != connlimit.Fits || i > 0 && enter(s, anyone) != connlimit.Fits {
				t.Errorf("gateway %d: %v", i, got)
			}
		}
		if got := r.Do("HLEN", "postern:sessions:smtp:{192.0.2.1/32}"); got != "3" {
			t.Errorf("IPv4 within IPv6 is another origin: %s gateways, want 3", got)
		}
	})
}

// leaveAll ends all sessions of an origin.
func leaveAll(g []*Sessions, addr string) {
	for _, s := range g {
		s.mu.Lock()
		e, n := s.seats[connlimit.Origin(netip.MustParseAddr(addr))], 0
		if e != nil {
			n = e.sessions
		}
		s.mu.Unlock()
		for range n {
			leave(s, addr)
		}
	}
}

// TestRoomAtOnce: who leaves makes room at the same gateway at once.
func TestRoomAtOnce(t *testing.T) {
	r := testenv.StartRedis(t)
	s := gateway(t, r.URL(), connlimit.SessionLimits{PerOrigin: 1})
	for range 200 {
		if f := enter(s, anyone); f != connlimit.Fits {
			t.Fatalf("refused: %v", f)
		}
		leave(s, anyone)
	}
}

// TestCluster: the keys of an origin are on one node, whichever that is.
func TestCluster(t *testing.T) {
	testenv.EachStore(t, func(t *testing.T, program string) {
		url := testenv.StartCluster(t, program).URL()
		a, b := gateway(t, url, connlimit.SessionLimits{PerOrigin: 1, Rate: 100}), gateway(t, url, connlimit.SessionLimits{PerOrigin: 1, Rate: 100})
		for i := range 20 {
			addr := fmt.Sprintf("192.0.2.%d", i)
			ban := Ban{a.client.Key("refusals:{" + addr + "/32}"), 1}
			if got := a.Enter(ctx, netip.MustParseAddr(addr), ban); got != connlimit.Fits {
				t.Errorf("%s: %v", addr, got)
			}
			if got := b.Enter(ctx, netip.MustParseAddr(addr), ban); got != connlimit.FullOrigin {
				t.Errorf("%s at the other gateway: %v", addr, got)
			}
			leave(a, addr)
		}
		testenv.Eventually(t, "those who left have made room", func() bool { return enter(b, "192.0.2.7") == connlimit.Fits })
		if n := a.client.Counts(); n.Refused > 0 {
			t.Errorf("%+v", n)
		}
	})
}

// TestRES_14_GatewayThatDies: what it counted is free when its lease has ended; one that lives says again and again what it has, and
// one that was stopped longer than that says it when it goes on.
func TestRES_14_GatewayThatDies(t *testing.T) {
	r := testenv.StartRedis(t)
	limits := connlimit.SessionLimits{PerOrigin: 2}
	dead, alive := gateway(t, r.URL(), limits), gateway(t, r.URL(), limits)
	const key = "postern:sessions:smtp:{192.0.2.1/32}"
	for range 2 {
		if got := enter(dead, anyone); got != connlimit.Fits {
			t.Fatal(got)
		}
	}
	if got := enter(alive, anyone); got != connlimit.FullOrigin {
		t.Errorf("while it lives: %v", got)
	}
	if ttl := r.Do("PTTL", key); ttl == "-1" {
		t.Error("the key has no end")
	}
	alter(r, key, "", -int(Lease.Seconds()))
	if got := enter(alive, anyone); got != connlimit.Fits {
		t.Errorf("after its lease: %v", got)
	}
	// It was not dead after all: sessions that are there stay, and count.
	dead.due(time.Now().Add(renewal))
	if err := dead.flush(ctx); err != nil {
		t.Fatal(err)
	}
	leave(alive, anyone)
	testenv.Eventually(t, "the other has left", func() bool { return r.Do("HLEN", key) == "1" })
	if got := enter(alive, anyone); got != connlimit.FullOrigin {
		t.Errorf("when it has told again: %v", got)
	}
	dead.Close()
	if got := enter(alive, anyone); got != connlimit.FullOrigin {
		t.Errorf("a gateway that ends with sessions: %v", got)
	}
}

// TestRES_15_RateOverGateways: new sessions come no faster over all gateways than they may, and as fast as that.
func TestRES_15_RateOverGateways(t *testing.T) {
	r := testenv.StartRedis(t)
	limits := connlimit.SessionLimits{Rate: 0.01} // none comes by itself while we look
	a, b := gateway(t, r.URL(), limits), gateway(t, r.URL(), limits)
	const key = "postern:sessions:smtp:{192.0.2.1/32}"
	for i, want := range []connlimit.Fullness{connlimit.Fits, connlimit.FullRate, connlimit.FullRate} {
		if got := enter([]*Sessions{a, b, a}[i], anyone); got != want {
			t.Errorf("session %d: %v, want %v", i, got, want)
		}
	}
	alter(r, key, "rate", -90)
	if got := enter(b, anyone); got != connlimit.FullRate {
		t.Errorf("90 seconds later: %v", got)
	}
	alter(r, key, "rate", -11)
	if got := enter(b, anyone); got != connlimit.Fits {
		t.Errorf("100 seconds later: %v", got)
	}
	// The clock is set back by a year, or another server with such a clock takes over.
	alter(r, key, "rate", 365*86400)
	if got := enter(a, anyone); got != connlimit.FullRate {
		t.Errorf("when the clock is set back: %v", got)
	}
	burst := connlimit.SessionLimits{Rate: 5}
	c, n := gateway(t, r.URL(), burst), 0
	before := r.Do("TIME")
	for range 50 {
		if enter(c, "192.0.2.2") == connlimit.Fits {
			n++
		}
	}
	if took := seconds(r.Do("TIME")) - seconds(before); n < 5 || float64(n) > 5+5*took+1 {
		t.Errorf("%d sessions came in within %.3f seconds, at 5 a second", n, took)
	}
}

// seconds reads what TIME says.
func seconds(text string) float64 {
	var s, us float64
	_, _ = fmt.Sscan(strings.ReplaceAll(text, "\n", " "), &s, &us)
	return s + us/1e6
}

// TestRES_16_ClockSetBack: leases that no clock of now could have given do not count, so that a failover to a server whose clock is
// behind shuts nobody out.
func TestRES_16_ClockSetBack(t *testing.T) {
	r := testenv.StartRedis(t)
	a, b := gateway(t, r.URL(), connlimit.SessionLimits{PerOrigin: 1}), gateway(t, r.URL(), connlimit.SessionLimits{PerOrigin: 1})
	if got := enter(a, anyone); got != connlimit.Fits {
		t.Fatal(got)
	}
	alter(r, "postern:sessions:smtp:{192.0.2.1/32}", "", 3600)
	if got := enter(b, anyone); got != connlimit.Fits {
		t.Errorf("%v", got)
	}
}

// TestBans: who has failed too often in the store does not come in, and is not counted.
func TestBans(t *testing.T) {
	r := testenv.StartRedis(t)
	s := gateway(t, r.URL(), connlimit.SessionLimits{})
	r.Do("HSET", "postern:refusals:{192.0.2.1/32}", "=", "7")
	key := s.client.Key("refusals:{192.0.2.1/32}")
	for most, want := range map[int]connlimit.Fullness{0: connlimit.Fits, 7: connlimit.Banned, 8: connlimit.Fits} {
		if got := s.Enter(ctx, netip.MustParseAddr(anyone), Ban{"other", 0}, Ban{key, most}); got != want {
			t.Errorf("%d failures of 7: %v, want %v", most, got, want)
		}
	}
	leave(s, anyone)
	leave(s, anyone)
	if n := s.origins(); n > 0 || r.Do("DBSIZE") != "1" {
		t.Errorf("%d origins, %s keys", n, r.Do("DBSIZE"))
	}
	if got := s.Enter(ctx, netip.Addr{}, Ban{key, 1}); got != connlimit.Fits {
		t.Errorf("a client without an address: %v", got)
	}
	var none *Sessions
	none.Set(connlimit.SessionLimits{})
	if got := enter(none, anyone); got != connlimit.Fits {
		t.Errorf("without a store: %v", got)
	}
	leave(none, anyone)
	none.Close()
}

// TestRES_17_StoreAwayFromLimits: while the store hangs or is gone everybody fits, nothing piles up, and when it is back it hears what
// there is, at once those sessions included that came meanwhile. So it does when its scripts were flushed.
func TestRES_17_StoreAwayFromLimits(t *testing.T) {
	r := testenv.StartRedis(t)
	set := store.Settings{StoreURL: r.URL(), StoreTimeout: 300 * time.Millisecond}
	o, err := set.Load()
	if err != nil {
		t.Fatal(err)
	}
	c := store.Open(o, slog.New(slog.DiscardHandler))
	defer c.Close()
	a := NewSessions(c, "smtp")
	defer a.Close()
	a.Set(connlimit.SessionLimits{PerOrigin: 3})
	other := gateway(t, r.URL(), connlimit.SessionLimits{PerOrigin: 3})
	testenv.Eventually(t, "an answer", func() bool { return c.Ping(ctx) == nil })
	before := runtime.NumGoroutine()

	r.Hang()
	for range 10 {
		_ = c.Ping(ctx)
	}
	asked := c.Counts().Failed
	var wg sync.WaitGroup
	for i := range 2000 {
		wg.Go(func() {
			addr := fmt.Sprintf("10.0.%d.%d", i/256, i%256)
			if got := enter(a, addr); got != connlimit.Fits {
				t.Errorf("%s: %v", addr, got)
			}
			leave(a, addr)
		})
	}
	wg.Wait()
	for range 2 {
		if got := enter(a, anyone); got != connlimit.Fits {
			t.Errorf("while it hangs: %v", got)
		}
	}
	// Only of those of which it was asked, and now and then it is: it may have heard.
	if n, most := a.origins(), 1+batch*int(c.Counts().Failed-asked+2); n > most {
		t.Errorf("%d origins that have left are remembered, want at most %d", n, most)
	}
	a.due(time.Now().Add(2 * Lease))
	if n := a.origins(); n != 1 {
		t.Errorf("%d origins are remembered for ever, want the one with sessions", n)
	}
	testenv.Eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before+5 })
	r.Resume()
	told := func() bool {
		return r.Do("EVAL", "local n = 0; for _, v in ipairs(redis.call('HVALS', KEYS[1])) do n = n + string.match(v, '%d+') end return n",
			"1", "postern:sessions:smtp:{192.0.2.1/32}") == "2"
	}
	testenv.Eventually(t, "it is told of the two", told)

	r.Kill()
	for range 10 {
		_ = c.Ping(ctx)
	}
	r.Start()
	testenv.Eventually(t, "the new one answers", func() bool { return c.Ping(ctx) == nil })
	a.due(time.Now().Add(renewal))
	a.mark(connlimit.Origin(netip.MustParseAddr(anyone)))
	testenv.Eventually(t, "the new one is told of the two", told)
	r.Do("SCRIPT", "FLUSH")
	if got := enter(a, anyone); got != connlimit.Fits {
		t.Errorf("after a flush of scripts: %v", got)
	}
	testenv.Eventually(t, "the limit holds", func() bool { return enter(other, anyone) == connlimit.FullOrigin })
}

// TestNothingSaid: of an origin of which a store that is down was told nothing, nothing is remembered.
func TestNothingSaid(t *testing.T) {
	c := gateway(t, "redis://127.0.0.1:1", connlimit.SessionLimits{}).client
	s := &Sessions{client: c, wake: make(chan struct{}, 1), seats: map[netip.Prefix]*seat{}, stale: map[netip.Prefix]struct{}{}}
	s.Set(connlimit.SessionLimits{PerOrigin: 3})
	for err, want := range map[error]int{store.ErrDown: 0, context.DeadlineExceeded: 1} {
		origin := connlimit.Origin(netip.MustParseAddr(anyone))
		s.ask(origin, false)
		s.decided(origin, connlimit.Fits, unheard)
		words, _ := s.take()
		leave(s, anyone)
		if s.told(words, err); len(words) != 1 || s.origins() != want {
			t.Errorf("%v: %d words, %d origins, want 1 and %d", err, len(words), s.origins(), want)
		}
		clear(s.seats)
		clear(s.stale)
	}
}

// TestOldWord: a word that comes twice, or behind a later one, takes nothing off.
func TestOldWord(t *testing.T) {
	r := testenv.StartRedis(t)
	s := gateway(t, r.URL(), connlimit.SessionLimits{PerOrigin: 9})
	for range 5 {
		enter(s, anyone)
	}
	key := s.key(connlimit.Origin(netip.MustParseAddr(anyone)))
	for _, w := range []struct{ number, n, sure, left, want int64 }{{50, 5, 0, 1, 4}, {50, 5, 0, 1, 4}, {70, 3, 1, 1, 3}, {60, 9, 0, 1, 3}, {71, 3, 0, 1, 2}} {
		got, err := s.client.Run(ctx, tellScript, []string{key}, s.gateway, w.number, w.n, w.sure, w.left, Lease.Microseconds())
		if err != nil || got != w.want {
			t.Errorf("%+v: %v, %v", w, got, err)
		}
	}
}

// TestRES_18_StrangeAnswers: what no store of ours would say shuts nobody out.
func TestRES_18_StrangeAnswers(t *testing.T) {
	for _, answer := range []string{
		"+OK\r\n", ":1\r\n", ":99\r\n", ":-1\r\n", "$-1\r\n", "$3\r\nabc\r\n", "*2\r\n:1\r\n:2\r\n", "*-1\r\n", "_\r\n", "#t\r\n", "-ERR no\r\n",
		"-NOPERM no permissions to run the 'evalsha' command\r\n", "-READONLY You can't write against a read only replica.\r\n",
		"-MOVED 1 127.0.0.1:1\r\n", "-OOM command not allowed\r\n", "\x00\x01\x02\r\n", "HTTP/1.1 400 Bad Request\r\n\r\n", "",
	} {
		s := gateway(t, "redis://"+answers(t, answer), connlimit.SessionLimits{PerOrigin: 1, Rate: 1})
		for range 3 {
			if got := enter(s, anyone); got != connlimit.Fits {
				t.Errorf("%q: %v", answer, got)
			}
		}
	}
}

// answers is a server that has one answer to everything, and then hangs up.
func answers(t *testing.T, text string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	testenv.Go(t, "the strange server", func() error {
		for {
			c, err := l.Accept()
			if err != nil {
				return nil
			}
			_, _ = c.Read(make([]byte, 4096))
			_, _ = c.Write([]byte(text))
			_ = c.Close()
		}
	})
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// TestForeignHash: what somebody else has put into the hash is no session.
func TestForeignHash(t *testing.T) {
	r := testenv.StartRedis(t)
	s := gateway(t, r.URL(), connlimit.SessionLimits{PerOrigin: 1, Rate: 100})
	const key = "postern:sessions:smtp:{192.0.2.1/32}"
	r.Do("HSET", key, "a", "99 1 x", "b", "", "c", "-5 1 9999999999999999", "rate", "nan or so", "d", "1e300 1 99999999999999999999999")
	if got := enter(s, anyone); got != connlimit.Fits {
		t.Errorf("%v", got)
	}
	r.Do("DEL", key)
	r.Do("RPUSH", key, "x")
	if got := enter(s, anyone); got != connlimit.Fits {
		t.Errorf("a list: %v", got)
	}
	if n := s.client.Counts(); n.Refused == 0 || n.Down {
		t.Errorf("%+v", n)
	}
}

// TestKeys: what a client is called by whoever names it decides nothing but its origin.
func TestKeys(t *testing.T) {
	s := gateway(t, "redis://127.0.0.1:1/0?prefix=mx/", connlimit.SessionLimits{})
	for addr, want := range map[string]string{
		"192.0.2.1": "192.0.2.1/32", "::ffff:192.0.2.1": "192.0.2.1/32", "::ffff:c000:201": "192.0.2.1/32", "2001:DB8:0:0:ffff::1": "2001:db8::/64",
		"fe80::1%eth0": "fe80::/64", "fe80::1%a}b{c": "fe80::/64", "fe80::1%\r\nFLUSHALL": "fe80::/64", "::ffff:192.0.2.1%x": "192.0.2.1/32", "::192.0.2.1": "::/64",
	} {
		if got := s.key(connlimit.Origin(netip.MustParseAddr(addr))); got != "mx/sessions:smtp:{"+want+"}" {
			t.Errorf("%q: %q", addr, got)
		}
	}
}

// FuzzVerdict: whatever a store says, the session comes in or is refused for a reason that the script knows.
func FuzzVerdict(f *testing.F) {
	f.Add(int64(0), "", false)
	f.Add(int64(-1), "x", true)
	f.Fuzz(func(t *testing.T, n int64, text string, failed bool) {
		var err error
		if failed {
			err = errors.New(text)
		}
		for _, result := range []any{n, text, nil, []any{n, text}} {
			switch got, h := verdict(result, err); {
			case got == connlimit.Fits:
			case err != nil || got == connlimit.FullTotal || got > connlimit.Banned || h != heard || result != int64(got):
				t.Errorf("%v, %v: %v", result, err, got)
			}
		}
	})
}
