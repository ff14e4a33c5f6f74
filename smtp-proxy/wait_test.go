package main

import (
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"postern/internal/testenv"
)

func TestDrain(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b))
	idle := greeted(t, p.addr)
	fresh := dial(t, p.addr)
	fresh.expect("220")
	busy := greeted(t, p.addr)
	busy.envelope()
	busy.cmd("DATA", "354")
	drain := testenv.Go(t, "the drain", func() error { p.Drain(context.Background()); return nil })
	for _, c := range []*dialog{idle, fresh} {
		c.expect("421 4.3.2 proxy.example ")
		c.expectEnd()
	}
	late := dial(t, p.addr)
	late.expect("421 4.3.2 proxy.example Service is going down")
	testenv.NotYet(t, "drained while a message is on its way", drain.Done())
	busy.send(smallMessage)
	busy.expect("250")
	busy.expect("421 4.3.2 proxy.example ")
	busy.expectEnd()
	drain.Wait()
	if n := len(b.Messages()); n != 1 {
		t.Errorf("%d messages, want 1", n)
	}
}

// TestDrainEndsPauses: what waits does not hold up a drain, also when no more sessions were let in before it.
func TestDrainEndsPauses(t *testing.T) {
	t.Parallel()
	p := startProxy(t, behind(testenv.StartBackend(t)))
	p.refuse()
	p.Drain(context.Background())
	testenv.Receive(t, "the end of pauses", p.stopping)
	p.Drain(context.Background()) // once more is no harm
}

// TestDrainWaitsForContentOnly: whoever says nothing is not waited for, whatever they are in the middle of.
func TestDrainWaitsForContentOnly(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Extend("PIPELINING", "AUTH LOGIN")
	b.Answer(func(a testenv.Asked) string { return onVerb(a, "AUTH", "334 VXNlcm5hbWU6") })
	p := startProxy(t, append(certificate(t, t.TempDir(), "proxy.example"), behind(b), "--auth-requires-tls=no", "--max-junk=100000000")...)
	p.drainGrace = 50 * time.Millisecond
	sender := greeted(t, p.addr)
	sender.cmd("MAIL FROM:<a@b.example>", "250")
	recipient := greeted(t, p.addr)
	recipient.envelope()
	login := greeted(t, p.addr)
	login.cmd("AUTH LOGIN", "334")
	handshake := greeted(t, p.addr)
	handshake.cmd("STARTTLS", "220")
	chunks := greeted(t, p.addr)
	chunks.envelope()
	chunks.send("BDAT 3\r\nA: ")
	chunks.expect("250")
	deaf := greeted(t, p.addr)
	deaf.fill("HELP\r\n")
	drain := testenv.Go(t, "the drain", func() error { p.Drain(context.Background()); return nil })
	for _, c := range []*dialog{sender, recipient, login} {
		c.expect("421 4.3.2 proxy.example ")
		c.expectEnd()
	}
	handshake.expectEnd()
	testenv.Eventually(t, "only content is waited for", func() bool { return p.sessionCount() == 1 })
	chunks.send("BDAT 5 LAST\r\nb\r\n\r\n")
	chunks.expect("250")
	chunks.expect("421 4.3.2 proxy.example ")
	drain.Wait()
}

// fill sends commands and reads no reply, until the other side does not take any more.
func (c *dialog) fill(command string) {
	c.t.Helper()
	must(c.t, c.Conn.(*net.TCPConn).SetReadBuffer(4<<10))
	many := strings.Repeat(command, 2000)
	for {
		must(c.t, testenv.Impatient(c))
		if n, err := io.WriteString(c, many); err != nil && n == 0 {
			return
		}
	}
}

// TestDrainNotHeldByOne: a client that does not read its 421 does not keep the others from theirs.
func TestDrainNotHeldByOne(t *testing.T) {
	t.Parallel()
	p := startProxy(t, behind(testenv.StartBackend(t)))
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	s := p.newSession(near, listenSMTP, netip.AddrPort{}, netip.AddrPort{})
	p.draining.Store(true)
	go func() {
		o, _ := s.rest()
		s.answer(o)
		s.flush()
	}()
	if _, err := far.Read(make([]byte, 1)); err != nil { // the rest of the 421 waits to be read
		t.Fatal(err)
	}
	testenv.Go(t, "the drain, with a client that does not read", func() error { s.wait.wake(); return nil }).Wait()
}

func TestDrainEndsInTime(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b))
	c := greeted(t, p.addr)
	c.envelope()
	c.cmd("DATA", "354")
	ctx, cancel := testenv.Soon(context.Background())
	defer cancel()
	p.Drain(ctx)
	if n := p.sessionCount(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// deadlines notes what deadlines a connection gets.
type deadlines struct{ read, write time.Time }

func (d *deadlines) SetReadDeadline(t time.Time) error  { d.read = t; return nil }
func (d *deadlines) SetWriteDeadline(t time.Time) error { d.write = t; return nil }
func (d *deadlines) Close() error                       { return nil }

// TestWaiter: what a drain makes of each kind of waiting, begun before or after the drain.
func TestWaiter(t *testing.T) {
	t.Parallel()
	const grace, patience = time.Hour, 24 * time.Hour
	at := func(d time.Duration) time.Time { return time.Now().Add(d) }
	for _, tt := range []struct {
		name   string
		what   waits
		within time.Duration // from the drain on; 0: the waiting ends at once
	}{
		{"command", forCommand, 0},
		{"next command of a transaction", forMore, grace},
		{"content", forContent, patience},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn := &deadlines{}
			w := waiter{drain: &drain{drainGrace: grace}, conn: conn}
			if !w.begin(tt.what, patience) || conn.read.Before(at(patience-grace)) {
				t.Errorf("began to wait until %v", conn.read)
			}
			if w.wake(); conn.read.After(at(tt.within)) || tt.within > 0 && conn.read.Before(at(tt.within-grace/2)) || conn.write.After(at(grace)) {
				t.Errorf("woken, reads until %v, writes until %v", conn.read, conn.write)
			}
			w.end()
			*conn = deadlines{}
			if w.wake(); !conn.read.IsZero() {
				t.Error("woken although it did not wait")
			}
			w.draining.Store(true)
			if ok := w.begin(tt.what, patience); ok != (tt.within > 0) || conn.read.After(at(tt.within)) {
				t.Errorf("while draining: %v, until %v", ok, conn.read)
			}
		})
	}
}
