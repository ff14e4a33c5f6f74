package upstream

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
)

// endpoint is one server, as its URL names it.
type endpoint struct {
	name    string // the URL, for logs
	network string // tcp, unix, exec or maildir
	address string // host:port or a path
	host    string // for SNI and the certificate
	argv    []string
	lmtp    bool
	tls     bool // from the first byte on
}

// parseEndpoint reads the URL of a server:
//
//	smtp://HOST[:PORT]   smtp:/PATH       SMTP over TCP (port 25) or a UNIX socket
//	smtps://HOST[:PORT]                   SMTP within TLS (port 465)
//	lmtp://HOST[:PORT]   lmtp:/PATH       LMTP over TCP (port 24) or a UNIX socket
//	exec:/PATH ARGUMENT...                a program that speaks SMTP on its standard input and output
//	maildir:/PATH                         a Maildir
//
// The host may be a name or an address, IPv6 in brackets. No shell sees the command of exec.
func parseEndpoint(s string) (endpoint, error) {
	e := endpoint{name: s}
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok {
		return e, fmt.Errorf("%q has no scheme such as smtp://", s)
	}
	switch scheme {
	case "exec":
		e.network, e.argv = "exec", strings.Fields(rest)
		if len(e.argv) == 0 || !filepath.IsAbs(e.argv[0]) {
			return e, fmt.Errorf("%q names no program by its full path", s)
		}
		return e, nil
	case "maildir":
		e.network, e.address = "maildir", rest
	case "smtp", "lmtp", "smtps":
		e.lmtp, e.tls = scheme == "lmtp", scheme == "smtps"
		if strings.HasPrefix(rest, "//") {
			return e.withHost(rest, map[string]string{"smtp": "25", "smtps": "465", "lmtp": "24"}[scheme])
		}
		e.network, e.address = "unix", rest
		if e.tls {
			return e, fmt.Errorf("%q: smtps needs a host", s)
		}
	default:
		return e, fmt.Errorf("%q: scheme is none of smtp, smtps, lmtp, exec, maildir", s)
	}
	if !filepath.IsAbs(e.address) {
		return e, fmt.Errorf("%q has no full path", s)
	}
	return e, nil
}

// withHost fills in host and port from "//HOST:PORT".
func (e endpoint) withHost(rest, port string) (endpoint, error) {
	u, err := url.Parse(rest)
	if err != nil {
		return e, fmt.Errorf("%q: %w", e.name, errors.Unwrap(err))
	}
	if u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return e, fmt.Errorf("%q is more or less than a host and a port", e.name)
	}
	if u.Port() != "" {
		port = u.Port()
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return e, fmt.Errorf("%q: port is not from 1 to 65535", e.name)
	}
	e.network, e.host = "tcp", u.Hostname()
	e.address = net.JoinHostPort(e.host, port)
	return e, nil
}

// serverName gives the name for SNI and the certificate; an address is matched against those of the
// certificate.
func (e endpoint) serverName() string {
	if addr, err := netip.ParseAddr(e.host); err == nil {
		return addr.WithZone("").String()
	}
	return strings.TrimSuffix(e.host, ".")
}
