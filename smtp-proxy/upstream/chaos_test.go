package upstream

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/testenv"
)

// chaosServer is a server in bad health. It writes down every message that it takes, whole, in the moment it
// decides to take it; whatever happens then, that message is delivered.
type chaosServer struct {
	mu        sync.Mutex
	rnd       *rand.Rand
	delivered map[string][]string // by the id in the first line
	cuts      int
}

func (s *chaosServer) chance(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rnd.IntN(n) == 0
}

func (s *chaosServer) number(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rnd.IntN(n)
}

// cutConn breaks a connection after so many bytes in both directions.
type cutConn struct {
	net.Conn
	left int
	s    *chaosServer
}

func (c *cutConn) use(n int) (int, error) {
	if c.left < 0 {
		return n, nil
	}
	if n = min(n, c.left); n == 0 {
		c.s.mu.Lock()
		c.s.cuts++
		hard := c.s.rnd.IntN(2) == 0
		c.s.mu.Unlock()
		if tcp, ok := c.Conn.(*net.TCPConn); ok && hard {
			_ = tcp.SetLinger(0)
		}
		_ = c.Close()
		return 0, io.ErrClosedPipe
	}
	c.left -= n
	return n, nil
}

func (c *cutConn) Read(p []byte) (int, error) {
	n, err := c.use(len(p))
	if err != nil {
		return 0, err
	}
	return c.Conn.Read(p[:n])
}

func (c *cutConn) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		n, err := c.use(len(p) - done)
		if err != nil {
			return done, err
		}
		if _, err := c.Conn.Write(p[done : done+n]); err != nil {
			return done, err
		}
		done += n
	}
	return len(p), nil
}

func (s *chaosServer) handle(pc *peerConn) {
	nc := &cutConn{Conn: pc.Conn, left: -1, s: s}
	if s.chance(3) {
		nc.left = s.number(6000)
	}
	c := &chaosConn{s: s, nc: nc, r: bufio.NewReader(nc)}
	if !c.odd("421 4.3.2 Not now", "554 Go away") {
		c.say("220 chaos ESMTP")
	}
	for c.command() {
	}
}

type chaosConn struct {
	s  *chaosServer
	nc net.Conn
	r  *bufio.Reader
}

func (c *chaosConn) say(line string) { _, _ = io.WriteString(c.nc, line+"\r\n") }

// odd sometimes says something else than it should, or nothing any more.
func (c *chaosConn) odd(replies ...string) bool {
	switch c.s.number(60) {
	case 0:
		c.say(replies[c.s.number(len(replies))])
		return true
	case 1:
		_, _ = io.Copy(io.Discard, c.r) // stalls until the client has had enough
		return true
	case 2:
		c.say("garbage")
		return true
	}
	return false
}

func (c *chaosConn) command() bool {
	line, err := c.r.ReadString('\n')
	if err != nil {
		return false
	}
	verb, _, _ := strings.Cut(strings.TrimSpace(line), " ")
	if verb == "DATA" {
		return c.data()
	}
	if c.odd("451 4.3.0 Later", "421 4.3.2 Bye", "250 Ok\r\n250 Ok", "250-a\r\n451 b", "354 what") {
		return true
	}
	if verb == "EHLO" {
		c.say("250-chaos\r\n250-PIPELINING\r\n250 SIZE")
	} else {
		c.say("250 2.0.0 Ok")
	}
	return true
}

func (c *chaosConn) data() bool {
	if c.odd("451 4.3.0 Later", "250 Ok", "554 5.5.1 No") {
		return true
	}
	c.say("354 Go on")
	early := c.s.chance(100)
	if early {
		// A server that refuses early keeps its word. (One that accepts early cannot be told from a quick one
		// if its reply arrives behind our end of data; TestSMG_27_ReplyBeforeTheEndAcceptsNothing has those that can.)
		c.say([]string{"421 4.3.2 Bye", "452 4.3.1 Full"}[c.s.number(2)])
	}
	var content strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return false
		}
		if line == ".\r\n" {
			break
		}
		content.WriteString(strings.TrimPrefix(line, "."))
	}
	if early {
		return false
	}
	if c.odd("451 4.3.0 Later", "452 4.3.1 Full") {
		return true
	}
	id, _, _ := strings.Cut(content.String(), "\r\n")
	c.s.mu.Lock()
	c.s.delivered[id] = append(c.s.delivered[id], content.String())
	c.s.mu.Unlock()
	switch c.s.number(60) {
	case 0:
		return false // delivered, and never says so
	case 1:
		c.say("250 2.0.0 Ok: queued\r\n550 5.0.0 No")
		return true
	}
	c.say("250 2.0.0 Ok: queued")
	return true
}

// attempt sends a message once, as smtp-proxy does. unsure says that the server may have taken it although there
// is no reply.
func attempt(set *Set, content string, pipelined bool) (accepted, unsure bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*second)
	defer cancel()
	c, err := set.Get(ctx, Client{})
	if err != nil {
		return false, false
	}
	defer c.Release()
	for _, line := range envelope {
		c.Command(line)
		if !pipelined {
			if r, err := c.Reply(second / 4); err != nil || r.Code >= 400 {
				return false, false
			}
		}
	}
	if pipelined {
		refused := false
		for range envelope {
			r, err := c.Reply(second / 4)
			if err != nil {
				return false, false
			}
			refused = refused || r.Code >= 400
		}
		if refused {
			return false, false
		}
	}
	for rest := content; rest != ""; {
		n := min(len(rest), 700)
		if _, err := io.WriteString(c.Content(), rest[:n]); err != nil {
			return false, false
		}
		rest = rest[n:]
	}
	if err := c.EndContent(); err != nil {
		return false, true // the last write may have arrived all the same
	}
	r, err := c.Reply(second / 4)
	if err != nil {
		return false, true
	}
	return r.Positive(), false
}

// Nothing lost, nothing doubled, nothing in half: with servers that cut connections anywhere, stall, refuse for now
// and talk out of turn, each message that was acknowledged is at a server, once; twice only where a server took it
// and its reply was not read.
func TestChaos(t *testing.T) {
	messages, senders := 1000, 20
	if testing.Short() {
		messages = 200
	}
	goroutines := runtime.NumGoroutine()
	s := &chaosServer{rnd: rand.New(rand.NewPCG(3, 4)), delivered: map[string][]string{}}
	p := startPeer(t, s.handle)
	q := startPeer(t, s.handle)
	set := newSet(t, Config{URLs: []string{p.url(), q.url()}, HelloTimeout: second / 4, RetryTime: time.Millisecond, MaxConns: 8, MaxIdle: 4})

	var next, unsure, attempts atomic.Int64
	var doubts sync.Map // id to number of attempts that are unsure
	var wg sync.WaitGroup
	deadline := time.Now().Add(testenv.Patience)
	for n := range senders {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(5, uint64(n)))
			for {
				id := next.Add(1)
				if id > int64(messages) {
					return
				}
				name := fmt.Sprintf("id %d", id)
				content := name + "\r\n" + strings.Repeat(".dots\r\n..\r\n.\r\ncontent\r\n", rnd.IntN(200)) + "end\r\n"
				for {
					attempts.Add(1)
					ok, maybe := attempt(set, content, rnd.IntN(2) == 0)
					if maybe {
						unsure.Add(1)
						old, _ := doubts.LoadOrStore(name, new(atomic.Int64))
						old.(*atomic.Int64).Add(1)
					}
					if ok {
						break
					}
					if time.Now().After(deadline) {
						t.Errorf("%s was not accepted in time", name)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	set.Close()
	p.stop()
	q.stop()
	doubled := 0
	for id := 1; id <= messages; id++ {
		name := fmt.Sprintf("id %d", id)
		copies := s.delivered[name]
		allowed := 1
		if n, ok := doubts.Load(name); ok {
			allowed += int(n.(*atomic.Int64).Load())
		}
		switch {
		case len(copies) == 0:
			t.Errorf("%s was acknowledged and is nowhere", name)
		case len(copies) > allowed:
			t.Errorf("%s was delivered %d times, at most %d can be explained", name, len(copies), allowed)
		}
		doubled += max(len(copies)-1, 0)
		for _, content := range copies {
			if !strings.HasSuffix(content, "content\r\nend\r\n") && content != name+"\r\nend\r\n" {
				t.Errorf("%s is there in half: %q", name, content)
			}
		}
	}
	if len(s.delivered) != messages {
		t.Errorf("%d different messages were delivered of %d", len(s.delivered), messages)
	}
	t.Logf("%d messages in %d attempts, %d connections, %d cut; %d replies not read, %d messages twice because of that",
		messages, attempts.Load(), p.count()+q.count(), s.cuts, unsure.Load(), doubled)
	if s.cuts == 0 || unsure.Load() == 0 {
		t.Error("there was no chaos")
	}
	for _, st := range set.Stats() {
		if st.Open != 0 || st.Idle != 0 {
			t.Errorf("connections are left: %+v", st)
		}
	}
	testenv.Eventually(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= goroutines })
}
