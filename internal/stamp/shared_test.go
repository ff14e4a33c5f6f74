package stamp

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/store"
	"postern/internal/testenv"
)

// shared opens the store at a URL, with more time than a busy machine takes.
func shared(t *testing.T, url string, maxAge time.Duration, bits int) *Shared {
	t.Helper()
	set := store.Settings{StoreURL: url, StoreTimeout: testenv.Patience}
	o, err := set.Load()
	if err != nil {
		t.Fatal(err)
	}
	c := store.Open(o, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { c.Close() })
	return NewShared(c, maxAge, bits)
}

// look is the stamp of an address; the user is "" and ok false without one.
func look(t *testing.T, s Store, addr string) (Stamp, bool) {
	t.Helper()
	st, ok, err := s.Look(ctx, netip.MustParseAddr(addr))
	if err != nil {
		t.Errorf("look for %s: %v", addr, err)
	}
	return st, ok
}

func touch(t *testing.T, s Store, addr, user string) {
	t.Helper()
	if err := s.Touch(ctx, netip.MustParseAddr(addr), user, "pop.example:110"); err != nil {
		t.Fatalf("touch %s: %v", addr, err)
	}
}

func names(t *testing.T, s Store) []string {
	t.Helper()
	var all []string
	if err := s.List(ctx, func(st Stamp) bool { all = append(all, st.Addr.String()+"/"+st.User); return true }); err != nil {
		t.Errorf("list: %v", err)
	}
	slices.Sort(all)
	return all
}

// behaves is what is true of a store of any kind. It begins and ends empty.
func behaves(t *testing.T, s Store) {
	t.Helper()
	hostile := "bob smith\n/../..\x00%\xff X"
	if _, ok := look(t, s, "192.0.2.7"); ok {
		t.Error("a stamp before there is one")
	}
	touch(t, s, "::ffff:192.0.2.7", hostile)
	touch(t, s, "2001:db8::9%eth0", "")
	st, ok := look(t, s, "192.0.2.7")
	if !ok || st.User != hostile || st.Server != "pop.example:110" || st.Addr.String() != "192.0.2.7" || time.Since(st.Written).Abs() > time.Hour {
		t.Errorf("stamp %+v, %v", st, ok)
	}
	if st, ok := look(t, s, "2001:DB8:0::9"); !ok || st.User != "" {
		t.Errorf("stamp of an IPv6 client %+v, %v", st, ok)
	}
	if _, ok := look(t, s, "192.0.2.8"); ok {
		t.Error("another address has a stamp")
	}
	if got := names(t, s); len(got) != 2 || got[0] != "192.0.2.7/"+hostile || got[1] != "2001:db8::9/" {
		t.Errorf("list %q", got)
	}
	for _, want := range []bool{true, false} {
		if gone, err := s.Remove(ctx, client); gone != want || err != nil {
			t.Errorf("remove: %v, %v; want %v", gone, err, want)
		}
	}
	if _, ok := look(t, s, "192.0.2.7"); ok {
		t.Error("a stamp behind its removal")
	}
	expired := func(age time.Duration) (n int) {
		if err := s.Expire(ctx, age, func(netip.Addr) { n++ }); err != nil {
			t.Errorf("expire: %v", err)
		}
		return n
	}
	if n := expired(time.Hour); n != 0 {
		t.Errorf("%d expired, none is old", n)
	}
	n := 0
	testenv.Eventually(t, "the stamp is older than a millisecond", func() bool { n += expired(time.Millisecond); return n > 0 })
	if n != 1 || len(names(t, s)) != 0 {
		t.Errorf("%d expired and %q left, want the one that there is", n, names(t, s))
	}
	if err := s.Touch(ctx, netip.Addr{}, "", ""); err == nil {
		t.Error("a stamp for no address")
	}
}

func TestStores(t *testing.T) {
	t.Run("directory", func(t *testing.T) {
		d, err := OpenDir(t.TempDir(), 0, "")
		if err != nil {
			t.Fatal(err)
		}
		behaves(t, d)
	})
	testenv.EachStore(t, func(t *testing.T, program string) {
		behaves(t, shared(t, testenv.StartStore(t, program).URL(), 0, 0))
		s := shared(t, testenv.StartCluster(t, program).URL(), 0, 0)
		behaves(t, s)
		hears(t, s, s)
	})
}

// hears has what one does to stamps heard by another.
func hears(t *testing.T, does, watches *Shared) {
	t.Helper()
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	events, ready := make(chan Event, 100), make(chan bool, 10)
	ended := testenv.Go(t, "the watch", func() error {
		watches.Watch(within, func(e Event) { events <- e }, func(hears bool) { ready <- hears })
		return nil
	})
	testenv.Receive(t, "the watch", ready)
	touch(t, does, "192.0.2.9", "ann smith")
	if _, err := does.Remove(ctx, netip.MustParseAddr("192.0.2.9")); err != nil {
		t.Error(err)
	}
	for _, want := range []Event{{Name: "192.0.2.9", User: "ann smith"}, {Name: "192.0.2.9", Gone: true}} {
		if got := testenv.Receive(t, "an event", events); got != want {
			t.Errorf("heard %+v, want %+v", got, want)
		}
	}
	cancel()
	ended.Wait()
}

// TestSharedAge: the server's clock removes stamps; a reader may want them younger, and all hear that they are gone.
func TestSharedAge(t *testing.T) {
	r := testenv.StartRedis(t)
	short, long := shared(t, r.URL(), time.Second, 0), shared(t, r.URL(), time.Hour, 0)
	touch(t, short, "192.0.2.1", "ann")
	testenv.Eventually(t, "the stamp is too old", func() bool { _, ok := look(t, long, "192.0.2.1"); return !ok })
	gone := 0
	testenv.Eventually(t, "the sweep", func() bool {
		if err := long.Expire(ctx, time.Hour, func(netip.Addr) { gone++ }); err != nil {
			t.Error(err)
		}
		return gone == 1
	})
	touch(t, long, "192.0.2.2", "bob")
	testenv.Eventually(t, "the stamp is too old for who wants younger ones", func() bool { _, ok := look(t, short, "192.0.2.2"); return !ok })
	if _, ok := look(t, long, "192.0.2.2"); !ok {
		t.Error("the stamp is gone for all")
	}
	if ttl := r.Do("TTL", "postern:stamp:192.0.2.2"); ttl == "-1" {
		t.Error("a key that lives for ever")
	}
}

// TestIPv6Networks: with fewer bits a stamp is for all clients of a network, in either kind of store.
func TestIPv6Networks(t *testing.T) {
	d, err := OpenDir(t.TempDir(), 0, "")
	if err != nil {
		t.Fatal(err)
	}
	d.IPv6 = 64
	for name, s := range map[string]Store{"directory": d, "server": shared(t, testenv.StartRedis(t).URL(), 0, 64)} {
		touch(t, s, "2001:db8:0:1:2:3:4:5", "ann")
		touch(t, s, "192.0.2.1", "bob")
		for addr, want := range map[string]bool{"2001:db8:0:1::9": true, "2001:db8:0:2::9": false, "::ffff:192.0.2.1": true, "192.0.2.2": false} {
			if _, ok := look(t, s, addr); ok != want {
				t.Errorf("%s: %s: %v, want %v", name, addr, ok, want)
			}
		}
		if got := s.Name(netip.MustParseAddr("2001:db8:0:1:2:3:4:5")); got != "2001:db8:0:1::" {
			t.Errorf("%s: name %q", name, got)
		}
		if got := names(t, s); len(got) != 2 || got[1] != "2001:db8:0:1::/ann" {
			t.Errorf("%s: list %q", name, got)
		}
	}
}

// TestPOP_82_ForeignValuesInTheStore: what somebody else has put there is no stamp, or one without a user, and no event.
func TestPOP_82_ForeignValuesInTheStore(t *testing.T) {
	r := testenv.StartRedis(t)
	s := shared(t, r.URL(), 0, 0)
	r.Do("SET", "postern:stamp:192.0.2.1", "x")
	r.Do("SET", "postern:stamp:192.0.2.2", "99999999999999999999 192.0.2.2 ann pop\r\nX-Evil: 1")
	r.Do("RPUSH", "postern:stamp:192.0.2.3", "x")
	if _, ok := look(t, s, "192.0.2.1"); ok {
		t.Error("a value without a time admits")
	}
	if st, ok, err := s.Look(ctx, netip.MustParseAddr("192.0.2.2")); ok && strings.ContainsAny(st.User+st.Server, "\r\n") || err != nil {
		t.Errorf("stamp %+v, %v", st, err)
	}
	if _, ok, err := s.Look(ctx, netip.MustParseAddr("192.0.2.3")); ok || err == nil {
		t.Errorf("a list: %v, %v; want an error", ok, err)
	}
	r.Do("ZADD", "postern:stamps", "1", "../../etc/passwd", "1", "192.0.2.300", "2", "192.0.2.4")
	var gone []string
	if err := s.Expire(ctx, time.Hour, func(a netip.Addr) { gone = append(gone, a.String()) }); err != nil || len(gone) != 1 {
		t.Errorf("expired %q, %v", gone, err)
	}
	for _, m := range []string{"", "P", "P x y", "X ../..", "Q 192.0.2.1", "P 192.0.2.1 a b", "X 192.0.2.1\n", "P 192.0.2.1"} {
		if e, ok := parseEvent(m); ok {
			t.Errorf("event %+v of %q", e, m)
		}
	}
	if e, ok := parseEvent("P 192.0.2.1 a%20b"); !ok || e.User != "a b" {
		t.Errorf("event %+v, %v", e, ok)
	}
}

// TestPOP_83_StoreFailsOver: the master dies, Sentinels make the replica the master, and stamps are found and made there.
func TestPOP_83_StoreFailsOver(t *testing.T) { testenv.EachStore(t, failsOver) }

func failsOver(t *testing.T, program string) {
	r := testenv.StartSentinels(t, program)
	s := shared(t, r.URL(), 0, 0)
	touch(t, s, "192.0.2.1", "ann")
	for _, server := range r.Servers {
		testenv.Eventually(t, "the stamp is at both", func() bool { return server.Do("EXISTS", "postern:stamp:192.0.2.1") == "1" })
	}
	r.Master(t).Kill()
	testenv.Eventually(t, "stamps can be made again", func() bool { return s.Touch(ctx, netip.MustParseAddr("192.0.2.2"), "bob", "pop") == nil })
	for _, addr := range []string{"192.0.2.1", "192.0.2.2"} {
		// Until all Sentinels know the new master, some requests go to the old one.
		testenv.Eventually(t, "the stamp of "+addr, func() bool { _, ok, err := s.Look(ctx, netip.MustParseAddr(addr)); return ok && err == nil })
	}
}

// TestManyStamps: a sweep and a list go through more than they hold at a time.
func TestManyStamps(t *testing.T) {
	r := testenv.StartRedis(t)
	s := shared(t, r.URL(), 0, 0)
	const many = 2*sweepBatch + 100
	r.Do("EVAL", `for i = 0, ARGV[1] - 1 do
		local name = '10.0.' .. math.floor(i / 256) .. '.' .. i % 256
		local now = redis.call('TIME')[1]
		redis.call('SET', 'postern:stamp:' .. name, now .. ' ' .. name .. ' u s', 'EX', 600)
		redis.call('ZADD', 'postern:stamps', now * 1000 + 600000, name)
	end`, "0", "2148")
	if got := names(t, s); len(got) != many {
		t.Errorf("%d stamps in the list, want %d", len(got), many)
	}
	r.Do("EVAL", `for _, name in ipairs(redis.call('ZRANGE', 'postern:stamps', 0, -1)) do redis.call('ZADD', 'postern:stamps', 1, name) end`, "0")
	n := 0
	if err := s.Expire(ctx, time.Hour, func(netip.Addr) { n++ }); err != nil || n != many {
		t.Errorf("%d expired, %v; want %d", n, err, many)
	}
}

// TestPOP_90_IndexWithoutEnd: a store whose index never gets shorter is swept for a while, and then again at the next time.
func TestPOP_90_IndexWithoutEnd(t *testing.T) {
	s := shared(t, testenv.StartFakeStore(t, fmt.Sprintf("*%d\r\n%s", sweepBatch, strings.Repeat("$9\r\n192.0.2.1\r\n", sweepBatch))), DefaultMaxAge, 0)
	n := 0
	if err := s.Expire(ctx, DefaultMaxAge, func(netip.Addr) { n++ }); err != nil || n != maxSweep {
		t.Errorf("%d stamps were taken out, %v; want %d", n, err, maxSweep)
	}
}
