package hub

import (
	"bufio"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/notify"
	"postern/internal/testenv"
)

// TestOtherConnections serves listeners over TCP and over connections that have
// no descriptor, slow ones as well.
func TestOtherConnections(t *testing.T) {
	h, _ := serve(t, Options{}, 3)
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pipes := &pipeListener{conns: make(chan net.Conn), closed: make(chan bool)}
	var wg sync.WaitGroup
	for _, l := range []net.Listener{tcp, pipes} {
		wg.Add(1)
		go func() { defer wg.Done(); h.Serve(l) }()
	}
	t.Cleanup(func() { h.Close(); wg.Wait() })
	for name, dial := range map[string]func() (net.Conn, error){
		"tcp":  func() (net.Conn, error) { return testenv.Connect("tcp4", tcp.Addr().String()) },
		"pipe": pipes.dial,
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := dial()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			testenv.Patient(conn)
			r := bufio.NewReader(conn)
			if line, err := r.ReadString('\n'); line != "*OK\n" {
				t.Fatalf("greeting %q, %v", line, err)
			}
			io.WriteString(conn, "?YZ\n")
			until(t, "the subscription", func() bool { return h.Stats().Subscriptions > 0 })
			for range 4000 {
				publish(h, "S 0 some text that fills the history", "F 0", "Z", "S 0 some text that fills the history", "F 1", "Y")
			}
			for i := range 8000 {
				if line, err := r.ReadString('\n'); line != []string{"Z\n", "Y\n"}[i%2] {
					t.Fatalf("line %d is %q, %v", i, line, err)
				}
			}
			h.mu.Lock()
			h.stats.Subscriptions = 0
			h.mu.Unlock()
		})
	}
}

// A pipeListener accepts what dial makes.
type pipeListener struct {
	conns  chan net.Conn
	closed chan bool
	once   sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (l *pipeListener) dial() (net.Conn, error) {
	a, b := net.Pipe()
	l.conns <- a
	return b, nil
}

// TestChurn has listeners come, change their minds, half-close and leave while
// several goroutines publish. One that stays must see every number once.
func TestChurn(t *testing.T) {
	h, dial := serve(t, Options{}, 0)
	stays := dial()
	stays.want("*OK")
	stays.send("?*+\n")
	stays.line()
	stays.want("*LIVE 0")

	const publishers, each = 4, 3000
	var published, visitors sync.WaitGroup
	for i := range publishers {
		published.Add(1)
		go func() {
			defer published.Done()
			for n := range each {
				h.Publish(notify.Message{Letter: "SFYZC"[n%5], Text: strconv.Itoa(i) + " " + strconv.Itoa(n)})
				if n%100 == 0 {
					testenv.Pause(time.Millisecond)
				}
			}
		}()
	}
	stop := make(chan bool)
	for i := range 8 {
		visitors.Add(1)
		rng := rand.New(rand.NewPCG(7, uint64(i)))
		go func() {
			defer visitors.Done()
			for {
				select {
				case <-stop:
					return
				default:
					visit(t, stays, rng)
				}
			}
		}()
	}
	for at := 1; at <= publishers*each; at++ {
		seq, _, _, err := splitLine(stays.line())
		if err != nil || seq != at {
			t.Fatalf("number %d, want %d, %v", seq, at, err)
		}
	}
	published.Wait()
	close(stop)
	visitors.Wait()
	until(t, "all visitors are gone", func() bool { return h.Stats().Listeners == 1 })
}

// visit is a short stay with random interests.
func visit(t *testing.T, like *peer, rng *rand.Rand) {
	conn, err := like.dialAgain()
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	testenv.Patient(conn)
	r := bufio.NewReader(conn)
	last := 0
	for range rng.IntN(4) {
		interest := []string{"?YZ\n", "?*\n", "?*+\n", "?S+@5\n", "?F+@1/2\n?\n", "garbage\n?YZ+\n"}[rng.IntN(6)]
		io.WriteString(conn, interest)
		if !strings.Contains(interest, "+") || strings.HasSuffix(interest, "\n?\n") {
			continue // nothing need come: an interest may be replaced before its snapshot
		}
		for range rng.IntN(50) {
			line, err := r.ReadString('\n')
			if err != nil {
				t.Errorf("after %q: %v", interest, err)
				return
			}
			if strings.HasPrefix(line, "*EXT ") {
				last = 0
			}
			if line[0] >= '0' && line[0] <= '9' {
				seq, _, _, err := splitLine(strings.TrimSuffix(line, "\n"))
				if err != nil || seq <= last {
					t.Errorf("after %q: %q follows %d, %v", interest, line, last, err)
				}
				last = seq
			}
			if strings.HasPrefix(line, "*LIVE ") {
				break
			}
		}
	}
	if rng.IntN(2) == 0 {
		conn.(*net.UnixConn).CloseWrite()
	}
}
