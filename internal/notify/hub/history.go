package hub

import (
	"cmp"
	"iter"
	"math"
	"slices"
	"strconv"
	"time"

	"postern/internal/notify"
)

// Sizes of the history. A chunk is the unit in which it grows and shrinks.
const (
	chunkText = 32 << 10 // bytes of rendered lines in a chunk
	chunkRecs = 768      // messages in a chunk
	chunkSize = chunkText + chunkRecs*16 + 512

	historyRest = 512 << 10 // bytes kept when no listener needs more
	historyMax  = 32 << 20  // bytes kept for listeners that are behind but reading

	maxEdgeChunks = 32      // chunks of old edges, 1.5 MiB and about 22 000 edges
	maxStates     = 1 << 16 // workers whose newest S is kept
)

// maxLine bounds a line of the extended form: number, time, message.
const maxLine = 20 + 1 + 20 + 1 + 2 + notify.MaxText + 1

// edgeLetters are never dropped: who misses one acts wrongly for ever. Of S
// and F the newest is as good as all of them; the rest is news that a slow
// listener may miss, and is told so.
const edgeLetters = "BELNRUYZ"

// A record is one message in a chunk: where its line ends, how much of the
// line is number and time, and what compression needs to know.
type record struct {
	end    uint32 // in chunk.text
	seq    uint32 // above chunk.first
	worker uint32 // of an S message, else noWorker
	prefix uint8  // bytes of "SEQ TIME "; what follows is the classic line
	letter uint8
}

// Workers of messages that name none: F, and an S without a number.
const (
	noWorker = math.MaxUint32
	nameless = math.MaxUint32 - 1
)

// A chunk is a piece of the history. What is in it never changes; lines are
// only added at the end of the newest one.
type chunk struct {
	first  uint64     // number of its first message
	before [26]uint64 // how many of each letter were published before first
	text   []byte     // extended lines
	recs   []record

	rendered []*rendered // the distributor's: lines chosen for groups of listeners
}

func newChunk() *chunk {
	return &chunk{text: make([]byte, 0, chunkText), recs: make([]record, 0, chunkRecs)}
}

func (c *chunk) reset() *chunk {
	*c = chunk{text: c.text[:0], recs: c.recs[:0]}
	return c
}

func (c *chunk) full(line int) bool {
	return len(c.recs) == cap(c.recs) || len(c.text)+line > cap(c.text)
}

func (c *chunk) line(i int) []byte {
	start := uint32(0)
	if i > 0 {
		start = c.recs[i-1].end
	}
	return c.text[start:c.recs[i].end]
}

// A history is the daemon's messages, numbered from 1. The newest stand in
// chunks, whole. Of older ones the edges are kept and the newest S of each
// worker and the newest F, and of still older ones nothing.
type history struct {
	next   uint64 // number of the next message
	counts [26]uint64
	chunks []*chunk
	floor  uint64 // listeners that still read need messages from here on

	edges     []*chunk
	states    map[uint32]*kept // by worker; noWorker is F
	forgotten [26]uint64       // newest edge of each letter that is kept nowhere

	rest, most int // bytes: historyRest, historyMax

	second int64 // time of the last message, and its digits
	digits []byte
}

type kept struct {
	seq    uint64
	line   []byte
	prefix uint8
	letter uint8
}

func newHistory() *history {
	return &history{next: 1, floor: math.MaxUint64, rest: historyRest, most: historyMax,
		states: map[uint32]*kept{}, digits: make([]byte, 0, 24)}
}

// add appends a message; grown says that it began a new chunk.
func (g *history) add(m notify.Message, now time.Time, reuse bool) (grown bool) {
	if n := len(g.chunks); n == 0 || g.chunks[n-1].full(maxLine) {
		g.grow(reuse)
		grown = true
	}
	c := g.chunks[len(g.chunks)-1]
	r := record{seq: uint32(g.next - c.first), worker: noWorker, letter: m.Letter}
	if m.Letter == notify.LetterStatus {
		r.worker = nameless
		if n := m.Worker(); n >= 0 {
			r.worker = uint32(n)
		}
	}
	start := len(c.text)
	c.text = strconv.AppendUint(c.text, g.next, 10)
	c.text = append(c.text, ' ')
	c.text = g.appendTime(c.text, now)
	c.text = append(c.text, ' ')
	r.prefix = uint8(len(c.text) - start)
	c.text = m.Append(c.text)
	r.end = uint32(len(c.text))
	c.recs = append(c.recs, r)
	g.counts[m.Letter-'A']++
	g.next++
	return grown
}

// appendTime writes seconds since 1970 with microseconds. The seconds seldom
// change, so their digits are kept.
func (g *history) appendTime(dst []byte, t time.Time) []byte {
	if s := t.Unix(); s != g.second || len(g.digits) == 0 {
		g.second = s
		g.digits = append(strconv.AppendInt(g.digits[:0], s, 10), '.')
	}
	dst = append(dst, g.digits...)
	us := t.Nanosecond() / 1000
	for div := 100000; div > 0; div /= 10 {
		dst = append(dst, byte('0'+us/div%10))
	}
	return dst
}

// grow starts a new chunk and gives up old ones that are not needed. Each
// message is given up once, so this costs O(1) a message. reuse says that nobody
// but us looks at chunks at the moment, so that an old one may become the new.
func (g *history) grow(reuse bool) {
	old := 0
	for ; old < len(g.chunks); old++ {
		size := (len(g.chunks) - old + 1) * chunkSize
		if size <= g.rest || size <= g.most && g.end(old) > g.floor {
			break
		}
		g.compress(g.chunks[old])
	}
	c := newChunk
	if old > 0 {
		if last := g.chunks[old-1]; reuse && last.rendered == nil {
			c = last.reset
		}
		// A copy: the distributor may be reading the list it was given.
		g.chunks = slices.Clone(g.chunks[old:])
	}
	fresh := c()
	fresh.first, fresh.before = g.next, g.counts
	g.chunks = append(g.chunks, fresh)
}

// end is the number after the last message of chunk i.
func (g *history) end(i int) uint64 {
	if i+1 < len(g.chunks) {
		return g.chunks[i+1].first
	}
	return g.next
}

// first is the number of the oldest message that stands in a chunk.
func (g *history) first() uint64 {
	if len(g.chunks) == 0 {
		return g.next
	}
	return g.chunks[0].first
}

// compress keeps of a chunk what must not get lost: its edges, and of S and F
// the newest.
func (g *history) compress(c *chunk) {
	edges := letterSet(edgeLetters)
	for i := len(c.recs) - 1; i >= 0; i-- {
		if r := c.recs[i]; r.letter == notify.LetterStatus || r.letter == notify.LetterFree {
			g.keepState(c.first+uint64(r.seq), r, c.line(i))
		}
	}
	for i, r := range c.recs {
		if edges.has(r.letter) {
			g.keepEdge(c.first+uint64(r.seq), r, c.line(i))
		}
	}
}

func (g *history) keepState(seq uint64, r record, line []byte) {
	k := g.states[r.worker]
	if k == nil {
		if len(g.states) >= maxStates {
			return
		}
		k = &kept{}
		g.states[r.worker] = k
	}
	if k.seq < seq {
		k.seq, k.prefix, k.letter = seq, r.prefix, r.letter
		k.line = append(k.line[:0], line...)
	}
}

func (g *history) keepEdge(seq uint64, r record, line []byte) {
	n := len(g.edges)
	if n == 0 || g.edges[n-1].full(len(line)) || seq-g.edges[n-1].first > math.MaxUint32 {
		if n == maxEdgeChunks {
			for _, r := range g.edges[0].recs {
				g.forgotten[r.letter-'A'] = g.edges[0].first + uint64(r.seq)
			}
			g.edges = slices.Delete(g.edges, 0, 1)
		}
		c := newChunk()
		c.first = seq
		g.edges = append(g.edges, c)
	}
	c := g.edges[len(g.edges)-1]
	c.text = append(c.text, line...)
	r.seq, r.end = uint32(seq-c.first), uint32(len(c.text))
	c.recs = append(c.recs, r)
}

// lacks reports whether an edge of these letters with number from or above is
// kept no more.
func (g *history) lacks(set letters, from uint64) bool {
	for i, seq := range g.forgotten {
		if set&(1<<i) != 0 && seq >= from {
			return true
		}
	}
	return false
}

// compressed returns what is left of the messages from number from up to to,
// which is at most the first chunk's, in order: about limit lines, and the
// number to go on from.
func (g *history) compressed(set letters, from, to uint64, limit int) (lines []kept, next uint64) {
	next = to
	for seq, e := range g.oldEdges(set, from, to) {
		if len(lines) == limit {
			next = seq
			break
		}
		lines = append(lines, e)
	}
	for _, k := range g.states {
		if k.seq >= from && k.seq < next && set.has(k.letter) {
			lines = append(lines, kept{k.seq, slices.Clone(k.line), k.prefix, k.letter})
		}
	}
	slices.SortFunc(lines, func(a, b kept) int { return cmp.Compare(a.seq, b.seq) })
	return lines, next
}

// left counts the messages that compressed would give in all.
func (g *history) left(set letters, from, to uint64) (n uint64) {
	for range g.oldEdges(set, from, to) {
		n++
	}
	for _, k := range g.states {
		if k.seq >= from && k.seq < to && set.has(k.letter) {
			n++
		}
	}
	return n
}

// oldEdges goes through the edges that stand in no chunk any more.
func (g *history) oldEdges(set letters, from, to uint64) iter.Seq2[uint64, kept] {
	return func(yield func(uint64, kept) bool) {
		for n, c := range g.edges {
			if n+1 < len(g.edges) && g.edges[n+1].first <= from {
				continue
			}
			for i, r := range c.recs {
				seq := c.first + uint64(r.seq)
				if seq >= to {
					return
				}
				if seq >= from && set.has(r.letter) && !yield(seq, kept{seq, c.line(i), r.prefix, r.letter}) {
					return
				}
			}
		}
	}
}
