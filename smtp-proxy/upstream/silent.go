package upstream

import (
	"context"
	"fmt"
	"net"
	"sync"
)

// Silent asks the servers that are reached over a socket for their first byte, and says which do not give it until ctx
// ends, and why.
func (c Config) Silent(ctx context.Context) []string {
	said := make([]string, len(c.URLs))
	var all sync.WaitGroup
	for i, u := range c.URLs {
		e, err := parseEndpoint(u)
		if err != nil || e.network != "tcp" && e.network != "unix" {
			continue
		}
		all.Go(func() {
			if err := e.greets(ctx); err != nil {
				said[i] = fmt.Sprintf("the server behind %s does not answer: %v", u, err)
			}
		})
	}
	all.Wait()
	var silent []string
	for _, text := range said {
		if text != "" {
			silent = append(silent, text)
		}
	}
	return silent
}

// greets waits for the first byte of the server, or for the connection if the client has to speak first.
func (e endpoint) greets(ctx context.Context) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, e.network, e.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if e.tls {
		return nil
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err = conn.Read(make([]byte, 1)); ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
