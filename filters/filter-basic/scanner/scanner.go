// Package scanner asks programs that look at messages: clamd, rspamd, spamd, and commands. What they answer is hostile
// input like the rest: it is bounded, and waited for until a deadline.
package scanner

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// Message is what scanners are told.
type Message struct {
	Content    []byte // lines may end in LF
	QueueID    string
	ClientIP   string
	ClientName string // "" or an address in brackets if it is not known
	Helo       string
	Sender     string // without angle brackets
	Recipients []string
	User       string // who has logged in; "" for nobody
}

// trace is what scanners look for at the top of a message: where it came from, as our own Received field is not in it
// yet. By these fields they know that it is a message, too.
func (m *Message) trace() []byte {
	name, login := m.ClientName, ""
	if name == "" || strings.HasPrefix(name, "[") {
		name = "unknown"
	}
	if m.User != "" {
		login = "A"
	}
	return fmt.Appendf(nil, "Return-Path: <%s>\nReceived: from %s (%s [%s])\n\tby localhost (Postern) with ESMTP%s id %s\n",
		printable(m.Sender, 500), printable(m.Helo, 255), printable(name, 255), printable(m.ClientIP, 64), login, printable(m.QueueID, 64))
}

// short is a text of the envelope that is no longer than any that is in order.
func short(text string) string {
	const most = 1000
	return text[:min(len(text), most)]
}

// firstRecipients returns the recipients that have room in so many bytes, with a few more for each.
func (m *Message) firstRecipients(room, more int) (list []string) {
	for _, r := range m.Recipients {
		r = short(r)
		if room -= len(r) + more; room < 0 {
			break
		}
		list = append(list, r)
	}
	return list
}

// Verdict is what a scanner takes a message for.
type Verdict int

// The verdicts.
const (
	Clean   Verdict = iota
	Virus           // it has something that does harm
	Spam            // it is to be marked
	Refuse          // it is to be refused, so the scanner
	Discard         // it is to be thrown away, so the scanner
	Defer           // the client shall come again
)

// Result is a scanner's answer.
type Result struct {
	Verdict  Verdict
	Name     string // of a virus, or of what the scanner wants done
	Reply    string // for the client; "" for a text of ours
	Scored   bool   // the next two are set
	Score    float64
	Required float64
	Symbols  []string
	Subject  string // a new one; "" for none
	Remove   []Field
	Add      []Field
}

// Field is a field to be added, or with an Index only, removed.
type Field struct {
	Name, Value string
	Index       int // where to add: counted from 0, -1 for the end; or which occurrence to remove, 0 for all
}

// Scanner asks one kind of program.
type Scanner interface {
	Name() string
	Scan(ctx context.Context, m *Message) (Result, error)
}

// String is the result as it stands in a log line and a field.
func (r Result) String() string {
	var b strings.Builder
	b.WriteString(map[Verdict]string{Clean: "clean", Virus: "virus", Spam: "spam", Refuse: "refuse", Discard: "discard", Defer: "defer"}[r.Verdict])
	if r.Name != "" {
		fmt.Fprintf(&b, " (%s)", printable(r.Name, 100))
	}
	if r.Scored {
		fmt.Fprintf(&b, " score=%.1f/%.1f", r.Score, r.Required)
	}
	if len(r.Symbols) > 0 {
		fmt.Fprintf(&b, " symbols=%s", printable(strings.Join(r.Symbols, ","), 1000))
	}
	return b.String()
}

// printable is s in ASCII without control characters and what has a meaning in fields, cut to n bytes.
func printable(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || strings.ContainsRune(`();"\`, r) {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), n)]
}

// Bounds of what is taken from a scanner.
const (
	maxAnswer   = 1 << 20
	maxFields   = 50
	maxValue    = 4 << 10
	maxAllBytes = 16 << 10
	maxSymbols  = 500
)

// keep bounds the changes of a header, and leaves out what cannot stand in one.
func (r *Result) keep() {
	left := maxAllBytes
	ok := func(f Field) bool {
		left -= len(f.Name) + 3*len(f.Value)
		return f.Name != "" && len(f.Name) <= 100 && len(f.Value) <= maxValue && left > 0 &&
			!strings.ContainsFunc(f.Name, func(c rune) bool { return c <= ' ' || c > '~' || c == ':' })
	}
	for _, list := range []*[]Field{&r.Remove, &r.Add} {
		var kept []Field
		for _, f := range *list {
			if ok(f) && len(kept) < maxFields {
				kept = append(kept, f)
			}
		}
		*list = kept
	}
	r.Symbols = r.Symbols[:min(len(r.Symbols), maxSymbols)]
	if len(r.Subject) > maxValue {
		r.Subject = ""
	}
}

// Servers are several of which any can answer: the first one that is not known to be away is asked first.
type Servers struct {
	addresses []string
	away      map[string]time.Time
	now       func() time.Time // for tests
}

// restAfterFailure is how long a server that failed is asked last.
const restAfterFailure = 30 * time.Second

func newServers(addresses []string) *Servers {
	return &Servers{addresses: addresses, away: map[string]time.Time{}, now: time.Now}
}

// order returns the servers in the order in which they are asked.
func (s *Servers) order() []string {
	var first, last []string
	for _, a := range s.addresses {
		if s.now().Before(s.away[a]) {
			last = append(last, a)
		} else {
			first = append(first, a)
		}
	}
	return append(first, last...)
}

// each asks one server after another until one answers. Each gets its share of the time that is left.
func (s *Servers) each(ctx context.Context, ask func(ctx context.Context, address string) (Result, error)) (Result, error) {
	var all error
	order := s.order()
	for i, address := range order {
		r, err := s.one(ctx, address, len(order)-i, ask)
		if err == nil {
			delete(s.away, address)
			r.keep()
			return r, nil
		}
		s.away[address] = s.now().Add(restAfterFailure)
		all = errors.Join(all, fmt.Errorf("%s: %w", address, err))
		if ctx.Err() != nil {
			break
		}
	}
	return Result{}, all
}

func (s *Servers) one(ctx context.Context, address string, left int, ask func(context.Context, string) (Result, error)) (Result, error) {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
		defer cancel()
	}
	return ask(ctx, address)
}

// dial connects to a path or to HOST:PORT. Reads and writes end with the context.
func dial(ctx context.Context, address string) (net.Conn, error) {
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

// CheckAddress reports what is wrong with an address of a server.
func CheckAddress(address string) error {
	if strings.HasPrefix(address, "/") {
		return nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || port == "" {
		return fmt.Errorf("%q is neither /PATH nor HOST:PORT", address)
	}
	return nil
}
