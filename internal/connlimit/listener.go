package connlimit

import (
	"net"
	"sync"
)

// Listen gives a listener that has at most so many connections open at a time. Those beyond are closed at once.
func Listen(l net.Listener, most int) net.Listener {
	return &limitedListener{Listener: l, slots: make(chan struct{}, most)}
}

type limitedListener struct {
	net.Listener
	slots chan struct{}
}

// Accept gives the next connection for which there is room.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.slots <- struct{}{}:
			return &limitedConn{Conn: c, free: sync.OnceFunc(func() { <-l.slots })}, nil
		default:
			c.Close()
		}
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
