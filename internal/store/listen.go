package store

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// quiet is how long a channel may be silent until the server is asked whether it is there.
const quiet = 3 * time.Second

// Listen calls each for every message on a channel, until ctx ends, and state whenever messages begin, or begin again,
// to come, and when they end. It connects again by itself; what is said meanwhile is lost.
func (c *Client) Listen(ctx context.Context, channel string, each func(message string), state func(hears bool)) {
	for ctx.Err() == nil {
		c.listen(ctx, channel, each, state)
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
	}
}

// listen is Listen on one connection.
func (c *Client) listen(ctx context.Context, channel string, each func(message string), state func(hears bool)) {
	sub := c.db.Subscribe(ctx, channel)
	defer context.AfterFunc(ctx, func() { _ = sub.Close() })()
	defer sub.Close()
	hears, asked := false, false
	for {
		patience := c.limit
		if hears && !asked {
			patience = quiet
		}
		got, err := sub.ReceiveTimeout(ctx, patience)
		switch m := got.(type) {
		case *redis.Message:
			each(m.Payload)
		case *redis.Subscription:
			if !hears {
				hears = true
				state(true)
				defer state(false)
			}
		}
		switch {
		case err == nil:
			asked = false
		case hears && !asked && isTimeout(err):
			// Silence, or a server that is gone?
			if sub.Ping(ctx) != nil {
				return
			}
			asked = true
		default:
			return
		}
	}
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}
