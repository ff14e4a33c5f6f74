// Package sockspec reads socket specifications: the one way in which settings
// and command lines name a UNIX or TCP socket, to listen on or to connect to.
//
// The forms are those of MIMEDefang, plus tcp: for any other host:
//
//	/path  unix:/path  local:/path    UNIX stream socket
//	inet:PORT                         127.0.0.1
//	inet_any:PORT                     0.0.0.0
//	inet6:PORT                        ::1
//	inet6_any:PORT                    ::
//	tcp:HOST:PORT                     any host; IPv6 in brackets, "*" or nothing for all addresses
package sockspec

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// MaxPath is the longest path of a UNIX socket in bytes: sockaddr_un has room
// for 108 with the closing NUL. unix(7)
const MaxPath = 107

// A Spec is one socket address.
type Spec struct {
	// Network is "unix", "tcp", or "tcp4" and "tcp6" where the form says so.
	Network string
	// Address is a path, or HOST:PORT as net.Dial takes it.
	Address string
}

// Parse reads one specification. A path may be relative. PORT is decimal,
// 1 to 65535; tcp: also takes 0, which listens on a free port.
func Parse(s string) (Spec, error) {
	if s == "" {
		return Spec{}, errors.New("empty socket specification")
	}
	if strings.ContainsRune(s, 0) {
		return Spec{}, fmt.Errorf("socket specification %q: NUL byte", s)
	}
	form, rest, _ := strings.Cut(s, ":")
	switch form {
	case "unix", "local":
		return unixSpec(s, rest)
	case "inet":
		return portSpec(s, "tcp4", "127.0.0.1", rest)
	case "inet_any":
		return portSpec(s, "tcp4", "0.0.0.0", rest)
	case "inet6":
		return portSpec(s, "tcp6", "::1", rest)
	case "inet6_any":
		return portSpec(s, "tcp6", "::", rest)
	case "tcp":
		return tcpSpec(s, rest)
	}
	// In MIMEDefang anything else is a path. Of those, a name without a slash
	// but with a colon is a mistyped form far more often than a file.
	if !strings.Contains(s, "/") && strings.Contains(s, ":") {
		return Spec{}, fmt.Errorf("socket specification %q: unknown form %q (write unix:%s for a path)", s, form+":", s)
	}
	if checkPort(s, 0) == nil {
		return Spec{}, fmt.Errorf("socket specification %q: write inet:%s for the port on loopback, inet_any:%s for that on all addresses, or unix:%s for a path", s, s, s, s)
	}
	return unixSpec(s, s)
}

func unixSpec(s, path string) (Spec, error) {
	if path == "" {
		return Spec{}, fmt.Errorf("socket specification %q: no path", s)
	}
	if len(path) > MaxPath {
		return Spec{}, fmt.Errorf("socket specification %q: path is %d bytes long, a UNIX socket takes at most %d", s, len(path), MaxPath)
	}
	return Spec{"unix", path}, nil
}

func portSpec(s, network, host, port string) (Spec, error) {
	err := checkPort(port, 1)
	switch {
	case err != nil && strings.Contains(port, ":"):
		return Spec{}, fmt.Errorf("socket specification %q: write tcp:%s for a host and its port", s, port)
	case err != nil:
		return Spec{}, fmt.Errorf("socket specification %q: %w", s, err)
	}
	return Spec{network, net.JoinHostPort(host, port)}, nil
}

func tcpSpec(s, hostport string) (Spec, error) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return Spec{}, fmt.Errorf("socket specification %q: want tcp:HOST:PORT, an IPv6 address in brackets", s)
	}
	if err := checkPort(port, 0); err != nil {
		return Spec{}, fmt.Errorf("socket specification %q: %w", s, err)
	}
	if host == "*" {
		host = ""
	}
	if strings.ContainsAny(host, "/[]") || strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return Spec{}, fmt.Errorf("socket specification %q: bad host %q", s, host)
	}
	return Spec{"tcp", net.JoinHostPort(host, port)}, nil
}

// checkPort wants plain decimal digits: no sign, no leading zero, no service name.
func checkPort(port string, least int) error {
	n, err := strconv.Atoi(port)
	if err != nil || strconv.Itoa(n) != port || n < least || n > 65535 {
		return fmt.Errorf("invalid port %q, want %d to 65535", port, least)
	}
	return nil
}

// IsUnix reports whether the socket is a UNIX socket.
func (s Spec) IsUnix() bool { return s.Network == "unix" }

// IsLoopback reports whether only processes of this machine can reach a listener
// bound here: a UNIX socket, or TCP on a loopback address or "localhost".
func (s Spec) IsLoopback() bool {
	if s.IsUnix() {
		return true
	}
	host, _, err := net.SplitHostPort(s.Address)
	if err != nil {
		return false
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Unmap().IsLoopback()
	}
	return host == "localhost"
}

// String returns the canonical text, which Parse reads as the same Spec.
func (s Spec) String() string {
	if s.IsUnix() {
		if filepath.IsAbs(s.Address) {
			return s.Address
		}
		return "unix:" + s.Address
	}
	host, port, err := net.SplitHostPort(s.Address)
	if err != nil {
		return s.Network + ":" + s.Address
	}
	switch [2]string{s.Network, host} {
	case [2]string{"tcp4", "127.0.0.1"}:
		return "inet:" + port
	case [2]string{"tcp4", "0.0.0.0"}:
		return "inet_any:" + port
	case [2]string{"tcp6", "::1"}:
		return "inet6:" + port
	case [2]string{"tcp6", "::"}:
		return "inet6_any:" + port
	}
	return "tcp:" + s.Address
}

// Dial connects. The error names the specification. An address that stands for
// all of this machine's is connected to on loopback.
//
// A UNIX socket whose backlog is full refuses a non-blocking connect with EAGAIN,
// where a blocking one would wait; Dial waits too, as long as ctx lasts.
func (s Spec) Dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	for {
		c, err := d.DialContext(ctx, s.Network, s.dialAddress())
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, syscall.EAGAIN) {
			return nil, fmt.Errorf("connect to %s: %w", s, plainError(err))
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("connect to %s: its backlog is full: %w", s, ctx.Err())
		case <-time.After(backlogRetry):
		}
	}
}

// backlogRetry is the time between attempts at a socket with a full backlog.
const backlogRetry = 10 * time.Millisecond

func (s Spec) dialAddress() string {
	host, port, err := net.SplitHostPort(s.Address)
	if s.IsUnix() || err != nil {
		return s.Address
	}
	switch host {
	case "0.0.0.0":
		host = "127.0.0.1"
	case "::":
		host = "::1"
	case "":
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

// plainError takes off the net.OpError, whose text says the address once more.
func plainError(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err
	}
	return err
}
