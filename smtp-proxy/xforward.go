package main

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"

	"postern/internal/smtp"
)

// forwarded is what a server in front of us says of its own client, for the messages to come: the filter and
// the log hear of it. Unlike XCLIENT it changes nothing of what the session may do.
type forwarded struct {
	addr netip.Addr
	port uint16
	name string
	helo string
}

// mayXForward reports whether the client may say for whom it speaks.
func (s *session) mayXForward() bool { return s.conf.xforwardNets.Has(s.client.addr.Addr()) }

// doXForward is XFORWARD, as Postfix documents it: several commands add up, and the end of the transaction is
// the end of what they said.
func (s *session) doXForward(arg string) outcome {
	switch {
	case !s.mayXForward():
		return notImplemented(s, arg) // as far as a stranger is concerned
	case s.tx != nil:
		return failed(reply(503, "5.5.1", "Not within a transaction"))
	}
	f := forwarded{}
	if s.client.forward != nil {
		f = *s.client.forward
	}
	if err := f.parse(arg); err != nil {
		return failed(reply(501, "5.5.4", "XFORWARD: "+err.Error()))
	}
	s.client.forward = &f
	return done(reply(250, "2.0.0", "Ok"))
}

// parse reads NAME=VALUE words; the values are xtext.
func (f *forwarded) parse(arg string) error {
	return attributes(arg, func(key, value string, known bool) error {
		switch key {
		case "ADDR":
			var x xclient
			if f.addr = (netip.Addr{}); !known {
				return nil
			}
			err := x.setAddr(value)
			f.addr = x.addr
			return err
		case "PORT":
			n, err := strconv.ParseUint(value, 10, 16)
			if known && err != nil {
				return errors.New("PORT is malformed")
			}
			f.port = uint16(n)
		case "NAME":
			if f.name = ""; known && !smtp.IsGreetingName(value) {
				return errors.New("NAME is malformed")
			}
			if known {
				f.name = value
			}
		case "HELO":
			if f.helo = ""; known && !smtp.IsHelo(value) {
				return errors.New("HELO is malformed")
			}
			if known {
				f.helo = value
			}
		case "PROTO", "IDENT", "SOURCE":
			// taken and not needed
		default:
			return errors.New("attribute is not known")
		}
		return nil
	})
}

// attributes takes the words of XCLIENT and XFORWARD apart. known is false for a value that says that there
// is none.
func attributes(arg string, set func(key, value string, known bool) error) error {
	if arg == "" {
		return errors.New("no attributes")
	}
	for word := range strings.SplitSeq(arg, " ") {
		if word == "" {
			continue
		}
		key, encoded, ok := strings.Cut(word, "=")
		if !ok {
			return errors.New("attribute without value")
		}
		value, err := smtp.DecodeXtext(encoded)
		if err != nil {
			return err
		}
		known := value != "[UNAVAILABLE]" && value != "[TEMPUNAVAIL]"
		if err := set(strings.ToUpper(key), value, known); err != nil {
			return err
		}
	}
	return nil
}
