package hub

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"testing"

	"postern/internal/notify"
	"postern/internal/testenv"
)

// BenchmarkPublish measures one message of a pool that has many listeners,
// a tenth of whom never read.
func BenchmarkPublish(b *testing.B) {
	request := []notify.Message{
		{Letter: 'S', Text: "0 StateChange Idle -> Busy"}, {Letter: 'F', Text: "2"}, {Letter: 'S', Text: "0 scan q1"},
		{Letter: 'S', Text: "0 StateChange Busy -> Idle"}, {Letter: 'F', Text: "3"},
	}
	for _, listeners := range []int{0, 1, 100, 1000} {
		for _, interest := range []string{"?YZ", "?*+"} {
			b.Run(fmt.Sprintf("listeners=%d/%s", listeners, interest), func(b *testing.B) {
				h, dial := serve(b, Options{}, 0)
				for i := range listeners {
					p := dial()
					p.want("*OK")
					p.ask(h, interest+"\n")
					if i%10 != 9 {
						go io.Copy(io.Discard, p.conn)
					}
				}
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					h.Publish(request[i%len(request)])
				}
			})
		}
	}
}

// TestIdleListenerIsCheap holds the hub to what the package comment says about
// the memory of a listener. The other end of the connection counts too here.
func TestIdleListenerIsCheap(t *testing.T) {
	h, dial := serve(t, Options{}, 0)
	first := dial()
	first.want("*OK")
	first.ask(h, "?YZ\n")
	memory := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	before := memory()
	n := testenv.Connections(t, 2*1000) / 2 // both ends are here
	peers := make([]net.Conn, n)
	for i := range peers {
		c, err := first.dialAgain()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("?YZ\n")); err != nil {
			t.Fatal(err)
		}
		peers[i] = c
	}
	until(t, "all subscriptions", func() bool { return h.Stats().Subscriptions == uint64(n)+1 })
	each := int64(memory()-before) / int64(n)
	t.Logf("%d bytes a listener", each)
	if each > 8<<10 {
		t.Errorf("%d bytes a listener, at most %d are promised", each, 8<<10)
	}
	runtime.KeepAlive(peers)
}

func (p *peer) dialAgain() (net.Conn, error) {
	return testenv.Connect("unix", p.conn.RemoteAddr().String())
}
