package hub

import (
	"cmp"
	"math"
	"slices"
	"time"

	"postern/internal/notify"
)

// A distributor is the one goroutine that writes to listeners. It reads the
// history through a view taken under the hub's lock and does everything else
// without it.
type distributor struct {
	hub      *Hub
	groups   []*group
	fresh    []*listener        // have just subscribed, and may be written to
	queue    []*listener        // not up to date, and may be written to
	behind   map[*listener]bool // not up to date
	rendered []*chunk           // chunks with rendered lines, in the order they were first asked for
	pace     pace
	view     view
	closed   bool
	swept    time.Time
}

// A group is the listeners with one key that have got everything up to next.
type group struct {
	key     key
	members []*listener
	next    uint64
	seen    uint64 // messages of its letters before next
}

// A view is the history as it was at one moment.
type view struct {
	chunks []*chunk
	text   []byte // of the last chunk
	recs   []record
	next   uint64
	counts [26]uint64
}

// stepBytes is how much a listener that is behind may be sent at a turn, and
// roundTime how long the turns of one round may take together.
const (
	stepBytes = 2 * chunkText
	roundTime = 2 * time.Millisecond
)

// stallTime is how long a listener may not read before the history is no
// longer kept whole for it, goodbyeTime how long one that is closed may take
// to read why, and sweepTime how often, when there is much to do, these are
// looked at.
const (
	stallTime   = time.Second
	goodbyeTime = 10 * time.Second
	sweepTime   = 10 * time.Millisecond
)

func (h *Hub) distribute() {
	defer close(h.finished)
	d := &distributor{hub: h, behind: map[*listener]bool{}, pace: newPace(time.Now())}
	for {
		began := time.Now()
		d.take()
		d.deliver()
		d.serve(began)
		d.trim()
		if !d.wait(began) {
			return
		}
	}
}

// take looks at the history and at what listeners' goroutines handed over.
func (d *distributor) take() {
	h := d.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	d.look()
	d.closed = h.closed
	for _, l := range h.ready {
		switch {
		case l.removed:
		case l.gone || l.fault != nil:
			d.remove(l)
		default:
			if l.wrote {
				l.wrote, l.blocked, l.unsent = false, false, nil
				if l.doomed && !h.closed {
					l.doomed = false
					l.conn.SetWriteDeadline(time.Time{})
				}
			}
			if l.asked != nil {
				l.sub, l.asked = l.asked, nil
				d.leave(l)
			}
			d.enqueue(l)
		}
	}
	clear(h.ready)
	h.ready = h.ready[:0]
}

// look takes a view of the history. The hub's lock is held.
func (d *distributor) look() {
	g := d.hub.log
	d.view = view{chunks: g.chunks, next: g.next, counts: g.counts}
	if n := len(g.chunks); n > 0 {
		d.view.text, d.view.recs = g.chunks[n-1].text, g.chunks[n-1].recs
	}
}

// first is the oldest number that stands whole in the view.
func (v *view) first() uint64 {
	if len(v.chunks) == 0 {
		return v.next
	}
	return v.chunks[0].first
}

// before returns how many messages of these letters were published before the first
// that stands whole in the view.
func (v *view) before(set letters) uint64 {
	if len(v.chunks) == 0 {
		return set.count(&v.counts)
	}
	return set.count(&v.chunks[0].before)
}

// countBefore returns how many messages of these letters have numbers below seq, which
// stands whole in the view or is the next one.
func (v *view) countBefore(set letters, seq uint64) uint64 {
	if seq >= v.next {
		return set.count(&v.counts)
	}
	i, recs := v.chunk(seq)
	c := v.chunks[i]
	n := set.count(&c.before)
	for _, r := range recs {
		if c.first+uint64(r.seq) >= seq {
			break
		}
		if set.has(r.letter) {
			n++
		}
	}
	return n
}

// chunk finds the chunk with message seq, and what of it is in view.
func (v *view) chunk(seq uint64) (i int, recs []record) {
	i, found := slices.BinarySearchFunc(v.chunks, seq, func(c *chunk, seq uint64) int {
		return cmp.Compare(c.first, seq)
	})
	if !found {
		i--
	}
	if i+1 < len(v.chunks) {
		return i, v.chunks[i].recs
	}
	return i, v.recs
}

// render finds the chunk with message seq and its lines for a key; end is the
// number after the last message of that chunk.
func (d *distributor) render(seq uint64, k key) (first uint64, lines *rendered, end uint64) {
	v := &d.view
	i, recs := v.chunk(seq)
	c := v.chunks[i]
	text, end := v.text, v.next
	if i+1 < len(v.chunks) {
		text, end = c.text, v.chunks[i+1].first
	}
	if c.rendered == nil {
		d.rendered = append(d.rendered, c)
	}
	return c.first, c.render(k, text, recs), end
}

// deliver sends what is new to the listeners that were up to date. Groups that
// do not ask for status tags come first: theirs is little and matters most.
func (d *distributor) deliver() {
	for _, tags := range []bool{false, true} {
		for _, g := range d.groups {
			if g.key.letters.has(notify.LetterStatus) == tags {
				d.deliverGroup(g)
			}
		}
	}
}

func (d *distributor) deliverGroup(g *group) {
	v := &d.view
	if g.key.letters == 0 {
		g.next = v.next
	}
	if len(g.members) == 0 || g.next == v.next {
		return
	}
	if n := len(v.chunks); g.next < v.first() || n > 2 && g.next < v.chunks[n-2].first {
		// A long way to go: each by itself, a piece at a turn.
		for len(g.members) > 0 {
			l := g.members[len(g.members)-1]
			d.leave(l)
			d.enqueue(l)
		}
		return
	}
	for g.next < v.next {
		first, lines, end := d.render(g.next, g.key)
		from := lines.line(g.next - first)
		for i := 0; i < len(g.members) && from < len(lines.ends); {
			l := g.members[i]
			if d.write(l, first, lines, from, len(lines.ends)) {
				i++
			}
		}
		g.seen += uint64(len(lines.ends) - from)
		g.next = end
	}
}

// write sends a listener lines from up to to, and says whether it took them
// all. If not, it is in no group any more: of what it took in part the rest is unsent, and
// the message after that is due.
func (d *distributor) write(l *listener, first uint64, lines *rendered, from, to int) bool {
	start, end := lines.start(from), lines.start(to)
	n, err := l.attempt(lines.text[start:end])
	if err == nil && n == end-start {
		return true
	}
	d.leave(l)
	if err != nil {
		d.drop(l)
		return false
	}
	i := lines.at(start + n)
	l.unsent = slices.Clone(lines.text[start+n : lines.ends[i]])
	l.next = first + uint64(lines.recs[i]) + 1
	l.seen += uint64(i + 1 - from)
	l.block()
	return false
}

// leave takes a listener out of its group.
func (d *distributor) leave(l *listener) {
	d.behind[l] = true
	g := l.group
	if g == nil {
		return
	}
	l.group, l.next, l.seen = nil, g.next, g.seen
	last := g.members[len(g.members)-1]
	g.members[l.index], last.index = last, l.index
	g.members[len(g.members)-1] = nil
	g.members = g.members[:len(g.members)-1]
}

// join puts a listener that has everything in the view into the group of its
// key, which has it too.
func (d *distributor) join(l *listener) {
	delete(d.behind, l)
	i := slices.IndexFunc(d.groups, func(g *group) bool { return g.key == l.key })
	if i < 0 {
		i = len(d.groups)
		d.groups = append(d.groups, &group{key: l.key})
	}
	g := d.groups[i]
	g.next, g.seen = l.next, l.seen
	l.group, l.index = g, len(g.members)
	g.members = append(g.members, l)
}

// enqueue has a listener that is not up to date served. Those that have just
// subscribed, and may have been promised a snapshot, are not kept waiting by
// those that are far behind.
func (d *distributor) enqueue(l *listener) {
	if l.queued || l.blocked || l.removed {
		return
	}
	l.queued = true
	if l.sub != nil || l.joining {
		d.fresh = append(d.fresh, l)
	} else {
		d.queue = append(d.queue, l)
	}
}

// drop removes a listener.
func (d *distributor) drop(l *listener) {
	d.hub.mu.Lock()
	d.remove(l)
	d.hub.mu.Unlock()
}

// remove removes a listener. The hub's lock is held.
func (d *distributor) remove(l *listener) {
	if l.removed {
		return
	}
	d.leave(l)
	delete(d.behind, l)
	delete(d.hub.listeners, l)
	l.removed = true
	l.conn.Close()
	close(l.done)
}

// trim gives up rendered lines: all but the newest when everyone is up to date, and
// the oldest when they take too much memory. Groups without members go too.
func (d *distributor) trim() {
	d.groups = slices.DeleteFunc(d.groups, func(g *group) bool { return len(g.members) == 0 })
	keep := 0
	for size := 0; keep < len(d.rendered); keep++ {
		size += chunkSize
		for _, lines := range d.rendered[len(d.rendered)-1-keep].rendered {
			size += lines.size()
		}
		if size > renderedMax || keep == 1 && len(d.behind) == 0 {
			break
		}
	}
	for _, c := range d.rendered[:len(d.rendered)-keep] {
		c.rendered = nil
	}
	d.rendered = slices.Delete(d.rendered, 0, len(d.rendered)-keep)
}

// wait lets the distributor rest until there is something to do; it returns
// false when the hub is closed and everything is said that can be.
func (d *distributor) wait(began time.Time) bool {
	h := d.hub
	now := time.Now()
	if d.closed {
		return !d.finish()
	}
	nap(d.pace.pause(now.Sub(began), now, d.view.next))

	h.mu.Lock()
	d.sweep(now)
	h.wanted = 0
	for _, g := range d.groups {
		h.wanted |= g.key.letters
	}
	idle := len(h.ready)+len(d.fresh)+len(d.queue) == 0 && !h.closed &&
		h.wanted.count(&h.log.counts) == h.wanted.count(&d.view.counts)
	h.idle = idle
	h.mu.Unlock()
	if !idle {
		return true
	}
	if len(d.behind) == 0 {
		<-h.wake
	} else {
		t := time.NewTimer(stallTime)
		defer t.Stop()
		select {
		case <-h.wake:
		case <-t.C:
		}
	}
	// Who wakes us says so, but the signal may be one that came too late for the
	// rest before this one.
	h.mu.Lock()
	h.idle = false
	h.mu.Unlock()
	return true
}

// sweep says from where on the history is needed whole: listeners that have not
// read for a while do not count. Those who have missed an edge meanwhile get a
// last chance to read why they are closed. The hub's lock is held.
func (d *distributor) sweep(now time.Time) {
	g := d.hub.log
	if now.Sub(d.swept) < sweepTime && len(d.queue) > 0 {
		return
	}
	d.swept = now
	g.floor = math.MaxUint64
	for _, group := range d.groups {
		if len(group.members) > 0 {
			g.floor = min(g.floor, group.next)
		}
	}
	for l := range d.behind {
		switch {
		case !l.blocked || now.Sub(l.since) < stallTime:
			g.floor = min(g.floor, l.next)
		case !l.doomed && g.lacks(l.key.letters, l.next):
			l.doomed = true
			l.conn.SetWriteDeadline(now.Add(goodbyeTime))
		}
	}
}

// finish reports whether every listener has all that it is to get; if so, all are closed.
// Listeners that do not read are ended by the deadline that Close has set.
func (d *distributor) finish() bool {
	h := d.hub
	h.mu.Lock()
	waiting := len(h.ready)+len(d.fresh)+len(d.queue) > 0 || d.view.next != h.log.next
	h.idle = !waiting
	h.mu.Unlock()
	if waiting {
		return false
	}
	if len(d.behind) > 0 {
		<-h.wake
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for l := range h.listeners {
		d.remove(l)
	}
	return true
}
