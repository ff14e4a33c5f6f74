package main

import (
	"net"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"postern/internal/testenv"
)

// idleLimit is what a session that waits may cost, in bytes.
const idleLimit = 8 << 10

// TestIdleSessionsAreCheap opens sessions up to EHLO and looks what each costs. The clients' ends are in
// this process as well; what they cost is measured first and taken off.
func TestIdleSessionsAreCheap(t *testing.T) {
	const sessions = 1000
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--max-sessions-per-address=0")
	greeted(t, p.addr).Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	base := memory()
	var pairs []net.Conn
	for range sessions {
		c, err := net.Dial("tcp", l.Addr().String())
		must(t, err)
		s, err := l.Accept()
		must(t, err)
		pairs = append(pairs, c, s)
	}
	conn := (memory() - base) / (2 * sessions)
	for _, c := range pairs {
		c.Close()
	}
	pairs = nil
	base = memory()
	clients := make([]net.Conn, 0, sessions)
	buf := make([]byte, 4096)
	for range sessions {
		c, err := net.Dial("tcp", p.addr)
		must(t, err)
		defer c.Close()
		must(t, c.SetDeadline(time.Now().Add(30*time.Second)))
		for _, line := range []string{"", "EHLO client.example\r\n"} {
			_, err := c.Write([]byte(line))
			must(t, err)
			_, err = c.Read(buf)
			must(t, err)
		}
		clients = append(clients, c)
	}
	// The last replies are out a moment before their sessions have gone to rest.
	cost := (memory()-base)/sessions - conn
	for end := time.Now().Add(20 * time.Second); cost > idleLimit && time.Now().Before(end); {
		runtime.Gosched()
		cost = (memory()-base)/sessions - conn
	}
	t.Logf("a session costs %d bytes, of which %d are the connection itself", cost, conn)
	if cost > idleLimit {
		t.Errorf("a session that waits costs %d bytes, want at most %d", cost, idleLimit)
	}
	runtime.KeepAlive(clients)
}

// memory gives the bytes in use by heap and stacks once garbage is gone.
func memory() int64 {
	debug.FreeOSMemory()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse + m.MSpanInuse)
}
