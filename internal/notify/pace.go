package notify

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
	next   uint64 // message number at last
}

const (
	paceGap   = 200 * time.Microsecond // between rounds when half the credit is used
	paceShare = 32                     // one part in so many is for the distributor
	paceBurst = 10 * time.Millisecond  // of credit at most
	paceBusy  = 4000                   // messages a second that make the daemon busy
)

func newPace(now time.Time) pace { return pace{credit: paceBurst, last: now} }

// pause is how long to rest after a round that took work and ended now, with
// messages up to number next in view.
func (p *pace) pause(work time.Duration, now time.Time, next uint64) time.Duration {
	elapsed := now.Sub(p.last)
	busy := float64(next-p.next) > elapsed.Seconds()*paceBusy
	p.credit = min(p.credit+elapsed/paceShare, paceBurst) - work
	p.last, p.next = now, next
	switch {
	case !busy:
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
