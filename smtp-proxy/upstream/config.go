// Package upstream is smtp-proxy's side towards the next hops: connections that are opened late,
// kept and used again, with TLS, XCLIENT or the PROXY protocol, failover and a circuit breaker. It
// speaks SMTP and LMTP over TCP and UNIX sockets, to a program on a socket pair (sendmail -bs), and to a
// Maildir.
//
// Everything here goes by one rule: what is not certain is a temporary error. A reply that nobody asked
// for, one that cannot be the answer to what was sent, or a connection that ends in the wrong moment
// never becomes a 2xx or a 5xx, and such a connection is never used again.
package upstream

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/netip"
	"time"
)

// TLS says what TLS is wanted towards servers.
type TLS string

// The values of Config.TLS. They concern smtp:// and lmtp:// over TCP, by STARTTLS, and smtps://, where
// only Verify makes a difference. Sockets and programs of this machine go without.
const (
	TLSNone    TLS = "none"    // never
	TLSMay     TLS = "may"     // if the server offers it; the certificate is not looked at. No AUTH without, but on this host
	TLSRequire TLS = "require" // or no mail is sent; the certificate is not looked at
	TLSVerify  TLS = "verify"  // as require, and the certificate must be good for the host of the URL
)

// ClientIP says how a server is told who the client is.
type ClientIP string

// The values of Config.ClientIP.
const (
	ClientIPNone    ClientIP = "none"
	ClientIPXClient ClientIP = "xclient" // Postfix XCLIENT_README; a server that does not offer it gets no mail
	ClientIPProxy1  ClientIP = "proxy1"  // PROXY protocol, a line of text
	ClientIPProxy2  ClientIP = "proxy2"  // PROXY protocol, binary
)

// Config says where mail goes and how. A zero value of a number or duration means its default.
type Config struct {
	URLs      []string    // servers in order of preference: see parseEndpoint
	TLS       TLS         // default none
	TLSConfig *tls.Config // roots and client certificates; may be nil. Set.UseTLS puts others into force
	Helo      string      // name to greet with; default localhost
	Source    netip.Addr  // local address of TCP connections, if valid
	ClientIP  ClientIP    // default none

	MaxShare       int           // most connections to one server for clients of one origin; 0 for no limit
	MaxConns       int           // most connections to one server at a time; 0 for no limit
	MaxIdle        int           // most idle connections kept per server; default 200
	IdleTime       time.Duration // how long an idle connection is kept; default 1m
	MaxAge         time.Duration // how long a connection is used at most; default 10m
	ConnectTimeout time.Duration // for connecting, and for a free connection under MaxConns; default 30s
	HelloTimeout   time.Duration // from there to the reply to EHLO, TLS and XCLIENT included; default 1m
	HurryTime      time.Duration // to greet, before our idle connections are taken for the reason that it takes longer; default 500ms
	WriteTimeout   time.Duration // for one write of at most 64 KiB; default 3m (RFC 5321, 4.5.3.2.5)
	RetryTime      time.Duration // longest time a server that failed is left alone; default 15s
	FreshTime      time.Duration // age at which capabilities are asked for again; default 5m

	// LMTPRecipients is how many recipients a message may have at an LMTP server; default 1. See
	// lmtp.go for what more than one can mean.
	LMTPRecipients int

	Log *slog.Logger // default: none
}

// withDefaults fills in what was left out, and refuses what cannot be.
func (c Config) withDefaults() (Config, error) {
	switch c.TLS {
	case "":
		c.TLS = TLSNone
	case TLSNone, TLSMay, TLSRequire, TLSVerify:
	default:
		return c, fmt.Errorf("TLS %q is none of none, may, require, verify", c.TLS)
	}
	switch c.ClientIP {
	case "":
		c.ClientIP = ClientIPNone
	case ClientIPNone, ClientIPXClient, ClientIPProxy1, ClientIPProxy2:
	default:
		return c, fmt.Errorf("client IP %q is none of none, xclient, proxy1, proxy2", c.ClientIP)
	}
	if c.Helo == "" {
		c.Helo = "localhost"
	}
	if !isPlain(c.Helo) {
		return c, fmt.Errorf("greet as %q: not a name", c.Helo)
	}
	for _, n := range []struct {
		value   *int
		initial int
	}{{&c.MaxIdle, 200}, {&c.LMTPRecipients, 1}} {
		if *n.value <= 0 {
			*n.value = n.initial
		}
	}
	for _, d := range []struct {
		value   *time.Duration
		initial time.Duration
	}{
		{&c.IdleTime, time.Minute}, {&c.MaxAge, 10 * time.Minute},
		{&c.ConnectTimeout, 30 * time.Second}, {&c.HelloTimeout, time.Minute}, {&c.HurryTime, 500 * time.Millisecond},
		{&c.WriteTimeout, 3 * time.Minute}, {&c.RetryTime, 15 * time.Second}, {&c.FreshTime, 5 * time.Minute},
	} {
		if *d.value <= 0 {
			*d.value = d.initial
		}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// isPlain says whether s is a word that can be an argument of a command.
func isPlain(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return s != ""
}

// Client is who a server is told the mail comes from. Fields that are not known are left zero.
type Client struct {
	Addr       netip.AddrPort // the client
	Name       string         // its name in the DNS
	Helo       string         // what it said in HELO or EHLO
	Login      string         // who it is by AUTH
	Proto      string         // SMTP or ESMTP
	ServerAddr netip.AddrPort // where it connected to
	Origin     netip.Prefix   // Config.MaxShare is for all with the same one; not valid: there is no limit for the client
}
