package senderauth

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of look-ups. Each check of a message has its own: else a sender could have the others fail for now by an SPF
// record that uses all of them up.
const (
	maxLookups    = 100 // of one check; RFC 7208 allows 10 for SPF, and each of its names may need more
	lookupTimeout = 5 * time.Second
	cached        = 5 * time.Minute
	cachedFailure = 30 * time.Second // names that do not exist, too
	maxCached     = 4096
)

// errTooMany is the error for a message that asks for too much.
var errTooMany = &net.DNSError{Err: "too many look-ups for one check", IsTemporary: true}

// Resolver asks the system's name servers, or one that is set, and remembers for a while what they answer.
type Resolver struct {
	net *net.Resolver
	now func() time.Time // for tests

	mu    sync.Mutex
	cache map[question]answer
}

// client asks for one check of a message.
type client struct {
	*Resolver
	left atomic.Int32 // look-ups that it may make
}

type question struct{ kind, name string }

type answer struct {
	value any
	err   error
	until time.Time
}

// NewResolver makes a resolver that asks server, HOST:PORT, or if that is "" those of the system.
func NewResolver(server string) *Resolver {
	r := &Resolver{net: &net.Resolver{PreferGo: true}, now: time.Now, cache: map[question]answer{}}
	if server != "" {
		r.net.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, server)
		}
	}
	return r
}

// client makes a client for one check.
func (r *Resolver) client() *client {
	c := &client{Resolver: r}
	c.left.Store(maxLookups)
	return c
}

// LookupTXT, and the others, are those of net.Resolver. Names are whole: no domain is searched.
func (c *client) LookupTXT(ctx context.Context, name string) ([]string, error) {
	return ask(ctx, c, question{"TXT", whole(name)}, c.net.LookupTXT)
}

// LookupMX returns the mail servers of a domain.
func (c *client) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	return ask(ctx, c, question{"MX", whole(name)}, c.net.LookupMX)
}

// LookupIPAddr returns the addresses of a host.
func (c *client) LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error) {
	return ask(ctx, c, question{"A", whole(host)}, c.net.LookupIPAddr)
}

// LookupAddr returns the names of an address.
func (c *client) LookupAddr(ctx context.Context, address string) ([]string, error) {
	return ask(ctx, c, question{"PTR", address}, c.net.LookupAddr)
}

func whole(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) + "." }

// ask answers from memory, or asks.
func ask[T any](ctx context.Context, c *client, q question, lookup func(context.Context, string) (T, error)) (T, error) {
	var none T
	if a, ok := c.recall(q); ok {
		value, _ := a.value.(T)
		return value, a.err
	}
	if c.left.Add(-1) < 0 {
		return none, errTooMany
	}
	short, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	value, err := lookup(short, q.name)
	if ctx.Err() == nil { // what was given up says nothing about the name
		c.remember(q, value, err)
	}
	return value, err
}

// recall returns an answer from memory.
func (r *Resolver) recall(q question) (a answer, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a, ok = r.cache[q]
	return a, ok && r.now().Before(a.until)
}

// remember keeps an answer. When there are too many, all go: a busy host has asked for the common ones again at once.
func (r *Resolver) remember(q question, value any, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.cache) >= maxCached {
		clear(r.cache)
	}
	lifetime := cached
	if err != nil {
		lifetime = cachedFailure
	}
	r.cache[q] = answer{value, err, r.now().Add(lifetime)}
}

// isTemporary reports whether a look-up may succeed at another time.
func isTemporary(err error) bool {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.IsTemporary || dns.IsTimeout || !dns.IsNotFound
	}
	return err != nil
}
