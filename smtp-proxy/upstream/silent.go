package upstream

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
)

// Silent asks the servers that are reached over a socket for their first byte, and says which do not give it until ctx
// ends, or lack what the settings want of them, and why.
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
				said[i] = fmt.Sprintf("the next hop %s does not answer: %v", u, err)
			} else if err := c.fits(ctx, u); err != nil {
				said[i] = fmt.Sprintf("the next hop %s gets no mail with these settings: %v", u, err)
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

// fits says what keeps a next hop from being told of clients, or spoken to in private, where the settings want that.
func (c Config) fits(ctx context.Context, url string) error {
	if c.ClientIP != ClientIPXClient && c.TLS != TLSRequire && c.TLS != TLSVerify {
		return nil
	}
	c.URLs, c.Log = []string{url}, slog.New(slog.DiscardHandler)
	set, err := New(c)
	if err != nil {
		return err
	}
	defer set.Close()
	conn, err := set.Get(ctx, Client{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 1}), 1), Proto: "ESMTP"}) // RFC 5737
	if err != nil {
		return err
	}
	conn.Release()
	return nil
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
