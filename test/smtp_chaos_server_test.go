package test

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/testenv"
)

// flakyServer is an SMTP server that fails in many ways, and keeps what it has accepted.
type flakyServer struct {
	t       *testing.T
	address string
	faults  atomic.Int64
	cuts    atomic.Int64 // connections that ended at some byte

	mu       sync.Mutex
	random   *rand.Rand
	server   *testenv.Backend
	accepted map[string]*arrival // by the attempt
	last     int
	stalled  int // connections, since the last cut: they stay so until the next one
}

// arrival is a message that the server has taken.
type arrival struct {
	copies int
	silent bool // it ended the connection instead of saying 250
	conn   *cutConn
}

func newFlakyServer(t *testing.T) *flakyServer {
	f := &flakyServer{t: t, random: rand.New(rand.NewPCG(1, 2)), accepted: make(map[string]*arrival)}
	f.listen("127.0.0.1:0")
	return f
}

// listen begins to answer; connections that are open elsewhere are not touched.
func (f *flakyServer) listen(address string) {
	var l net.Listener
	testenv.Eventually(f.t, "the server's port is free", func() (ok bool) {
		var err error
		l, err = net.Listen("tcp4", address)
		return err == nil
	})
	f.address = l.Addr().String()
	f.mu.Lock()
	defer f.mu.Unlock()
	conns := []*cutConn{}
	f.server = testenv.ServeBackend(f.t, &cutListener{l, f, &conns})
	f.server.Answer(func(a testenv.Asked) string { return f.answer(a, &conns) })
}

// answer fails one command in a hundred or so.
func (f *flakyServer) answer(a testenv.Asked, conns *[]*cutConn) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if a.Verb == "." {
		return f.take(a.Line, (*conns)[a.Conn-1])
	}
	switch n := f.random.IntN(1500); {
	case n < 5:
		return f.fault("close")
	case n < 10:
		return f.fault("451 4.3.0 Not now")
	case n < 15:
		return f.fault("421 4.3.2 Busy")
	case n < 16:
		f.stalled++
		return f.fault("hang")
	}
	return ""
}

// take decides about a message. One that it takes counts, whatever becomes of the reply.
func (f *flakyServer) take(data string, conn *cutConn) string {
	attempt, ok := wholeMessage(data)
	if !ok {
		f.t.Errorf("half a message came with an end of data: %.100q ... %q", data, data[max(0, len(data)-50):])
	}
	switch f.random.IntN(80) {
	case 0:
		return f.fault("close")
	case 1:
		return f.fault("451 4.3.0 Not now")
	}
	if f.accepted[attempt] == nil {
		f.accepted[attempt] = &arrival{conn: conn}
	}
	f.accepted[attempt].copies++
	if f.random.IntN(200) == 0 {
		f.accepted[attempt].silent = true
		return f.fault("close")
	}
	return ""
}

func (f *flakyServer) fault(answer string) string {
	f.faults.Add(1)
	return answer
}

// wholeMessage gives the attempt that a message is of, and says whether it came to its end.
func wholeMessage(data string) (attempt string, ok bool) {
	_, rest, _ := strings.Cut(data, "Subject: ")
	attempt, _, ok = strings.Cut(rest, "\r\n")
	return attempt, ok && strings.HasSuffix(data, "0123456789\r\nEND "+attempt+"\r\n")
}

// end closes all connections at whatever byte they are.
func (f *flakyServer) end() {
	f.mu.Lock()
	b := f.server
	f.stalled = 0
	f.mu.Unlock()
	b.Close()
	for _, breach := range b.Breaches() {
		if !strings.Contains(breach, "half a command") { // that is what a cut leaves
			f.t.Errorf("the next hop saw: %s", breach)
		}
	}
	b.Forgive()
}

// cut ends all connections.
func (f *flakyServer) cut() {
	f.end()
	f.listen(f.address)
}

// away is cut, and nobody answers for a moment.
func (f *flakyServer) away() {
	f.end()
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
		if nc, err := testenv.Connect("tcp4", f.address); err == nil {
			nc.Close()
		}
	}
	f.listen(f.address)
}

// progress is a condition: so many more messages were accepted, or none may be, as all clients that there are have a
// connection that stalls.
func (f *flakyServer) progress(n int, clients *atomic.Int32) func() bool {
	return func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.accepted) < f.last+n && f.stalled < int(clients.Load()) {
			return false
		}
		f.last = len(f.accepted)
		return true
	}
}

// cutListener gives some of its connections a number of bytes behind which they break.
type cutListener struct {
	net.Listener
	f     *flakyServer
	conns *[]*cutConn
}

func (l *cutListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.f.mu.Lock()
	defer l.f.mu.Unlock()
	c := &cutConn{Conn: nc, f: l.f}
	c.left.Store(1 << 62)
	if l.f.random.IntN(3) == 0 {
		c.left.Store(int64(l.f.random.IntN(200_000)))
	}
	*l.conns = append(*l.conns, c)
	return c, nil
}

// cutConn is a connection that breaks behind so many bytes, in both directions together.
type cutConn struct {
	net.Conn
	f      *flakyServer
	left   atomic.Int64
	gone   atomic.Bool // its client ended it
	broken atomic.Bool // the server did
}

// use takes bytes off what is left, and gives how many may pass.
func (c *cutConn) use(n int) int {
	if left := c.left.Add(-int64(n)); left < 0 {
		n = max(n+int(left), 0)
	}
	return n
}

func (c *cutConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !c.broken.Load() {
		c.gone.Store(true)
	}
	if pass := c.use(n); pass < n {
		c.cut()
		return pass, io.ErrUnexpectedEOF
	}
	return n, err
}

func (c *cutConn) Write(p []byte) (int, error) {
	pass := c.use(len(p))
	n, err := c.Conn.Write(p[:pass])
	if pass < len(p) {
		c.cut()
		return n, io.ErrClosedPipe
	}
	return n, err
}

func (c *cutConn) cut() {
	c.f.cuts.Add(1)
	c.Close()
}

// Close ends the connection, unless its client has done so.
func (c *cutConn) Close() error {
	if !c.gone.Load() {
		c.broken.Store(true)
	}
	return c.Conn.Close()
}
