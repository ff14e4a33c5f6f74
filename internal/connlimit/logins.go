package connlimit

import (
	"net/netip"
	"sync"
	"time"
)

const (
	// LoginWindow is how long failed logins count, from the last one on.
	LoginWindow = 10 * time.Minute
	// LongestDelay bounds how long the answer to a failed login waits.
	LongestDelay = 30 * time.Second

	tableLimit = 50000 // origins that are remembered; a bound, not a setting
	userLimit  = 256   // names that are told apart for one origin
)

// Logins counts the failed logins of each origin. Many failures shut it out for a while, and every one makes the answer
// to the next wait longer. It is ready for use by its literal, and for any number of goroutines.
type Logins struct {
	Now func() time.Time // default: time.Now

	mu    sync.Mutex
	max   int
	delay time.Duration
	seen  map[netip.Prefix]*record
}

// record is what is held against one origin.
type record struct {
	failures int
	users    map[string]int // which of them were for that name
	last     time.Time
}

// Set puts limits into force: how many failures shut an origin out, 0 for no limit, and how long the answer to the first
// one waits. It may be called at any time.
func (l *Logins) Set(most int, delay time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.max, l.delay = most, delay
}

// Shut reports whether the client may try no more: its origin has failed too often, and not long ago. Clients without
// an address are never shut out.
func (l *Logins) Shut(addr netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.seen[Origin(addr)]
	return addr.IsValid() && r != nil && l.max > 0 && r.failures >= l.max && l.now().Sub(r.last) < LoginWindow
}

// Failed counts a failed login, with the name that was tried if it is known, and returns how long the answer is to wait:
// twice as long for each one.
func (l *Logins) Failed(addr netip.Addr, user string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	r := l.record(Origin(addr), now)
	if now.Sub(r.last) >= LoginWindow {
		r.failures, r.users = 0, nil
	}
	r.failures++
	r.last = now
	if _, known := r.users[user]; user != "" && (known || len(r.users) < userLimit) {
		if r.users == nil {
			r.users = make(map[string]int)
		}
		r.users[user]++
	}
	d := l.delay
	for i := 1; i < r.failures && d < LongestDelay; i++ {
		d *= 2
	}
	return min(d, LongestDelay)
}

// Succeeded forgets the failures that were for that name: somebody found the right password. Those for other names stay,
// so that who guesses cannot wipe them out by a login of its own.
func (l *Logins) Succeeded(addr netip.Addr, user string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	origin := Origin(addr)
	r := l.seen[origin]
	if r == nil || user == "" {
		return
	}
	r.failures -= r.users[user]
	delete(r.users, user)
	if r.failures <= 0 {
		delete(l.seen, origin)
	}
}

// Forgive takes back at most n failures of the client's origin that still count, and returns how many.
func (l *Logins) Forgive(addr netip.Addr, n int) (forgiven int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	origin := Origin(addr)
	r := l.seen[origin]
	if r == nil || l.now().Sub(r.last) >= LoginWindow {
		return 0
	}
	n = min(n, r.failures)
	if r.failures -= n; r.failures <= 0 {
		delete(l.seen, origin)
	}
	return n
}

func (l *Logins) now() time.Time {
	if l.Now != nil {
		return l.Now()
	}
	return time.Now()
}

// record returns the entry of an origin. When the table is full, old entries are dropped, and if that does not help
// any of them.
func (l *Logins) record(origin netip.Prefix, now time.Time) *record {
	if r := l.seen[origin]; r != nil {
		return r
	}
	if l.seen == nil {
		l.seen = make(map[netip.Prefix]*record)
	}
	if len(l.seen) >= tableLimit {
		l.prune(now)
	}
	r := &record{last: now}
	l.seen[origin] = r
	return r
}

func (l *Logins) prune(now time.Time) {
	for origin, r := range l.seen {
		if now.Sub(r.last) >= LoginWindow {
			delete(l.seen, origin)
		}
	}
	for origin := range l.seen {
		if len(l.seen) < tableLimit*9/10 {
			return
		}
		delete(l.seen, origin)
	}
}
