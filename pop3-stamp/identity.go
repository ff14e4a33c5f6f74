package main

import (
	"bufio"
	"context"
	"log/slog"
	"net"
	"time"

	"postern/internal/proxyheader"
)

// identify finds out who the client is, if the connection comes from a load balancer. Without a header, or with a
// broken one, nothing is sent. From anybody else a header is a line like any other.
func (s *session) identify(ctx context.Context) bool {
	peer := s.client.Addr()
	if !s.conf.proxyNets.Has(peer) {
		return true
	}
	r := bufio.NewReaderSize(s.raw, proxyheader.MaxSize)
	h, err := s.readProxyHeader(ctx, r)
	if err != nil {
		// Health checks connect and leave, so this is not worth more.
		s.log(slog.LevelDebug, "no PROXY header", "error", err)
		return false
	}
	if h.Source.IsValid() {
		s.client, s.local, s.balancer = h.Source, h.Destination, peer
	}
	if r.Buffered() > 0 {
		// With pop3s the first bytes of the client come together with the header.
		s.use(&prefixed{Conn: s.raw, r: r})
	}
	return true
}

func (s *session) readProxyHeader(ctx context.Context, r *bufio.Reader) (proxyheader.Header, error) {
	if err := s.raw.SetReadDeadline(time.Now().Add(s.conf.ProxyTimeout)); err != nil {
		return proxyheader.Header{}, err
	}
	for {
		if ctx.Err() != nil {
			return proxyheader.Header{}, ctx.Err()
		}
		if _, err := r.Peek(r.Buffered() + 1); err != nil {
			return proxyheader.Header{}, err
		}
		window, _ := r.Peek(r.Buffered())
		h, n, err := proxyheader.Parse(window)
		if err != nil {
			return h, err
		}
		if n > 0 {
			_, err := r.Discard(n)
			return h, err
		}
	}
}

// prefixed is a connection of which some bytes were read already.
type prefixed struct {
	net.Conn
	r *bufio.Reader
}

func (p *prefixed) Read(b []byte) (int, error) {
	if p.r.Buffered() > 0 {
		return p.r.Read(b)
	}
	return p.Conn.Read(b)
}
