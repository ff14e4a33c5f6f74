package sockspec

import (
	"net"
	"net/netip"
)

// AddrPort returns the address at one end of a TCP connection as [Plain] has it; it is not valid for other sockets.
func AddrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	return Plain(tcp.AddrPort())
}

// Plain returns an address in the one form that can be compared: an IPv4 address that came as IPv6 is one of IPv4, and
// there is no zone.
func Plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
