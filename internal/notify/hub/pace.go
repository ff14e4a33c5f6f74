package hub

import (
	"syscall"
	"time"
)

// A pace decides how long the distributor rests between rounds. Usually it does
// not. But while the daemon is busy messages that come close together are sent
// together, and the distributor takes a small share of one processor: its work,
// and the work it makes for the kernel and for listeners on the same machine,
// must not slow down what the messages are about. When the daemon has nothing
// to say, a backlog is sent as fast as listeners read.
type pace struct {
	credit time.Duration // of work that may be done without a long rest
	last   time.Time
	busy   bool // in the last whole window

	began time.Time // of the window at hand
	first uint64    // message number then
}

const (
	paceGap   = 200 * time.Microsecond // between rounds when half the credit is used
	paceShare = 64                     // one part in so many is for the distributor
	paceBurst = 10 * time.Millisecond  // of credit at most
	// The longest rest. Work is measured by the clock: who was kept from the processor for a second has not worked
	// for a second, and must not be silent for a minute after it.
	paceRest = 100 * time.Millisecond
	paceBusy = 4000 // messages a second that make the daemon busy
	// over so long: one request makes a handful of messages in no time
	paceWindow = 10 * time.Millisecond
)

func newPace(now time.Time) pace { return pace{credit: paceBurst, last: now, began: now} }

// pause is how long to rest after a round that took work and ended now, with
// messages up to number next in view.
func (p *pace) pause(work time.Duration, now time.Time, next uint64) time.Duration {
	if window := now.Sub(p.began); window >= paceWindow {
		p.busy = float64(next-p.first) > window.Seconds()*paceBusy
		p.began, p.first = now, next
	}
	p.credit = max(min(p.credit+now.Sub(p.last)/paceShare, paceBurst)-work, -paceRest/paceShare)
	p.last = now
	switch {
	case !p.busy:
		p.credit = max(p.credit, 0)
		return 0
	case p.credit > paceBurst/2:
		return 0
	}
	return max(-p.credit*paceShare, paceGap)
}

// nap sleeps. The runtime's timers round short times up to a millisecond when
// nothing else is going on; the kernel's do not.
func nap(d time.Duration) {
	if d <= 0 {
		return
	}
	if d >= 5*time.Millisecond {
		time.Sleep(d)
		return
	}
	ts := syscall.NsecToTimespec(int64(d))
	syscall.Nanosleep(&ts, nil)
}
