package logging

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// limitBench is a limited logger whose clock stands still until it is moved.
type limitBench struct {
	log *slog.Logger
	out bytes.Buffer
	now time.Time
}

func newLimitBench(level slog.Level) *limitBench {
	b := &limitBench{now: time.Unix(1000, 0)}
	b.log = Limit(slog.New(slog.NewTextHandler(&b.out, &slog.HandlerOptions{Level: level})), Strangers, func() time.Time { return b.now })
	return b
}

// count returns how many lines there were that hold the text, and in all.
func (b *limitBench) count(text string) (with, all int) {
	return strings.Count(b.out.String(), text), strings.Count(b.out.String(), "\n")
}

// LOG-14: a flood of one kind is a few lines, and the log says how many there were not.
func TestLOG_14_FloodIsCounted(t *testing.T) {
	b := newLimitBench(slog.LevelInfo)
	const seconds, each = 3, 10_000
	for range seconds {
		for i := range each {
			b.log.Info("refused", "session", i, "client", "192.0.2.1")
		}
		b.now = b.now.Add(time.Second)
	}
	b.log.Info("other")
	if n, all := b.count("msg=refused"); n != seconds*Strangers.Client || all != seconds*(Strangers.Client+1)+1 {
		t.Errorf("%d lines of the flood, %d in all\n%s", n, all, b.out.String())
	}
	want := fmt.Sprintf(`level=WARN msg="lines were suppressed" line=refused count=%d`, each-Strangers.Client)
	if n, _ := b.count(want); n != seconds {
		t.Errorf("%q is there %d times\n%s", want, n, b.out.String())
	}
}

// LOG-15: one client's flood does not hide the lines about others, nor one kind another; many clients
// together have a limit too.
func TestLOG_15_FloodHidesNothingElse(t *testing.T) {
	b := newLimitBench(slog.LevelInfo)
	strangers := []any{"192.0.2.1", netip.MustParseAddrPort("192.0.2.1:25"), "192.0.2.1:4711"}
	for i := range 1000 {
		b.log.Info("refused", "client", strangers[i%3], "gate", "stamp")
		b.log.With("peer", netip.MustParseAddrPort(fmt.Sprintf("[2001:db8::1]:%d", i+1))).Warn("closed")
	}
	b.log.Info("refused", "client", "198.51.100.7", "gate", "stamp")
	b.log.Info("refused", "client", "192.0.2.1", "gate", "filter")
	b.log.Info("session", "client", "192.0.2.1")
	for text, want := range map[string]int{"gate=stamp": Strangers.Client + 1, "msg=closed": Strangers.Client, "198.51.100.7": 1, "gate=filter": 1, "msg=session": 1} {
		if n, _ := b.count(text); n != want {
			t.Errorf("%d lines with %q, want %d", n, text, want)
		}
	}
	for i := range 1000 {
		b.log.Info("crowd", "client", fmt.Sprintf("203.0.113.%d", i%200))
	}
	if n, _ := b.count("msg=crowd"); n != Strangers.Kind {
		t.Errorf("%d lines about a crowd, want %d", n, Strangers.Kind)
	}
}

// Messages that strangers make up are no way around the limits, nor do they cost memory.
func TestLimitOfKinds(t *testing.T) {
	b := newLimitBench(slog.LevelInfo)
	for i := range 50_000 {
		b.log.Info(strings.Repeat("x", i%1000) + " text")
		b.log.Info(fmt.Sprintf("worker %d said %q", i, strings.Repeat("x", i%1000)))
	}
	if n, _ := b.count(" text"); n > (maxKinds+1)*Strangers.Kind {
		t.Errorf("%d lines", n)
	}
	if n, _ := b.count("worker"); n != Strangers.Kind {
		t.Errorf("%d lines of one pattern, want %d", n, Strangers.Kind)
	}
}

// What was delivered is always told, and at the level debug everything is.
func TestNotLimited(t *testing.T) {
	b := newLimitBench(slog.LevelInfo)
	for range 100 {
		b.log.InfoContext(Earned(t.Context()), "message", "client", "192.0.2.1")
	}
	if n, all := b.count("msg=message"); n != 100 || all != 100 {
		t.Errorf("%d of 100 lines, %d in all", n, all)
	}
	b = newLimitBench(slog.LevelDebug)
	for range 100 {
		b.log.Info("refused", "client", "192.0.2.1")
		b.log.Debug("command")
	}
	if _, all := b.count(""); all != 200 {
		t.Errorf("%d of 200 lines", all)
	}
}

// The count is said although no other line comes.
func TestSuppressedIsSaidInTheEnd(t *testing.T) {
	b := newLimitBench(slog.LevelInfo)
	for range 100 {
		b.log.Info("refused")
	}
	h := b.log.Handler().(limited)
	h.limiter.mu.Lock()
	armed := h.limiter.timer.Stop()
	h.limiter.mu.Unlock()
	if !armed {
		t.Fatal("no timer waits")
	}
	b.now = b.now.Add(2 * time.Second)
	h.limiter.expire()
	if n, _ := b.count("line=refused count=80"); n != 1 {
		t.Errorf("not said: %s", b.out.String())
	}
}

func BenchmarkLimit(b *testing.B) {
	log := Limit(slog.New(slog.NewTextHandler(&bytes.Buffer{}, nil)), Strangers, nil)
	b.ReportAllocs()
	for b.Loop() {
		log.Info("refused", "session", "3f1c", "client", "192.0.2.1", "gate", "stamp")
	}
}
