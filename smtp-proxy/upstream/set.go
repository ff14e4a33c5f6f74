package upstream

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Set is the next hops in order of preference.
type Set struct {
	conf    Config
	servers []*server
	maildir []*maildirServer
	known   known
}

// Check says what is wrong with a Config, as far as that shows without opening anything.
func (c Config) Check() error {
	if _, err := c.withDefaults(); err != nil {
		return err
	}
	for _, u := range c.URLs {
		if _, err := parseEndpoint(u); err != nil {
			return err
		}
	}
	return nil
}

// New makes a Set. Nothing is connected yet; Maildirs are made if they are missing.
func New(conf Config) (*Set, error) {
	conf, err := conf.withDefaults()
	if err != nil {
		return nil, err
	}
	if len(conf.URLs) == 0 {
		return nil, errors.New("no server is named")
	}
	set := &Set{conf: conf}
	set.known.init()
	for _, u := range conf.URLs {
		e, err := parseEndpoint(u)
		if err != nil {
			set.Close()
			return nil, err
		}
		s := &server{endpoint: e, conf: &set.conf, shares: shares{max: conf.MaxShare}}
		s.setup.Store(newTLSSetup(conf.TLSConfig))
		if conf.MaxConns > 0 {
			s.slots = make(chan struct{}, conf.MaxConns)
		}
		if s.dialer, err = set.dialerOf(e); err != nil {
			set.Close()
			return nil, fmt.Errorf("server %s: %w", e.name, err)
		}
		set.servers = append(set.servers, s)
	}
	return set, nil
}

// Get gives a connection that is ready for MAIL: a kept one if there is one, else a new one, to the first
// server that can be had. Its error is an [*Error].
func (set *Set) Get(ctx context.Context, client Client) (*Conn, error) {
	return set.getAndLearn(ctx, client, want{})
}

// GetForAuth gives a connection on which the client may say its password: see Config.TLS. That TLS failed a
// while ago is no reason not to try it again for that.
func (set *Set) GetForAuth(ctx context.Context, client Client) (*Conn, error) {
	return set.getAndLearn(ctx, client, want{secret: true})
}

func (set *Set) getAndLearn(ctx context.Context, client Client, w want) (*Conn, error) {
	c, err := set.get(ctx, client, w)
	if err == nil {
		set.known.learn(c.caps)
	}
	return c, err
}

// want is what a connection is wanted for.
type want struct {
	fresh  bool // to see what the server is like now: not a kept one
	secret bool // for passwords
}

func (set *Set) get(ctx context.Context, client Client, w want) (*Conn, error) {
	var first error
	for _, s := range set.servers {
		c, err := s.get(ctx, client, w)
		if err == nil {
			return c, nil
		}
		if first == nil {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
		if len(set.servers) > 1 && !errors.Is(err, errShut) {
			set.conf.Log.Warn("server cannot be used", "error", err)
		}
	}
	return nil, first
}

// Close closes idle connections; connections in use are closed when they are given back.
func (set *Set) Close() {
	set.known.stop()
	for _, s := range set.servers {
		s.close()
	}
	for _, m := range set.maildir {
		m.close()
	}
}

// Capabilities gives what the next hop offers. It is asked once; from then on every connection that is
// opened brings the answer up to date, and an old answer is given while another one is fetched. An error
// means that no server ever answered, or none by the end of ctx or of ten seconds; then they are asked on.
func (set *Set) Capabilities(ctx context.Context) (Capabilities, error) {
	caps, state := set.known.get(time.Now(), set.conf.FreshTime)
	switch state {
	case knownFresh:
		return caps, nil
	case knownStale:
		set.known.ask(set.probe)
		return caps, nil
	}
	ctx, cancel := context.WithTimeout(ctx, unknownTimeout)
	defer cancel()
	return set.known.wait(ctx, set.probe)
}

// unknownTimeout bounds how long a client waits at EHLO for a server that nobody has reached yet; it is then offered
// what the proxy can do by itself.
const unknownTimeout = 10 * time.Second

// probe opens a connection to see what its server offers. With the PROXY protocol the
// connection is in our own name.
func (set *Set) probe(ctx context.Context) error {
	c, err := set.get(ctx, Client{}, want{fresh: true})
	if err != nil {
		return err
	}
	set.known.learn(c.caps)
	c.Release()
	return nil
}

// Stats are figures of one server.
type Stats struct {
	Server string
	Open   int64 // connections, idle ones included
	Idle   int
	Dialed int64 // connections opened since the start
	Reused int64 // times a kept connection was used again
	Failed int64 // times a connection could not be had
	Shut   bool  // left alone after failures
}

// Stats gives the figures of all servers, in order.
func (set *Set) Stats() []Stats {
	all := make([]Stats, 0, len(set.servers))
	for _, s := range set.servers {
		s.mu.Lock()
		idle := len(s.kept)
		s.mu.Unlock()
		all = append(all, Stats{
			Server: s.name, Open: s.open.Load(), Idle: idle, Dialed: s.dialed.Load(),
			Reused: s.reused.Load(), Failed: s.failed.Load(), Shut: s.breaker.shut(time.Now()),
		})
	}
	return all
}

// Unlocked returns when each lock of the set has been free. None is ever held while a server is waited for.
func (set *Set) Unlocked() {
	now := time.Now()
	set.known.get(now, 0)
	for _, s := range set.servers {
		s.shares.unlocked()
		s.plain.holds(now)
	}
	set.Stats()
}
