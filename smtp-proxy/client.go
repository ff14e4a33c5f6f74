package main

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"strings"
	"time"

	"postern/internal/connlimit"
	"postern/internal/netlist"
	"postern/internal/smtp"
	"postern/smtp-proxy/upstream"
)

// client is who is at the other end of a session, as far as that is known: from its connection, a PROXY
// header or XCLIENT, TLS, its greeting and AUTH. Gates, log, Received field, filter and next hop ask it.
type client struct {
	listener string         // where it came in
	peer     netip.AddrPort // the other end of the connection
	addr     netip.AddrPort // the client: the peer, unless a trusted one named another; not valid for a UNIX socket
	local    netip.AddrPort // where it connected to

	lookUp  func(netip.Addr) (name, claimed string) // asks the DNS; nil: names are not looked up
	looked  bool
	name    string // from the DNS, once looked up, or from XCLIENT
	claimed string // a name that the DNS has for the client, and that has not the client's address

	helo    string
	esmtp   bool       // it said EHLO
	offered extensions // in reply to that
	tls     *tls.ConnectionState
	cert    *clientCert // nil if it was not asked for one

	login    string // the name that a trusted XCLIENT gave, or the client in an AUTH that succeeded
	authType string // the mechanism of AUTH, or XCLIENT
	authed   bool   // by AUTH, on the session's connection to the next hop

	acceptedAddr bool // the filter said of its address that nothing of the client is to be filtered
	acceptedName bool // the same of its name in HELO, until it says another one

	introduced bool       // XCLIENT said who it is, and it has said nothing yet
	forward    *forwarded // whom XFORWARD named; nil: nobody
}

// become makes it another client, whom XCLIENT named. What was known of the client so far is not said of the
// next one.
func (c *client) become(x xclient) {
	c.introduced = true
	c.addr = netip.AddrPortFrom(x.addr, x.port)
	c.name, c.looked, c.claimed = x.name, x.name != "", ""
	c.helo, c.esmtp = "", false
	c.acceptedAddr, c.acceptedName = false, false
	c.cert, c.forward = nil, nil // the certificate is that of who speaks for the client
	c.login, c.authType = "", ""
	if x.login != "" {
		c.login, c.authType = x.login, smtp.XClient // as Postfix calls it
	}
}

// greet takes the client's HELO or EHLO.
func (c *client) greet(verb, name string) {
	c.helo, c.esmtp, c.introduced = name, verb == smtp.Ehlo, false
}

// secure notes that TLS has begun. Whatever the client said of itself before is forgotten: RFC 3207, 4.2.
func (c *client) secure(state *tls.ConnectionState, cert *clientCert) {
	c.tls, c.cert = state, cert
	c.helo, c.esmtp, c.acceptedName = "", false, false
}

// mayUse reports whether EHLO has offered the client the extension that a parameter belongs to.
func (c *client) mayUse(parameter string) bool { return c.esmtp && c.offered.have(parameter) }

// accepted reports whether the filter wants to hear no more of the client.
func (c *client) accepted() bool { return c.acceptedAddr || c.acceptedName }

// logIn notes that AUTH succeeded.
func (c *client) logIn(mechanism, name string) { c.authed, c.authType, c.login = true, mechanism, name }

// logOut notes that the connection on which AUTH succeeded is gone.
func (c *client) logOut() { c.authed, c.authType, c.login = false, "", "" }

// known reports whether the client has logged in, here or where a trusted XCLIENT says.
func (c *client) known() bool { return c.authed || c.login != "" }

// relayed returns whom XFORWARD named, if it named an address.
func (c *client) relayed() *forwarded {
	if c.forward != nil && c.forward.addr.IsValid() {
		return c.forward
	}
	return nil
}

// ip returns the client's address as filters know it; a local socket is 127.0.0.1.
func (c *client) ip() string {
	switch f := c.relayed(); {
	case f != nil:
		return f.addr.String()
	case !c.addr.IsValid():
		return "127.0.0.1"
	}
	return c.addr.Addr().WithZone("").String()
}

// port returns the client's port as filters know it.
func (c *client) port() int {
	if f := c.relayed(); f != nil {
		return int(f.port)
	}
	return int(c.addr.Port())
}

// greeting returns the client's name in HELO as filters know it.
func (c *client) greeting() string {
	if f := c.forward; f != nil && f.helo != "" {
		return f.helo
	}
	return c.helo
}

// localIP returns the address that the client connected to.
func (c *client) localIP() string {
	if !c.local.Addr().IsValid() {
		return ""
	}
	return c.local.Addr().WithZone("").String()
}

// dnsName returns the client's name; it is looked up once, when somebody wants it. It counts only if the name
// has that address as well; what else the client has for a name is noted in claimed.
func (c *client) dnsName() string {
	if f := c.relayed(); f != nil {
		return f.name
	}
	if c.name != "" || c.looked || c.lookUp == nil {
		return c.name
	}
	c.looked = true
	if c.addr.IsValid() {
		c.name, c.claimed = c.lookUp(c.addr.Addr())
	}
	return c.name
}

// protocol returns the word behind "with" of a Received field: RFC 3848, and RFC 6531, 4.3.
func (c *client) protocol(utf8 bool) string {
	if !c.esmtp {
		return "SMTP"
	}
	word := "ESMTP"
	if utf8 {
		word = "UTF8SMTP"
	}
	if c.tls != nil {
		word += "S"
	}
	if c.authed {
		word += "A"
	}
	return word
}

// upstream returns what the next hop may be told about the client; connections of those who are exempt from
// limits are not counted there.
func (c *client) upstream(exempt netlist.List) upstream.Client {
	proto := "ESMTP"
	if !c.esmtp {
		proto = "SMTP"
	}
	origin := connlimit.Origin(c.addr.Addr())
	if exempt.Has(c.addr.Addr()) {
		origin = netip.Prefix{}
	}
	return upstream.Client{Origin: origin, Addr: c.addr, Name: c.name, Helo: c.helo, Login: c.login, Proto: proto, ServerAddr: c.local}
}

// lookUpName asks the DNS for a client's name.
func (srv *server) lookUpName(addr netip.Addr) (name, claimed string) {
	ctx, cancel := context.WithTimeout(srv.ctx, lookupTimeout)
	defer cancel()
	return lookUpName(ctx, net.DefaultResolver, addr)
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

// lookUpName returns the first name of addr that has this address as well; claimed is the first one, if none
// has.
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

// addressText returns an address for events; that of a UNIX socket is "local".
func addressText(addr netip.Addr) string {
	if !addr.IsValid() {
		return "local"
	}
	return addr.String()
}
