// Package connlimit counts by address what clients may do only so often: the limits that daemons share.
package connlimit

import "net/netip"

// Origin returns what limits count by: an IPv4 address, or the /64 of an IPv6 address. Clients without an address, who
// come by a UNIX socket, are all one origin, the zero Prefix.
func Origin(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits)
	return p
}
