// Package stamp keeps notes of who has just fetched mail, so that they may send mail for a while from the same
// address ("POP before SMTP"). A stamp is a file in a directory, named after the client's address, or a key in a Redis
// or Valkey that several gateways share; its age is what counts. pop3-stamp writes stamps, smtp-proxy looks for them.
package stamp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"postern/internal/percent"
)

// DefaultMaxAge is how long a stamp is good for, as in smtp.proxy.
const DefaultMaxAge = 10 * time.Minute

// maxFuture is how far in the future a stamp's time may be: file systems and clocks are not that exact.
const maxFuture = 5 * time.Second

// ErrFuture is wrapped by the error of Look for a stamp from the future: a clock was set back, or somebody tampers.
var ErrFuture = errors.New("stamp is from the future")

// Stamp is what is noted of a client.
type Stamp struct {
	Addr         netip.Addr // of the client, or of its network
	User, Server string     // "" if not known
	Written      time.Time
}

// Store is a place for stamps. An IPv4 client is the same however its address is written, and of an IPv6 client as
// many bits count as the store was told. All methods may be called concurrently.
type Store interface {
	// Touch makes or renews the stamp for addr. user and server, which are kept beside it, come from outside and may
	// be anything.
	Touch(ctx context.Context, addr netip.Addr, user, server string) error
	// Look returns the stamp for addr and whether there is one that is not older than the store's maximum age. With
	// an error there is none: who cannot be asked admits nobody.
	Look(ctx context.Context, addr netip.Addr) (Stamp, bool, error)
	// Remove removes the stamp for addr and reports whether there was one.
	Remove(ctx context.Context, addr netip.Addr) (bool, error)
	// Expire removes stamps that are older than age and calls removed for each.
	Expire(ctx context.Context, age time.Duration, removed func(netip.Addr)) error
	// List calls each for every stamp that is fresh, in no order, until each returns false.
	List(ctx context.Context, each func(Stamp) bool) error
	// Name is what the stamp for addr is called.
	Name(addr netip.Addr) string
}

// Event is something that happened to a stamp, at whichever gateway.
type Event struct {
	Gone bool   // it was removed or is not fresh any more; else it was written
	Name string // of the stamp
	User string // "" if not known
}

// Name returns the name of the stamp for addr: dotted quad for IPv4, also when it is mapped into IPv6, and the form
// of RFC 5952 without zone for IPv6. It is "" for the zero Addr. The name is made from the parsed value alone, so it
// never has a slash and is never "." or "..".
func Name(addr netip.Addr) string {
	if !addr.IsValid() {
		return ""
	}
	return addr.Unmap().WithZone("").String()
}

// nameWithin is Name of the network of so many bits that an IPv6 address is in; 0 bits are all. A network is called
// by its first address.
func nameWithin(addr netip.Addr, bits int) string {
	addr = addr.Unmap().WithZone("")
	if bits > 0 && addr.Is6() {
		if p, err := addr.Prefix(bits); err == nil {
			addr = p.Addr()
		}
	}
	return Name(addr)
}

// keyOf is nameWithin for an address that there is.
func keyOf(addr netip.Addr, bits int) (string, error) {
	if !addr.IsValid() {
		return "", fmt.Errorf("stamp for no address: %w", fs.ErrInvalid)
	}
	return nameWithin(addr, bits), nil
}

// parseName is the inverse of Name: it accepts canonical names only.
func parseName(name string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(name)
	if err != nil || Name(addr) != name {
		return netip.Addr{}, false
	}
	return addr, true
}

// maxText bounds user and server in a stamp, in bytes before encoding.
const maxText = 256

// word makes s one word of a stamp.
func word(s string) string {
	if s == "" {
		return "-"
	}
	return percent.EncodeCommand(s[:min(len(s), maxText)])
}

func unword(s string) string {
	if s == "-" {
		return ""
	}
	return percent.Decode(s)
}

// line is a stamp as it is kept, as pop3.proxy wrote it: "UNIXTIME ADDRESS USER SERVER".
func line(unix int64, name, user, server string) string {
	return strconv.FormatInt(unix, 10) + " " + name + " " + word(user) + " " + word(server)
}

// parse takes user and server out of a line. Whoever else writes stamps may leave them out: then they are not known.
func (s *Stamp) parse(text string) {
	text, _, _ = strings.Cut(text, "\n")
	if words := strings.Fields(text); len(words) >= 4 {
		s.User, s.Server = unword(words[2]), unword(words[3])
	}
}
