package main

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"

	"postern/internal/smtp"
)

// mayXClient reports whether the client is one that may speak for others.
func (s *session) mayXClient() bool { return s.conf.xclientNets.Has(s.client.addr.Addr()) }

// xclient holds the attributes of an XCLIENT command that count for us.
type xclient struct {
	addr  netip.Addr
	port  uint16
	name  string
	login string
}

// doXClient is XCLIENT, as Postfix documents it.
func (s *session) doXClient(arg string) outcome {
	switch {
	case !s.mayXClient():
		return failed(reply(550, "5.7.0", "Not for you"))
	case s.tx != nil:
		return failed(reply(503, "5.5.1", "Not within a transaction"))
	}
	x := xclient{addr: s.client.addr.Addr()}
	if s.client.introduced {
		x.port, x.name, x.login = s.client.addr.Port(), s.client.name, s.client.login
	}
	if err := x.parse(arg); err != nil {
		return failed(reply(501, "5.5.4", "XCLIENT: "+err.Error()))
	}
	return s.become(x)
}

// become makes the session one of another client: from here on it is as if that one had connected. What the
// commands of one row say goes together: not all of it may fit into one line.
func (s *session) become(x xclient) outcome {
	s.forgetLogin()
	s.presence.leaveAddress()
	if !bool(s.conf.XClientLogin) {
		x.login = ""
	}
	s.client.become(x)
	if r := s.admit(); r != nil {
		return closed(r.Gate, r.Reply)
	}
	return s.greet()
}

// parse reads NAME=VALUE words; the values are xtext.
func (x *xclient) parse(arg string) error {
	return attributes(arg, x.set)
}

func (x *xclient) set(key, value string, known bool) error {
	switch key {
	case "ADDR":
		if !known {
			return nil
		}
		return x.setAddr(value)
	case "PORT":
		if !known {
			x.port = 0
			return nil
		}
		n, err := strconv.ParseUint(value, 10, 16)
		if err != nil {
			return errors.New("PORT is malformed")
		}
		x.port = uint16(n)
	case "NAME":
		x.name = ""
		if known && !smtp.IsGreetingName(value) {
			return errors.New("NAME is malformed")
		}
		if known {
			x.name = value
		}
	case "HELO":
		if known && !smtp.IsHelo(value) {
			return errors.New("HELO is malformed")
		}
	case "LOGIN":
		x.login = ""
		if len(value) > 255 {
			return errors.New("LOGIN is malformed")
		}
		if known {
			x.login = value
		}
	case "PROTO":
		if known && value != "SMTP" && value != "ESMTP" {
			return errors.New("PROTO is malformed")
		}
	case "DESTADDR", "DESTPORT", "REVERSE_NAME":
		// taken and not needed
	default:
		return errors.New("attribute is not known")
	}
	return nil
}

func (x *xclient) setAddr(value string) error {
	text := value
	if len(text) > 5 && strings.EqualFold(text[:5], "IPV6:") {
		text = text[5:]
	}
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" {
		return errors.New("ADDR is malformed")
	}
	x.addr = addr.Unmap()
	return nil
}
