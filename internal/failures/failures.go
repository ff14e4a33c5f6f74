// Package failures counts what clients guess wrongly over all gateways, in the store that they share: who guesses
// passwords at one of them is shut out at all, over SMTP and POP3 alike, and so is who guesses addresses.
package failures

import (
	"cmp"
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	"postern/internal/connlimit"
	"postern/internal/store"
)

// Counter counts failures by origin, of this gateway and, once it is shared, of all. While the store does not answer,
// this gateway's count holds alone; it holds beside that of all in any case. It is ready for use by its literal.
type Counter struct {
	Of string // what failed, in the names of keys; "" for logins

	local  connlimit.Logins
	most   atomic.Int64
	shared atomic.Pointer[store.Client]
}

// namesPerOrigin bounds the names that are told apart for one origin in the store.
const namesPerOrigin = 256

// A hash for each origin has the count of each name that was tried, and under "=" that of all. It ends by itself.
var (
	// KEYS: origin. ARGV: name, milliseconds to live, most names.
	failedScript = store.NewScript(`
		local n = redis.call('HINCRBY', KEYS[1], '=', 1)
		if ARGV[1] ~= '' then
			local name = '+' .. ARGV[1]
			if redis.call('HEXISTS', KEYS[1], name) == 1 or redis.call('HLEN', KEYS[1]) <= tonumber(ARGV[3]) then
				redis.call('HINCRBY', KEYS[1], name, 1)
			end
		end
		redis.call('PEXPIRE', KEYS[1], ARGV[2])
		return n`)
	// KEYS: origin. ARGV: name.
	succeededScript = store.NewScript(`
		local name = '+' .. ARGV[1]
		local n = tonumber(redis.call('HGET', KEYS[1], name) or '0')
		if n == 0 then return 0 end
		redis.call('HDEL', KEYS[1], name)
		if redis.call('HINCRBY', KEYS[1], '=', -n) <= 0 then redis.call('DEL', KEYS[1]) end
		return n`)
	// KEYS: origin. ARGV: failures.
	forgiveScript = store.NewScript(`
		local n = tonumber(redis.call('HGET', KEYS[1], '=') or '0') - ARGV[1]
		if n <= 0 then return redis.call('DEL', KEYS[1]) end
		redis.call('HSET', KEYS[1], '=', string.format('%.0f', n))
		return 1`)
	// KEYS: origin.
	countScript = store.NewScript(`return tonumber(redis.call('HGET', KEYS[1], '=') or '0')`)
)

// Share has failures counted in a store as well.
func (l *Counter) Share(c *store.Client) { l.shared.Store(c) }

// Set puts limits into force, as connlimit's does. It may be called at any time.
func (l *Counter) Set(most int, delay time.Duration) {
	l.most.Store(int64(most))
	l.local.Set(most, delay)
}

// Limited reports whether failures shut anybody out.
func (l *Counter) Limited() bool { return l.most.Load() > 0 }

// Shut reports whether this gateway alone has shut the client out. It asks nobody.
func (l *Counter) Shut(addr netip.Addr) bool { return l.local.Shut(addr) }

// ShutByAny reports whether the client may not try again, for its failures here or at all gateways together. It takes
// one round trip, and the store's time-out at most.
func (l *Counter) ShutByAny(ctx context.Context, addr netip.Addr) bool {
	if l.local.Shut(addr) {
		return true
	}
	c, most := l.shared.Load(), l.most.Load()
	if c == nil || most <= 0 || !addr.IsValid() {
		return false
	}
	n, err := c.Run(ctx, countScript, l.keys(c, addr))
	count, _ := n.(int64)
	return err == nil && count >= most
}

// Failed counts a failed login and returns how long the answer is to wait, which depends on the failures here alone.
func (l *Counter) Failed(ctx context.Context, addr netip.Addr, user string) time.Duration {
	if c := l.shared.Load(); c != nil && addr.IsValid() {
		// Where the store does not answer, it has said so itself.
		_, _ = c.Run(ctx, failedScript, l.keys(c, addr), short(user), connlimit.LoginWindow.Milliseconds(), namesPerOrigin)
	}
	return l.local.Failed(addr, user)
}

// Succeeded forgets the failures that were for that name.
func (l *Counter) Succeeded(ctx context.Context, addr netip.Addr, user string) {
	l.local.Succeeded(addr, user)
	if c := l.shared.Load(); c != nil && addr.IsValid() && user != "" {
		_, _ = c.Run(ctx, succeededScript, l.keys(c, addr), short(user))
	}
}

// Forgive takes back at most n failures that this gateway has seen, whatever they were for. Those of others stay.
func (l *Counter) Forgive(ctx context.Context, addr netip.Addr, n int) {
	if !l.Limited() {
		return
	}
	n = l.local.Forgive(addr, n)
	if c := l.shared.Load(); c != nil && n > 0 && addr.IsValid() {
		_, _ = c.Run(ctx, forgiveScript, l.keys(c, addr), n)
	}
}

// Shared returns where the store counts the failures of the client, and how many shut it out; 0 if none do.
func (l *Counter) Shared(addr netip.Addr) (key string, most int) {
	c := l.shared.Load()
	if !l.Limited() || c == nil || !addr.IsValid() {
		return "", 0
	}
	return l.keys(c, addr)[0], int(l.most.Load())
}

// keys are those of an origin. What is in braces decides of the node of a Cluster.
func (l *Counter) keys(c *store.Client, addr netip.Addr) []string {
	return []string{c.Key(cmp.Or(l.Of, "logins") + ":{" + connlimit.Origin(addr).String() + "}")}
}

// short bounds what a client calls itself.
func short(user string) string { return user[:min(len(user), 256)] }
