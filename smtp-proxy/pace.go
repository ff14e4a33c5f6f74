package main

import (
	"errors"
	"time"
)

var errTooSlow = errors.New("client sends too slowly")

// paceSpan is the time over which the data rate is measured.
const paceSpan = 30 * time.Second

// pace is how fast content has to come: some of it within dataTimeout, all of it by the deadline, which a
// client that keeps the least data rate need not heed.
type pace struct {
	timeout  time.Duration
	deadline time.Time
	rate     int64 // bytes per second; 0 for none
	mark     time.Time
	marked   int64
}

func newPace(conf *live, now time.Time) pace {
	return pace{timeout: conf.DataTimeout, deadline: now.Add(conf.MessageTimeout), rate: int64(conf.MinDataRate), mark: now}
}

// stop takes the time out that the client was not listened to, because the server or the disk took theirs.
func (p *pace) stop(d time.Duration) {
	p.mark = p.mark.Add(d)
	p.deadline = p.deadline.Add(d)
}

// next returns the moment until which more content must come, received bytes having come so far.
func (p *pace) next(now time.Time, received int64) (time.Time, error) {
	until := now.Add(p.timeout)
	if p.rate == 0 {
		if until.After(p.deadline) {
			until = p.deadline
		}
		return until, nil
	}
	if now.Sub(p.mark) >= paceSpan {
		if float64(received-p.marked) < float64(p.rate)*now.Sub(p.mark).Seconds() {
			return until, errTooSlow
		}
		p.mark, p.marked = now, received
	}
	return until, nil
}
