package main

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"time"

	"postern/internal/smtp"
)

// clientIP gives the client's address as filters know it; a local socket is 127.0.0.1.
func (s *session) clientIP() string {
	if f := s.forward; f != nil && f.addr.IsValid() {
		return f.addr.String()
	}
	if !s.client.Addr().IsValid() {
		return "127.0.0.1"
	}
	return s.client.Addr().WithZone("").String()
}

// clientPort gives the client's port as filters know it.
func (s *session) clientPort() int {
	if f := s.forward; f != nil && f.addr.IsValid() {
		return int(f.port)
	}
	return int(s.client.Port())
}

// clientHelo gives the client's name in HELO as filters know it.
func (s *session) clientHelo() string {
	if f := s.forward; f != nil && f.helo != "" {
		return f.helo
	}
	return s.helo
}

// localIP gives the address that the client connected to.
func (s *session) localIP() string {
	if !s.local.Addr().IsValid() {
		return ""
	}
	return s.local.Addr().WithZone("").String()
}

// hostName gives the client's name as filters know it: its address in square brackets if it has none.
func (s *session) hostName() string {
	if name := s.clientName(); name != "" {
		return name
	}
	return "[" + s.clientIP() + "]"
}

// clientName looks the client's name up, once, when somebody wants it. It counts only if the name has
// that address as well; what else the client has for a name is noted in claimed.
func (s *session) clientName() string {
	if f := s.forward; f != nil && f.addr.IsValid() {
		return f.name
	}
	if s.name != "" || s.looked || !bool(s.conf.ClientLookup) {
		return s.name
	}
	s.looked = true
	if !s.client.Addr().IsValid() {
		return ""
	}
	ctx, cancel := context.WithTimeout(s.background(), lookupTimeout)
	defer cancel()
	s.name, s.claimed = lookUpName(ctx, net.DefaultResolver, s.client.Addr())
	return s.name
}

// Looking up a client's name, both ways, is bounded in time and in the names that are tried.
const (
	lookupTimeout = 5 * time.Second
	lookupNames   = 32
)

// resolver is the part of net.Resolver that is used.
type resolver interface {
	LookupAddr(ctx context.Context, addr string) ([]string, error)
	LookupHost(ctx context.Context, host string) ([]string, error)
}

// lookUpName gives the first name of addr that has this address as well; claimed is the first one, if none has.
func lookUpName(ctx context.Context, r resolver, addr netip.Addr) (name, claimed string) {
	addr = addr.WithZone("").Unmap()
	names, _ := r.LookupAddr(ctx, addr.String()) // there may be some beside an error
	for _, name := range names[:min(len(names), lookupNames)] {
		name = strings.TrimSuffix(name, ".")
		if !smtp.IsGreetingName(name) {
			continue
		}
		if hasAddress(ctx, r, name, addr) {
			return name, ""
		}
		if claimed == "" {
			claimed = name
		}
	}
	return "", claimed
}

// hasAddress reports whether a name has an address.
func hasAddress(ctx context.Context, r resolver, name string, addr netip.Addr) bool {
	addrs, _ := r.LookupHost(ctx, name)
	for _, text := range addrs {
		if a, err := netip.ParseAddr(text); err == nil && a.WithZone("").Unmap() == addr {
			return true
		}
	}
	return false
}
