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
	maxCachedSize = 4 << 20  // in bytes
	maxAnswerSize = 16 << 10 // of an answer that is taken
	maxName       = 255      // RFC 1035, 2.3.4
)

// Errors for a message that asks for too much, for a name that cannot be one, and for an answer that nobody needs.
var (
	errTooMany  = &net.DNSError{Err: "too many look-ups for one check", IsTemporary: true}
	errNoName   = &net.DNSError{Err: "name is too long", IsNotFound: true}
	errTooLarge = &net.DNSError{Err: "answer is too large"}
)

// Resolver asks the system's name servers, or one that is set, and remembers for a while what they answer.
type Resolver struct {
	net *net.Resolver
	now func() time.Time // for tests

	mu    sync.Mutex
	cache map[question]answer
	size  int // of what is in it
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
	size  int
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
	switch {
	case len(q.name) > maxName:
		return none, errNoName
	case c.left.Add(-1) < 0:
		return none, errTooMany
	}
	short, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	value, err := lookup(short, q.name)
	if sizeOf(value) > maxAnswerSize {
		value, err = none, errTooLarge
	}
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

// remember keeps an answer. When there are too many, the old ones go, or all if that does not help: a busy host has
// asked for the common ones again at once.
func (r *Resolver) remember(q question, value any, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	lifetime := cached
	if err != nil {
		lifetime = cachedFailure
	}
	const entry = 256 // what an entry takes without its texts, roughly
	a := answer{value, err, r.now().Add(lifetime), entry + len(q.name) + sizeOf(value)}
	r.size -= r.cache[q].size
	delete(r.cache, q)
	if !r.hasRoom(a.size) {
		r.dropOld()
	}
	if !r.hasRoom(a.size) {
		clear(r.cache)
		r.size = 0
	}
	r.cache[q] = a
	r.size += a.size
}

func (r *Resolver) hasRoom(size int) bool {
	return len(r.cache) < maxCached && r.size+size <= maxCachedSize
}

// dropOld drops what is no longer used.
func (r *Resolver) dropOld() {
	for q, a := range r.cache {
		if !r.now().Before(a.until) {
			r.size -= a.size
			delete(r.cache, q)
		}
	}
}

// sizeOf is what an answer takes of memory, roughly.
func sizeOf(value any) (n int) {
	switch list := value.(type) {
	case []string:
		for _, s := range list {
			n += 16 + len(s)
		}
	case []*net.MX:
		for _, mx := range list {
			n += 32 + len(mx.Host)
		}
	case []net.IPAddr:
		n = 64 * len(list)
	}
	return n
}

// isTemporary reports whether a look-up may succeed at another time.
func isTemporary(err error) bool {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.IsTemporary || dns.IsTimeout || !dns.IsNotFound
	}
	return err != nil
}
