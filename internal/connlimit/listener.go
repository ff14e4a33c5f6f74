package connlimit

import (
	"net"
	"net/netip"
	"sync"
)

// originShare is the part of a listener's connections that one origin may have.
const originShare = 4

// Listen gives a listener that has at most so many connections open at a time, and of one origin a quarter of them.
// Those beyond are closed at once. Origins on this machine have no share of their own: many may come from there, such as
// all that a reverse proxy passes on.
func Listen(l net.Listener, most int) net.Listener {
	return &limitedListener{Listener: l, most: most, open: map[netip.Prefix]int{}}
}

type limitedListener struct {
	net.Listener
	most int

	mu   sync.Mutex
	all  int
	open map[netip.Prefix]int
}

// Accept gives the next connection for which there is room.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		var origin netip.Prefix
		if at, ok := c.RemoteAddr().(*net.TCPAddr); ok && !at.IP.IsLoopback() {
			origin = Origin(at.AddrPort().Addr())
		}
		if l.take(origin) {
			return &limitedConn{Conn: c, free: sync.OnceFunc(func() { l.give(origin) })}, nil
		}
		c.Close()
	}
}

// take counts a connection, if there is room for it.
func (l *limitedListener) take(origin netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= l.most || origin.IsValid() && l.open[origin] >= max(1, l.most/originShare) {
		return false
	}
	l.all++
	l.open[origin]++
	return true
}

// give takes back what take has counted.
func (l *limitedListener) give(origin netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.open[origin]--; l.open[origin] == 0 {
		delete(l.open, origin)
	}
}

type limitedConn struct {
	net.Conn
	free func()
}

// Close ends the connection and makes room for another.
func (c *limitedConn) Close() error {
	defer c.free()
	return c.Conn.Close()
}
