package store

import (
	"context"
	"errors"
	"net"
	"syscall"

	"github.com/redis/go-redis/v9"
)

// Bounds of one reply. The library makes room for as much as a length says, before any of it has come, and calls itself
// for lists in lists; our scripts are answered with lists of some thousand names at most.
const (
	maxReply      = 16 << 20 // bytes in all
	maxReplyItems = 100_000  // of a list
	maxReplyDepth = 16       // of lists in lists
)

// errReply is the error of a server that says more than any store would.
var errReply = errors.New("store says too much at once")

// dialer connects as the library does, to a server whose replies are bounded.
func dialer(o *Options) func(ctx context.Context, network, addr string) (net.Conn, error) {
	dial := redis.NewDialer(&redis.Options{DialTimeout: o.Timeout, TLSConfig: o.TLS})
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		bounded := &boundedConn{Conn: conn}
		if socket, ok := conn.(syscall.Conn); ok {
			return struct { // the library looks by this whether the server has closed a connection
				*boundedConn
				syscall.Conn
			}{bounded, socket}, nil
		}
		return bounded, nil
	}
}

// boundedConn reads replies of a server (RESP), and fails at the first that is out of bounds.
type boundedConn struct {
	net.Conn
	failed  bool  // for good
	size    int   // bytes of the reply so far, and those of a string that are to come
	open    []int // items that are to come of the lists that the reply is in
	pending int   // bytes of a string, with its line end, that are to come

	line   int // bytes of the line so far
	kind   byte
	length int  // that the line has named so far
	none   bool // it is negative: there is no string, or list
}

// Read implements [net.Conn].
func (c *boundedConn) Read(p []byte) (int, error) {
	if c.failed {
		return 0, errReply
	}
	n, err := c.Conn.Read(p)
	for rest := p[:n]; len(rest) > 0; {
		if skip := min(c.pending, len(rest)); skip > 0 {
			rest = rest[skip:]
			if c.pending -= skip; c.pending == 0 {
				c.ended()
			}
			continue
		}
		if c.failed = !c.take(rest[0]); c.failed {
			return 0, errReply
		}
		rest = rest[1:]
	}
	return n, err
}

// take takes the next byte of a line; false if the reply is out of bounds.
func (c *boundedConn) take(b byte) bool {
	c.size++
	switch c.line++; {
	case b == '\n':
		return c.endLine()
	case c.line == 1:
		c.kind, c.length, c.none = b, 0, false
	case b == '-' && c.line == 2:
		c.none = true
	case b >= '0' && b <= '9' && c.length <= maxReply:
		c.length = 10*c.length + int(b-'0')
	}
	return c.size <= maxReply
}

// endLine is take at the end of a line.
func (c *boundedConn) endLine() bool {
	c.line = 0
	switch {
	case c.none:
	case c.kind == '$' || c.kind == '!' || c.kind == '=':
		c.pending = c.length + len("\r\n")
		c.size += c.pending
		return c.size <= maxReply
	case c.kind == '*' || c.kind == '~' || c.kind == '>' || c.kind == '%' || c.kind == '|':
		if c.kind == '%' || c.kind == '|' {
			c.length *= 2 // keys and values
		}
		if c.kind == '|' {
			c.length++ // and what they are said of
		}
		if c.length > 0 {
			c.open = append(c.open, c.length)
			return c.length <= maxReplyItems && len(c.open) <= maxReplyDepth
		}
	}
	c.ended()
	return true
}

// ended notes the end of a string, a number or an empty list, and so perhaps of the lists that it is in.
func (c *boundedConn) ended() {
	for last := len(c.open) - 1; last >= 0; last-- {
		if c.open[last]--; c.open[last] > 0 {
			return
		}
		c.open = c.open[:last]
	}
	c.size = 0
}
