// Package stamp keeps notes of who has just fetched mail, so that they may send mail for a while from the same
// address ("POP before SMTP"). A stamp is a file in a directory, named after the client's address; its age is what
// counts. pop3-stamp writes stamps, smtp-proxy looks for them.
package stamp

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// DefaultMaxAge is how long a stamp is good for, as in smtp.proxy.
const DefaultMaxAge = 10 * time.Minute

// maxFuture is how far in the future a stamp's time may be: file systems and clocks are not that exact.
const maxFuture = 5 * time.Second

// ErrFuture is wrapped by the error of Fresh for a stamp from the future: a clock was set back, or somebody tampers.
var ErrFuture = errors.New("stamp is from the future")

// Store is a place for stamps. Addresses are taken as Name does, so that an IPv4 client is the same however its
// address is written. All methods may be called concurrently.
type Store interface {
	// Touch makes or renews the stamp for addr. user and server, which are kept beside it for people to read, come
	// from outside and may be anything.
	Touch(ctx context.Context, addr netip.Addr, user, server string) error
	// Fresh tells whether there is a stamp for addr that is not older than the store's maximum age. With an error
	// it is false: who cannot be asked admits nobody.
	Fresh(ctx context.Context, addr netip.Addr) (bool, error)
	// Remove removes the stamp for addr. It is no error if there is none.
	Remove(ctx context.Context, addr netip.Addr) error
	// Sweep removes stamps that are older than twice the maximum age and returns how many.
	Sweep(ctx context.Context) (int, error)
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

// parseName is the inverse of Name: it accepts canonical names only.
func parseName(name string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(name)
	if err != nil || Name(addr) != name {
		return netip.Addr{}, false
	}
	return addr, true
}
