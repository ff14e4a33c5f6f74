// Package store is the connection to the Redis or Valkey that any number of gateways share: one server, one behind
// Sentinels, or a Cluster. A request takes one round trip and never longer than the time-out; while the server does
// not answer, requests fail at once, but for one now and then that sees whether it is back.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// ErrDown is the error of requests that were not tried, because the server does not answer.
var ErrDown = errors.New("store is down")

// connections bounds the connections to each server. A request needs one for a round trip.
const connections = 32

// retry is how often a server that does not answer is tried.
const retry = 200 * time.Millisecond

// Client asks the server. It is safe for any number of goroutines.
type Client struct {
	db     redis.UniversalClient
	prefix string
	limit  time.Duration
	guard  guard
	log    *slog.Logger

	answered, refused, failed, skipped atomic.Uint64
	complained                         atomic.Int64 // when a refusal was logged last, in Unix seconds
}

// Counts are what became of requests since the start, and whether the server answers. Refused ones were answered with an
// error, such as one of rights.
type Counts struct {
	Answered, Refused, Failed, Skipped uint64
	Down                               bool
}

// Open makes a client. It connects when there is something to ask.
func Open(o *Options, log *slog.Logger) *Client {
	silence()
	c := &Client{db: connect(o), prefix: o.Prefix, limit: o.Timeout, log: log}
	c.guard = guard{now: time.Now, every: min(o.Timeout, retry), told: c.told}
	return c
}

// silence keeps the library, which has one logger for the whole process, from writing to standard error: what matters
// is in our errors.
var silence = sync.OnceFunc(func() { redis.SetLogger(&logging.VoidLogger{}) })

func connect(o *Options) redis.UniversalClient {
	return redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs: o.Addrs, DB: o.DB, Username: o.User, Password: o.Password, TLSConfig: o.TLS, Dialer: dialer(o),
		SentinelUsername: o.User, SentinelPassword: o.Password, MasterName: o.Master, IsClusterMode: o.Cluster,
		DialTimeout: o.Timeout, ReadTimeout: o.Timeout, WriteTimeout: o.Timeout, PoolTimeout: o.Timeout, ContextTimeoutEnabled: true,
		MaxRetries: 1, MinRetryBackoff: time.Millisecond, MaxRetryBackoff: time.Millisecond, DialerRetries: 1,
		PoolSize: connections, DisableIdentity: true, MaintNotificationsConfig: noMaintenance(),
	})
}

// noMaintenance keeps the library from asking for news that only a vendor's servers have.
func noMaintenance() *maintnotifications.Config {
	return &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
}

// told logs that the server stopped to answer, or answers again.
func (c *Client) told(down bool, lasted time.Duration, cause error) {
	if down {
		c.log.Error("store does not answer", "error", cause)
		return
	}
	c.log.Warn("store answers again", "seconds", int(lasted.Seconds()))
}

// Key returns the name of a key of ours.
func (c *Client) Key(name string) string { return c.prefix + name }

// Counts returns what became of requests so far.
func (c *Client) Counts() Counts {
	return Counts{c.answered.Load(), c.refused.Load(), c.failed.Load(), c.skipped.Load(), c.guard.isDown()}
}

// Close ends all connections.
func (c *Client) Close() error { return c.db.Close() }

// ask has do ask the server, if that makes sense, within the time-out.
func (c *Client) ask(ctx context.Context, do func(context.Context) error) error {
	if !c.guard.allow() {
		c.skipped.Add(1)
		return ErrDown
	}
	within, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	err := do(within)
	var said redis.Error
	answered := err == nil || errors.Is(err, redis.Nil) || errors.As(err, &said) && !passing(said)
	switch {
	case err != nil && answered:
		c.refused.Add(1)
		c.guard.done(nil)
		c.complain(said)
	case answered:
		c.answered.Add(1)
		c.guard.done(nil)
	case ctx.Err() != nil: // the caller gave up, which says nothing of the server
		c.failed.Add(1)
	default:
		c.failed.Add(1)
		c.guard.done(err)
	}
	return err
}

// complain logs what the server has against a request: once a minute at most, as the next one is likely to fare no better.
func (c *Client) complain(said redis.Error) {
	now := c.guard.now().Unix()
	if last := c.complained.Load(); now-last >= 60 && c.complained.CompareAndSwap(last, now) {
		c.log.Error("store refuses requests", "error", said)
	}
}

// passing reports whether a server says that it cannot work for now: it starts, has lost its master, or has no
// majority.
func passing(err redis.Error) bool {
	return redis.IsLoadingError(err) || redis.IsReadOnlyError(err) || redis.IsClusterDownError(err) || redis.IsMasterDownError(err)
}

// Script is a program in Lua that the server runs as one step. The keys of a run must be in one slot of a Cluster.
type Script struct{ script *redis.Script }

// NewScript returns the script with this text.
func NewScript(text string) *Script { return &Script{redis.NewScript(text)} }

// Run runs a script. Its result is nil, an int64, a string or a []any of these.
func (c *Client) Run(ctx context.Context, s *Script, keys []string, args ...any) (result any, err error) {
	err = c.ask(ctx, func(ctx context.Context) (err error) {
		result, err = s.script.Run(ctx, c.db, keys, args...).Result()
		if errors.Is(err, redis.Nil) {
			result, err = nil, nil
		}
		return err
	})
	return result, err
}

// Step is one script of several that are sent together.
type Step struct {
	Script *Script
	Keys   []string
	Args   []any
}

// RunAll sends several scripts at once. Each is one step of its own; the first error is returned.
func (c *Client) RunAll(ctx context.Context, steps ...Step) (results []any, err error) {
	err = c.ask(ctx, func(ctx context.Context) error {
		pipe := c.db.Pipeline()
		for _, s := range steps {
			s.Script.script.Eval(ctx, pipe, s.Keys, s.Args...) // a pipeline cannot ask again with the text
		}
		commands, err := pipe.Exec(ctx)
		if errors.Is(err, redis.Nil) {
			err = nil // the first of them, and there may be others
		}
		results = make([]any, len(commands))
		for i, command := range commands {
			var failed error
			results[i], failed = command.(*redis.Cmd).Result()
			if err == nil && !errors.Is(failed, redis.Nil) {
				err = failed
			}
		}
		return err
	})
	return results, err
}

// Ping asks whether the server is there and lets us in.
func (c *Client) Ping(ctx context.Context) error {
	err := c.ask(ctx, func(ctx context.Context) error { return c.db.Ping(ctx).Err() })
	if err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	return nil
}
