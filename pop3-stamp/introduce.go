package main

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/pires/go-proxyproto"
)

// How an upstream server is told who the client is.
const (
	clientByXClient = "xclient"
	clientByProxy1  = "proxy1"
	clientByProxy2  = "proxy2"
)

// sendProxyHeader says who the client is in front of everything else. A client without an address is a
// connection of our own.
func (b *backend) sendProxyHeader(how string, who client) error {
	var version byte
	switch how {
	case clientByProxy1:
		version = 1
	case clientByProxy2:
		version = 2
	default:
		return nil
	}
	var from, to net.Addr
	if who.addr.IsValid() {
		local := who.local
		if local.Addr().Is4() != who.addr.Addr().Is4() { // both must be of one family
			local = netip.AddrPortFrom(netip.IPv6Loopback(), local.Port())
			if who.addr.Addr().Is4() {
				local = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), local.Port())
			}
		}
		from, to = tcpAddr(who.addr), tcpAddr(local)
	}
	header, err := proxyproto.HeaderProxyFromAddrs(version, from, to).Format()
	if err == nil {
		_ = b.conn.SetWriteDeadline(time.Now().Add(b.timeout))
		_, err = b.conn.Write(header)
	}
	if err != nil {
		return fmt.Errorf("PROXY header: %w", err)
	}
	return nil
}

func tcpAddr(a netip.AddrPort) *net.TCPAddr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(a.Addr().WithZone(""), a.Port()))
}

// sendXClient says who the client is as Dovecot takes it from those in its login_trusted_networks. Where that
// fails nobody logs in: the server would take all clients for one.
func (b *backend) sendXClient(how string, who client) error {
	if how != clientByXClient || !who.addr.IsValid() {
		return nil
	}
	a, err := b.ask(fmt.Sprintf("XCLIENT ADDR=%s PORT=%d", who.addr.Addr().WithZone(""), who.addr.Port()))
	if err == nil && !a.ok {
		err = fmt.Errorf("-ERR %s", a.text)
	}
	if err != nil {
		return fmt.Errorf("XCLIENT: %w", err)
	}
	return nil
}
