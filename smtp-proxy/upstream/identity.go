package upstream

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pires/go-proxyproto"

	"postern/internal/smtp"
	"postern/internal/sockspec"
)

// sendProxyHeader tells the server who the client is in front of everything else. A connection without a
// client is in our own name, as for a health check.
func (c *Conn) sendProxyHeader(client Client) error {
	var version byte
	switch c.srv.conf.ClientIP {
	case ClientIPProxy1:
		version = 1
	case ClientIPProxy2:
		version = 2
	default:
		return nil
	}
	nc := c.stream.nc
	from, to := sockspec.AddrPort(nc.LocalAddr()), sockspec.AddrPort(nc.RemoteAddr())
	if client.Addr.IsValid() {
		from = sockspec.Plain(client.Addr)
		if client.ServerAddr.IsValid() {
			to = sockspec.Plain(client.ServerAddr)
		}
	}
	if !from.IsValid() {
		return errors.New("no address for the PROXY header")
	}
	if !to.IsValid() || to.Addr().Is4() != from.Addr().Is4() {
		to = sameFamily(from) // both must be of one family
	}
	header, err := proxyproto.HeaderProxyFromAddrs(version, net.TCPAddrFromAddrPort(from), net.TCPAddrFromAddrPort(to)).Format()
	if err != nil {
		return fmt.Errorf("make PROXY header: %w", err)
	}
	c.client = client
	if err := c.stream.writeBoth(header, nil, c.srv.conf.WriteTimeout); err != nil {
		return fmt.Errorf("write PROXY header: %w", err)
	}
	return nil
}

// sameFamily gives this host's address in the family of a.
func sameFamily(a netip.AddrPort) netip.AddrPort {
	const smtpPort = 25
	if a.Addr().Is4() {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), smtpPort)
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), smtpPort)
}

// tellClient tells the server who the client is by XCLIENT, if the settings want that. Whatever goes wrong
// here, no mail is sent: it would come from our own address, which the server trusts.
func (c *Conn) tellClient(client Client, deadline time.Time) error {
	if c.srv.conf.ClientIP != ClientIPXClient || client == (Client{}) && c.client == (Client{}) {
		return nil
	}
	if c.caps.xclient == nil {
		return c.fail(errNoXClient, replyNoXClient)
	}
	lines := xclientLines(client, c.caps.xclient)
	if len(lines) == 0 {
		return c.fail(fmt.Errorf("%w with ADDR", errNoXClient), replyNoXClient)
	}
	for _, line := range lines {
		r, err := c.ask(line, deadline)
		if err != nil {
			return err
		}
		if r.Code != 220 {
			return c.fail(fmt.Errorf("%w: reply to XCLIENT is %q", errThisClient, clip(r.String())), replyNoXClient)
		}
	}
	c.client = client
	// The server is back at its greeting. What follows is what the client said: Postfix takes the name in
	// EHLO for the client's, whatever the attribute HELO was.
	name := c.srv.conf.Helo
	if isPlain(client.Helo) && len(client.Helo) <= 255 {
		name = client.Helo
	}
	return c.hello(name, deadline)
}

// xclientLines makes the XCLIENT commands: all attributes that the server takes, as one that is left out would
// keep what the client before had, in lines of at most 512 bytes. Without ADDR there is none. ADDR is the last:
// behind it Postfix takes no XCLIENT unless the client's address may use it, too.
func xclientLines(client Client, takes []string) []string {
	if !slices.Contains(takes, "ADDR") {
		return nil
	}
	var lines []string
	line := smtp.XClient
	for _, name := range []string{"NAME", "HELO", "LOGIN", "PROTO", "DESTADDR", "DESTPORT", "PORT", "ADDR"} {
		if !slices.Contains(takes, name) {
			continue
		}
		word := " " + name + "=" + xclientValue(client, name)
		if len(line)+len(word)+len("\r\n") > smtp.MaxCommand {
			lines = append(lines, line)
			line = smtp.XClient
		}
		line += word
	}
	return append(lines, line)
}

const unavailable = "[UNAVAILABLE]"

// xclientValue gives the value of an attribute. What is not known, or is longer than servers take, is
// [UNAVAILABLE].
func xclientValue(client Client, name string) string {
	const longest = 255
	value := ""
	switch name {
	case "NAME":
		value = client.Name
	case "ADDR":
		return xclientAddr(client.Addr)
	case "PORT":
		return xclientPort(client.Addr)
	case "PROTO":
		switch client.Proto {
		case "SMTP", "ESMTP":
			return client.Proto
		}
	case "HELO":
		value = client.Helo
	case "LOGIN":
		value = client.Login
	case "DESTADDR":
		return xclientAddr(client.ServerAddr)
	case "DESTPORT":
		return xclientPort(client.ServerAddr)
	}
	encoded := appendXtext(nil, value)
	if len(encoded) == 0 || len(encoded) > longest {
		return unavailable
	}
	return string(encoded)
}

func xclientAddr(a netip.AddrPort) string {
	addr := a.Addr().Unmap().WithZone("")
	switch {
	case !addr.IsValid():
		return unavailable
	case addr.Is4():
		return addr.String()
	}
	return "IPV6:" + addr.String()
}

func xclientPort(a netip.AddrPort) string {
	if !a.IsValid() || a.Port() == 0 {
		return unavailable
	}
	return strconv.Itoa(int(a.Port()))
}

// appendXtext encodes xtext: RFC 3461, 4. A value that looks like [UNAVAILABLE] is encoded, too.
func appendXtext(dst []byte, s string) []byte {
	const digits = "0123456789ABCDEF"
	for _, b := range []byte(s) {
		if b <= ' ' || b >= 0x7f || strings.IndexByte("+=[]", b) >= 0 {
			dst = append(dst, '+', digits[b>>4], digits[b&15])
		} else {
			dst = append(dst, b)
		}
	}
	return dst
}
