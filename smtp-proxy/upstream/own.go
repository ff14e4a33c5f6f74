package upstream

import (
	"context"
	"net"
	"net/netip"
	"slices"
)

// Blind gives the servers to which every client is this host itself, because nothing tells them who it is:
// programs, UNIX sockets, and addresses of this host. By that many mail servers decide for whom they relay.
// LMTP servers and Maildirs relay for nobody. Names are looked up until ctx ends; one that is not found then
// counts for nothing.
func (c Config) Blind(ctx context.Context) []string {
	if c.ClientIP != "" && c.ClientIP != ClientIPNone {
		return nil
	}
	var blind []string
	for _, u := range c.URLs {
		if e, err := parseEndpoint(u); err == nil && e.onThisHost(ctx) {
			blind = append(blind, u)
		}
	}
	return blind
}

// onThisHost says whether an SMTP server sees this host's address, or none, as that of its client.
func (e endpoint) onThisHost(ctx context.Context) bool {
	switch {
	case e.lmtp || e.network == "maildir":
		return false
	case e.network != "tcp":
		return true
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", e.host)
	if err != nil {
		return false
	}
	own := ownAddresses()
	return slices.ContainsFunc(addrs, func(a netip.Addr) bool {
		a = a.Unmap().WithZone("")
		return a.IsLoopback() || a.IsUnspecified() || slices.Contains(own, a)
	})
}

// ownAddresses gives the addresses of this host.
func ownAddresses() []netip.Addr {
	all, _ := net.InterfaceAddrs()
	var own []netip.Addr
	for _, a := range all {
		if p, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(p.IP); ok {
				own = append(own, addr.Unmap())
			}
		}
	}
	return own
}
