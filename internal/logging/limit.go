package logging

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Rate is how many lines there may be in a second: so many of a kind, and so many of these
// because of one client, so that the lines about others are seen. A kind is a message, apart from
// numbers and quotations in it, with its gate.
type Rate struct{ Kind, Client int }

// Strangers is the rate of what anybody on the Internet can cause.
var Strangers = Rate{Kind: 20, Client: 10}

// maxKinds bounds the kinds of a second; what is beyond counts as one kind.
const maxKinds = 500

// Limit returns a logger that writes to log what the rate lets through, and says
// later how many lines it kept back. Loggers made from it share its limits. What has
// the level debug, or is [Earned], is not limited; nor is anything while log has that level.
// now is the clock, nil being time.Now.
func Limit(log *slog.Logger, rate Rate, now func() time.Time) *slog.Logger {
	if log.Enabled(context.Background(), slog.LevelDebug) {
		return log
	}
	if now == nil {
		now = time.Now
	}
	inner := log.Handler()
	return slog.New(limited{inner: inner, limiter: &limiter{rate: rate, out: inner, now: now}})
}

// Earned returns a context for lines that whoever causes them pays for, such as one
// about a message that was delivered.
func Earned(ctx context.Context) context.Context { return context.WithValue(ctx, earned{}, true) }

type earned struct{}

// limited is the handler of a logger that has limits.
type limited struct {
	inner   slog.Handler
	limiter *limiter
	cause   cause // as far as it is known from With
}

// Enabled reports whether records of the level are wanted.
func (h limited) Enabled(ctx context.Context, level slog.Level) bool {
	return h.inner.Enabled(ctx, level)
}

// Handle writes the record if the limits allow it.
func (h limited) Handle(ctx context.Context, r slog.Record) error {
	if ctx.Value(earned{}) == nil && r.Level >= slog.LevelInfo {
		c := h.cause
		c.message = pattern(r.Message)
		r.Attrs(func(a slog.Attr) bool {
			c.learn(a)
			return true
		})
		if !h.limiter.allow(c) {
			return nil
		}
	}
	return h.inner.Handle(ctx, r)
}

// WithAttrs returns a handler that adds the attributes to each record.
func (h limited) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		h.cause.learn(a)
	}
	h.inner = h.inner.WithAttrs(attrs)
	return h
}

// WithGroup returns a handler that puts the attributes that follow into a group.
func (h limited) WithGroup(name string) slog.Handler {
	h.inner = h.inner.WithGroup(name)
	return h
}

// cause is what a line is about.
type cause struct {
	message, gate, client string
}

// learn takes what an attribute tells.
func (c *cause) learn(a slog.Attr) {
	switch a.Key {
	case "gate":
		c.gate = a.Value.String()
	case "client":
		c.client = host(a.Value.String())
	case "peer":
		if c.client == "" {
			c.client = host(a.Value.String())
		}
	}
}

// host leaves a port out: it is another one for each connection.
func host(address string) string {
	if i := strings.LastIndexByte(address, ':'); i > 0 && (address[0] == '[' || strings.IndexByte(address, ':') == i) {
		return address[:i]
	}
	return address
}

// pattern is what messages of a kind have in common: no numbers and nothing behind a quotation mark.
func pattern(message string) string {
	if i := strings.IndexByte(message, '"'); i >= 0 {
		message = message[:i]
	}
	if !strings.ContainsAny(message, "0123456789") {
		return message
	}
	return strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' {
			return -1
		}
		return r
	}, message)
}

// kind is what lines are counted by.
type kind struct{ message, gate string }

// count is of one kind, in the present second.
type count struct {
	lines, kept int
	clients     map[string]int
}

// limiter counts lines.
type limiter struct {
	rate Rate
	out  slog.Handler // takes the lines about what was kept back
	now  func() time.Time

	mu     sync.Mutex
	second int64
	kinds  map[kind]*count
	timer  *time.Timer // says what was kept back, if no line comes that would
}

// allow counts a line and reports whether it may be written.
func (l *limiter) allow(c cause) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turn()
	k := kind{c.message, c.gate}
	n := l.kinds[k]
	if n == nil && len(l.kinds) >= maxKinds {
		k = kind{}
		n = l.kinds[k]
	}
	if n == nil {
		n = &count{clients: map[string]int{}}
		l.kinds[k] = n
	}
	if n.lines < l.rate.Kind && (c.client == "" || n.clients[c.client] < l.rate.Client) {
		n.lines++
		n.clients[c.client]++
		return true
	}
	n.kept++
	if l.timer == nil {
		l.timer = time.AfterFunc(2*time.Second, l.expire)
	}
	return false
}

// expire is when the second is surely over.
func (l *limiter) expire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer = nil
	l.turn()
}

// turn begins a new second, if it has come, and says what was kept back in the last one.
func (l *limiter) turn() {
	now := l.now()
	if now.Unix() == l.second && l.kinds != nil {
		return
	}
	for _, k := range slices.SortedFunc(maps.Keys(l.kinds), func(a, b kind) int {
		return strings.Compare(a.message+"\x00"+a.gate, b.message+"\x00"+b.gate)
	}) {
		if n := l.kinds[k]; n.kept > 0 {
			l.say(now, k, n.kept)
		}
	}
	l.second, l.kinds = now.Unix(), make(map[kind]*count, len(l.kinds))
}

// say writes how many lines of a kind there were not.
func (l *limiter) say(now time.Time, k kind, n int) {
	r := slog.NewRecord(now, slog.LevelWarn, "lines were suppressed", 0)
	r.Add("line", k.message)
	if k.gate != "" {
		r.Add("gate", k.gate)
	}
	r.Add("count", n)
	_ = l.out.Handle(context.Background(), r) // the queue counts what is lost
}
