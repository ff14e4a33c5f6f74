package stamp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"postern/internal/store"
)

// Shared is a store in a Redis or Valkey. The server's clock alone counts.
//
// A stamp is a key of its own, which the server removes when it is too old; so a look costs one round trip and needs
// one key, whatever node of a Cluster has it. Beside it there is one sorted set of all names with the time when each
// ends. Whoever takes a name out of it, in one step, says that the stamp is gone: so all hear of it, once, and in the
// order of what happened.
type Shared struct {
	client *store.Client
	maxAge time.Duration
	bits   int
}

// NewShared returns the store behind client, for stamps that are good for maxAge (0 = DefaultMaxAge), in which so many
// bits of an IPv6 address count (0 = all).
func NewShared(client *store.Client, maxAge time.Duration, bits int) *Shared {
	if maxAge <= 0 {
		maxAge = DefaultMaxAge
	}
	return &Shared{client, maxAge, bits}
}

// Name is the end of the key.
func (s *Shared) Name(addr netip.Addr) string { return nameWithin(addr, s.bits) }

func (s *Shared) key(name string) string { return s.client.Key("stamp:" + name) }
func (s *Shared) index() string          { return s.client.Key("stamps") }
func (s *Shared) channel() string        { return s.client.Key("stamp-events") }

const luaNow = `local t = redis.call('TIME'); local now = t[1] * 1000 + math.floor(t[2] / 1000)
`

var (
	// KEYS: stamp. ARGV: rest of the line, milliseconds to live.
	writeScript = store.NewScript(luaNow + `
		redis.call('SET', KEYS[1], t[1] .. ' ' .. ARGV[1], 'PX', ARGV[2])
		return 1`)
	// KEYS: index. ARGV: name, milliseconds to live, channel, event.
	noteScript = store.NewScript(luaNow + `
		redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
		redis.call('PUBLISH', ARGV[3], ARGV[4])
		return 1`)
	// KEYS: stamp. ARGV: milliseconds that it may be old.
	lookScript = store.NewScript(luaNow + `
		local line = redis.call('GET', KEYS[1])
		if not line then return false end
		local written = tonumber(string.match(line, '^%d+')) or 0
		if now - written * 1000 > ARGV[1] + 999 then return false end
		return line`)
	// KEYS: stamp.
	removeScript = store.NewScript(`return redis.call('DEL', KEYS[1])`)
	// KEYS: index. ARGV: name, channel.
	forgetScript = store.NewScript(`
		local gone = redis.call('ZREM', KEYS[1], ARGV[1])
		if gone == 1 then redis.call('PUBLISH', ARGV[2], 'X ' .. ARGV[1]) end
		return gone`)
	// KEYS: index. ARGV: milliseconds from now, most names, channel. Takes out those that end before that.
	dueScript = store.NewScript(luaNow + `
		local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. string.format('%.0f', now + ARGV[1]), 'LIMIT', 0, ARGV[2])
		for _, name in ipairs(due) do
			redis.call('ZREM', KEYS[1], name)
			redis.call('PUBLISH', ARGV[3], 'X ' .. name)
		end
		return due`)
	// KEYS: stamp. ARGV: milliseconds. Removes one that has no longer to live.
	oldScript = store.NewScript(`
		if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then return redis.call('DEL', KEYS[1]) end
		return 0`)
	// KEYS: index. ARGV: first and last place.
	listScript = store.NewScript(`return redis.call('ZRANGE', KEYS[1], ARGV[1], ARGV[2])`)
)

// Touch sets the key and the entry of the index in one round trip.
func (s *Shared) Touch(ctx context.Context, addr netip.Addr, user, server string) error {
	name, err := keyOf(addr, s.bits)
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(line(0, name, user, server), " ")
	life := s.maxAge.Milliseconds()
	_, err = s.client.RunAll(ctx,
		store.Step{Script: writeScript, Keys: []string{s.key(name)}, Args: []any{rest, life}},
		store.Step{Script: noteScript, Keys: []string{s.index()}, Args: []any{name, life, s.channel(), "P " + name + " " + word(user)}})
	if err != nil {
		return fmt.Errorf("write stamp %q: %w", name, err)
	}
	return nil
}

// Look costs one round trip.
func (s *Shared) Look(ctx context.Context, addr netip.Addr) (Stamp, bool, error) {
	name, err := keyOf(addr, s.bits)
	if err != nil {
		return Stamp{}, false, err
	}
	result, err := s.client.Run(ctx, lookScript, []string{s.key(name)}, s.maxAge.Milliseconds())
	if err != nil {
		return Stamp{}, false, fmt.Errorf("look for stamp: %w", err)
	}
	text, ok := result.(string)
	if !ok {
		return Stamp{}, false, nil
	}
	return parseLine(name, text), true, nil
}

// parseLine reads a stamp of that name.
func parseLine(name, text string) Stamp {
	st := Stamp{}
	st.Addr, _ = parseName(name)
	var unix int64
	if _, err := fmt.Sscan(text, &unix); err == nil {
		st.Written = time.Unix(unix, 0)
	}
	st.parse(text)
	return st
}

// Remove removes the key and the entry of the index.
func (s *Shared) Remove(ctx context.Context, addr netip.Addr) (bool, error) {
	name, err := keyOf(addr, s.bits)
	if err != nil {
		return false, err
	}
	results, err := s.client.RunAll(ctx,
		store.Step{Script: removeScript, Keys: []string{s.key(name)}},
		store.Step{Script: forgetScript, Keys: []string{s.index()}, Args: []any{name, s.channel()}})
	if err != nil {
		return false, fmt.Errorf("remove stamp %q: %w", name, err)
	}
	return results[0] == int64(1), nil
}

// Bounds for a store whose index has no end.
const (
	maxSweep = 1 << 20 // stamps that are taken out at a time
	maxList  = 1 << 24 // stamps that are listed
)

// Expire takes out of the index what ends, and has all hear of it; the server removes the keys by itself unless age is
// less than they live.
func (s *Shared) Expire(ctx context.Context, age time.Duration, removed func(netip.Addr)) error {
	ahead := max(0, s.maxAge-age).Milliseconds()
	for n := 0; n < maxSweep && ctx.Err() == nil; n += sweepBatch { // what is left is for the next time
		result, err := s.client.Run(ctx, dueScript, []string{s.index()}, ahead, sweepBatch, s.channel())
		if err != nil {
			return fmt.Errorf("sweep stamps: %w", err)
		}
		names, _ := result.([]any)
		var steps []store.Step
		for _, n := range names {
			name, _ := n.(string)
			steps = append(steps, store.Step{Script: oldScript, Keys: []string{s.key(name)}, Args: []any{ahead}})
			if addr, ok := parseName(name); ok {
				removed(addr)
			}
		}
		if ahead > 0 && len(steps) > 0 {
			if _, err := s.client.RunAll(ctx, steps...); err != nil {
				return fmt.Errorf("sweep stamps: %w", err)
			}
		}
		if len(names) < sweepBatch {
			return nil
		}
	}
	return ctx.Err()
}

// List looks up the names of the index, many at a time. A stamp that is renewed meanwhile may be called twice.
func (s *Shared) List(ctx context.Context, each func(Stamp) bool) error {
	for at := 0; at < maxList && ctx.Err() == nil; at += sweepBatch {
		result, err := s.client.Run(ctx, listScript, []string{s.index()}, at, at+sweepBatch-1)
		if err != nil {
			return fmt.Errorf("list stamps: %w", err)
		}
		names, _ := result.([]any)
		if len(names) == 0 {
			return nil
		}
		steps := make([]store.Step, len(names))
		for i, n := range names {
			name, _ := n.(string)
			steps[i] = store.Step{Script: lookScript, Keys: []string{s.key(name)}, Args: []any{s.maxAge.Milliseconds()}}
		}
		lines, err := s.client.RunAll(ctx, steps...)
		if err != nil {
			return fmt.Errorf("list stamps: %w", err)
		}
		for i, text := range lines {
			name, _ := names[i].(string)
			if text, ok := text.(string); ok && !each(parseLine(name, text)) {
				return nil
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return errors.New("list stamps: the store has no end of them")
}

// Watch calls each for what happens to stamps at every gateway.
func (s *Shared) Watch(ctx context.Context, each func(Event), hears func(bool)) {
	s.client.Listen(ctx, s.channel(), func(message string) {
		if e, ok := parseEvent(message); ok {
			each(e)
		}
	}, hears)
}

// parseEvent reads "P NAME USER" or "X NAME".
func parseEvent(message string) (Event, bool) {
	words := strings.Split(message, " ")
	switch {
	case len(words) == 3 && words[0] == "P":
	case len(words) == 2 && words[0] == "X":
		words = append(words, "-")
	default:
		return Event{}, false
	}
	if _, ok := parseName(words[1]); !ok {
		return Event{}, false
	}
	return Event{Gone: words[0] == "X", Name: words[1], User: unword(words[2])}, true
}
