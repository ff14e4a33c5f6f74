package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"postern/smtp-proxy/upstream"
)

// newUpstreams makes the connections to next hops that the settings want.
func newUpstreams(s *settings, files *tls.Config, log *slog.Logger) (*upstream.Set, error) {
	c, err := s.upstreamConfig()
	if err != nil {
		return nil, err
	}
	c.TLSConfig, c.Log = files, log
	return upstream.New(c)
}

// upstreamConfig returns what the settings say of the next hops.
func (s *settings) upstreamConfig() (upstream.Config, error) {
	c := upstream.Config{
		URLs: s.Upstream, TLS: upstream.TLS(s.UpstreamTLS), Helo: s.UpstreamHelo, ClientIP: upstream.ClientIP(s.UpstreamClientIP),
		MaxConns: s.UpstreamConnections, MaxShare: s.upstreamShare(), ConnectTimeout: s.ConnectTimeout, LMTPRecipients: s.LMTPRecipients,
		HelloTimeout: min(s.UpstreamTimeout, time.Minute), WriteTimeout: min(s.UpstreamTimeout, 3*time.Minute),
	}
	if c.Helo == "" {
		c.Helo = s.host
	}
	if s.UpstreamSource != "" {
		addr, err := netip.ParseAddr(s.UpstreamSource)
		if err != nil {
			return c, fmt.Errorf("source address: %w", err)
		}
		c.Source = addr
	}
	return c, c.Check()
}

// upstreamShare returns how many connections to one server the clients of one address may have.
func (s *settings) upstreamShare() int {
	switch {
	case s.UpstreamShare > 0:
		return s.UpstreamShare
	case s.UpstreamConnections > 0:
		return max(1, s.UpstreamConnections/4)
	}
	return 50 // half of what a Postfix has if nobody says otherwise; it gives one client as much
}

// holdConfig returns where messages go that the filter wants held.
func (s *settings) holdConfig() upstream.Config {
	return upstream.Config{URLs: []string{s.Hold}, Helo: s.host, LMTPRecipients: s.MaxRecipients}
}

// serverName returns the name of the next hop for status files: what a URL has behind its scheme.
func serverName(url string) string {
	_, name, found := strings.Cut(url, ":")
	if !found {
		return url
	}
	return strings.TrimPrefix(name, "//")
}
