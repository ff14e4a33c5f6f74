package connlimit

import (
	"net"
	"testing"

	"postern/internal/testenv"
)

// guests is a listener to which clients come from anywhere.
type guests struct {
	net.Listener
	come chan net.Conn
}

func (g guests) Accept() (net.Conn, error) {
	c, ok := <-g.come
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

// guest is a client. Its fate is the connection as it was accepted, or nil.
type guest struct {
	net.Conn
	addr net.Addr
	fate chan net.Conn
}

func (g *guest) RemoteAddr() net.Addr { return g.addr }

func (g *guest) Close() error {
	select {
	case g.fate <- nil:
	default: // nobody asks any more
	}
	return nil
}

// TestShareOfOneOrigin: one origin has a quarter of the connections, and leaves the rest to others; who is on this machine
// may have all. What is closed makes room.
func TestShareOfOneOrigin(t *testing.T) {
	come := make(chan net.Conn)
	l := Listen(guests{come: come}, 8)
	accepting := testenv.Go(t, "the listener", func() error {
		for {
			c, err := l.Accept()
			if err != nil {
				return nil
			}
			c.(*limitedConn).Conn.(*guest).fate <- c
		}
	})
	var last net.Conn
	visit := func(from string, want bool) {
		t.Helper()
		g := &guest{addr: &net.UnixAddr{}, fate: make(chan net.Conn, 1)}
		if ip := net.ParseIP(from); ip != nil {
			g.addr = &net.TCPAddr{IP: ip, Port: 1}
		}
		come <- g
		c := testenv.Receive(t, "what becomes of a client", g.fate)
		if in := c != nil; in != want {
			t.Errorf("a client from %s: let in is %v", from, in)
		}
		if c != nil {
			last = c
		}
	}
	visit("192.0.2.1", true)
	visit("192.0.2.1", true)
	visit("192.0.2.1", false)
	visit("::ffff:192.0.2.1", false)
	visit("2001:db8::1", true)
	visit("2001:db8::2", true)
	visit("2001:db8::3", false) // of the same /64
	visit("2001:db8:0:1::1", true)
	if first, again := last.Close(), last.Close(); first != nil || again != nil { // which counts once
		t.Error("not closed")
	}
	for i := range 4 {
		visit([]string{"127.0.0.1", "::1", ""}[i%3], true)
	}
	visit("127.0.0.1", false)
	visit("192.0.2.2", false)
	_ = last.Close()
	visit("192.0.2.2", true)
	close(come)
	accepting.Wait()
	if n := l.(*limitedListener).all; n != 8 {
		t.Errorf("%d are counted", n)
	}
}
