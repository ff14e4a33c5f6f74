package hub

import (
	"errors"
	"strconv"
	"time"

	"postern/internal/notify"
)

// This file brings listeners that are behind up to date: those that have just
// subscribed, and those that did not read fast enough.

// compressedLines is how many lines of the compressed history are made at a
// time for one listener.
const compressedLines = 128

var errEnded = errors.New("listener ended")

// serve gives the listeners that have just subscribed a turn each, and those in
// the queue as far as time allows.
func (d *distributor) serve(began time.Time) {
	fresh := d.fresh
	d.fresh = nil
	for _, l := range fresh {
		d.turn(l)
	}
	for n := len(d.queue); n > 0; n-- {
		l := d.queue[0]
		d.queue[0] = nil
		d.queue = d.queue[1:]
		d.turn(l)
		if !d.closed && time.Since(began) > roundTime {
			return
		}
	}
}

func (d *distributor) turn(l *listener) {
	l.queued = false
	if l.removed || l.blocked {
		return
	}
	more, err := d.advance(l)
	switch {
	case err != nil:
		d.drop(l)
	case more:
		d.enqueue(l)
	}
}

// advance writes to a listener until it is up to date, its socket is full or
// its turn is over; more says that it wants another turn.
func (d *distributor) advance(l *listener) (more bool, err error) {
	for sent := 0; sent < stepBytes; {
		n := len(l.unsent)
		if all, err := l.send(); !all {
			return false, err
		}
		sent += n
		if l.ending {
			return false, errEnded
		}
		limit := l.limit(d.view.next)
		switch {
		case l.sub != nil && l.next >= l.sub.from:
			d.subscribe(l)
		case l.snapshot != nil && l.next >= l.stands:
			l.unsent, l.snapshot, l.joining = l.snapshot, nil, false
		case l.next < d.view.first():
			d.bridge(l)
		case l.next < limit:
			n, all := d.piece(l, limit)
			if !all {
				return false, nil
			}
			sent += n
		case l.next > d.view.next || l.snapshot != nil:
			return true, nil // what comes next is not in view yet
		case l.joining:
			d.takeSnapshot(l)
		default:
			d.join(l)
			return false, nil
		}
	}
	return true, nil
}

// limit is the number before which something other than messages is due, or
// next if nothing is.
func (l *listener) limit(next uint64) uint64 {
	if l.sub != nil {
		next = min(next, l.sub.from)
	}
	if l.snapshot != nil {
		next = min(next, l.stands)
	}
	return next
}

// piece writes the rest of the chunk that the listener is in, up to number
// limit; n is how many bytes it took, if it took all.
func (d *distributor) piece(l *listener, limit uint64) (n int, all bool) {
	first, lines, end := d.render(l.next, l.key)
	end = min(end, limit)
	from, to := lines.line(l.next-first), lines.line(end-first)
	if from < to && !d.write(l, first, lines, from, to) {
		return 0, false
	}
	l.next = end
	l.seen += uint64(to - from)
	return lines.start(to) - lines.start(from), true
}

// bridge gives a listener what is left of the messages before the first chunk in
// view, and tells it how many are missing. What the history has given up since the
// view was taken still stands whole in the view, and is sent from there.
func (d *distributor) bridge(l *listener) {
	h := d.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	g := h.log
	if g.lacks(l.key.letters, l.next) {
		h.stats.TooSlow++
		h.opt.Log.Warn("listener closed", "reason", notify.TooSlow, "peer", l.conn.RemoteAddr().String())
		l.unsent, l.ending = []byte(notify.LineErr+notify.TooSlow+"\n"), true
		l.conn.SetWriteDeadline(time.Now().Add(goodbyeTime))
		return
	}
	to, total := d.view.first(), d.view.before(l.key.letters)
	if l.sub != nil && l.sub.from < to {
		to, total = l.sub.from, l.sub.before
	}
	if l.snapshot != nil && l.stands < to {
		to, total = l.stands, l.standsSeen
	}
	if lost := total - l.seen - g.left(l.key.letters, l.next, to); lost > 0 {
		l.seen += lost
		h.stats.Lost += lost
		if l.key.extended {
			l.unsent = appendControl(l.unsent, notify.LineLost, lost)
		}
	}
	lines, next := g.compressed(l.key.letters, l.next, to, compressedLines)
	for _, k := range lines {
		if l.key.extended {
			l.unsent = append(l.unsent, k.line...)
		} else {
			l.unsent = append(l.unsent, k.line[k.prefix:]...)
		}
	}
	l.seen += uint64(len(lines))
	l.next = next
}

// subscribe puts what a listener has asked for into effect.
func (d *distributor) subscribe(l *listener) {
	s := l.sub
	l.sub = nil
	l.key = key{s.letters, s.extended}
	l.next, l.seen = s.from, s.seen
	l.joining, l.snapshot = s.extended, nil
	if s.extended {
		l.unsent = appendControl(l.unsent, notify.LineExtended, s.from-1)
		l.unsent = append(l.unsent[:len(l.unsent)-1], ' ')
		l.unsent = append(strconv.AppendUint(l.unsent, d.hub.run, 10), '\n')
		if s.replay {
			d.replay(l, s)
		}
	}
	d.hub.mu.Lock()
	d.hub.stats.Subscriptions++
	d.hub.mu.Unlock()
	l.taken <- struct{}{}
}

// replay moves a listener back to the number it has named. A number that was
// never given, or was given by another run of the daemon, means that everything
// of this run is new.
func (d *distributor) replay(l *listener, s *subscription) {
	d.hub.mu.Lock()
	defer d.hub.mu.Unlock()
	g := d.hub.log
	since := s.since
	if since >= s.from || s.run != 0 && s.run != d.hub.run {
		since = 0
	}
	l.next = since + 1
	first := d.view.first()
	if l.next >= first {
		l.seen = d.view.countBefore(s.letters, l.next)
		return
	}
	// How many of the missing had its letters is not known any more: all that
	// are not kept count.
	for i, seq := range g.forgotten {
		if s.letters&(1<<i) != 0 {
			l.next = min(max(l.next, seq+1), first)
		}
	}
	kept := g.left(s.letters, l.next, first)
	l.seen = d.view.before(s.letters) - kept
	if lost := first - (since + 1) - kept; lost > 0 {
		d.hub.stats.Lost += lost
		l.unsent = appendControl(l.unsent, notify.LineLost, lost)
	}
}

// takeSnapshot takes the snapshot that a listener is due. The listener gets it when
// it has all that came before.
func (d *distributor) takeSnapshot(l *listener) {
	h := d.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	l.stands, l.standsSeen = h.log.next, l.key.letters.count(&h.log.counts)
	l.snapshot = h.state.snapshot(nil, l.key.letters&h.letters, l.stands-1)
	l.snapshot = appendControl(l.snapshot, notify.LineLive, l.stands-1)
}

func appendControl(dst []byte, word string, n uint64) []byte {
	dst = append(dst, word...)
	return append(strconv.AppendUint(dst, n, 10), '\n')
}
