package main

import (
	"errors"
	"io"
	"log/slog"

	"postern/internal/proxyheader"
)

// readProxyHeader takes the client's address from the load balancer. Nothing is sent before the header
// is whole, and nothing at all if it is not right.
func (s *session) readProxyHeader() (o outcome, ok bool) {
	if !s.wait.begin(forCommand, s.conf.ProxyTimeout) {
		return dropped(gateProxy), false
	}
	defer s.wait.end()
	var err error
	for err == nil {
		var window []byte
		if window, err = s.conn.More(proxyheader.MaxSize); err != nil {
			break
		}
		var h proxyheader.Header
		var n int
		if h, n, err = proxyheader.Parse(window); err != nil || n == 0 {
			continue
		}
		s.conn.Discard(n)
		if h.Source.IsValid() {
			s.client.addr, s.client.local = h.Source, h.Destination
		}
		if s.conn.Buffered() > 0 && s.client.listener != listenSMTPS {
			return earlyTalker, false
		}
		return o, true
	}
	level := slog.LevelInfo
	if s.conn.Buffered() == 0 && errors.Is(err, io.EOF) {
		level = slog.LevelDebug // a load balancer that looks whether we live
	}
	s.srv.log.Log(s.srv.ctx, level, "no PROXY header", "session", s.id, "peer", s.client.peer.String(), "error", err)
	return dropped(gateProxy), false
}
