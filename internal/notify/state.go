package notify

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// A state is what a daemon's messages so far amount to: what a snapshot shows.
type state struct {
	single  [26]fact // newest F, L, N and E, and Y or Z (under Y)
	workers map[uint32]*tag
}

type fact struct {
	msg  Message
	time time.Time
}

type tag struct {
	busy bool
	fact
}

func newState() *state { return &state{workers: map[uint32]*tag{}} }

// apply takes a message into account.
func (st *state) apply(m Message, now time.Time) {
	switch m.Letter {
	case LetterFree, LetterGate, LetterWorking, LetterFault:
		st.single[m.Letter-'A'] = fact{m, now}
	case LetterSome, LetterNone:
		// A Z that repeats a Z is no news: the time stays that of the first.
		if f := &st.single[LetterSome-'A']; f.msg.Letter != m.Letter {
			*f = fact{m, now}
		}
	case LetterStatus:
		st.status(m, now)
	}
}

// status follows a worker's S messages: a tag lasts until the worker leaves
// the Busy state.
func (st *state) status(m Message, now time.Time) {
	n, ok := workerNumber(m.Text)
	if !ok {
		return
	}
	w := st.workers[n]
	if w == nil {
		if len(st.workers) >= maxStates {
			return
		}
		w = &tag{}
		st.workers[n] = w
	}
	if i := strings.IndexByte(m.Text, ' '); i > 0 {
		if _, to, ok := stateChange(m.Text[i+1:]); ok {
			w.busy = to == "Busy"
			w.msg = Message{}
			return
		}
	}
	w.busy, w.fact = true, fact{m, now}
}

// stateChange takes "StateChange Old -> New" apart. A tag that a client or a
// worker chose is taken for one only if it is one to the letter.
func stateChange(text string) (from, to string, ok bool) {
	rest, ok := strings.CutPrefix(text, "StateChange ")
	if !ok {
		return "", "", false
	}
	from, to, ok = strings.Cut(rest, " -> ")
	return from, to, ok && workerState(from) && workerState(to)
}

func workerState(s string) bool {
	return s == "Stopped" || s == "Idle" || s == "Busy" || s == "Killed"
}

// snapshot appends the state as far as the letters cover it, in the order in
// which the messages of one change come: "=SEQ TIME MESSAGE" lines, where SEQ
// is the number of the last event and TIME that of the message itself.
func (st *state) snapshot(dst []byte, set letters, seq uint64) []byte {
	g := history{}
	line := func(f fact) {
		if f.msg.Letter == 0 || !set.has(f.msg.Letter) {
			return
		}
		dst = append(dst, '=')
		dst = strconv.AppendUint(dst, seq, 10)
		dst = append(dst, ' ')
		dst = g.appendTime(dst, f.time)
		dst = append(dst, ' ')
		dst = f.msg.append(dst)
	}
	numbers := make([]uint32, 0, len(st.workers))
	for n, w := range st.workers {
		if w.busy {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		line(st.workers[n].fact)
	}
	line(st.single[LetterFree-'A'])
	line(st.gate())
	line(st.single[LetterGate-'A'])
	line(st.single[LetterWorking-'A'])
	if f := st.single[LetterFault-'A']; f.msg.Text != "" {
		line(f)
	}
	return dst
}

// gate is the last Y or Z; before the first of them the number of free workers
// says which it would be.
func (st *state) gate() fact {
	if f := st.single[LetterSome-'A']; f.msg.Letter != 0 {
		return f
	}
	f := st.single[LetterFree-'A']
	switch f.msg.Text {
	case "":
		return fact{}
	case "0":
		return fact{Message{Letter: LetterNone}, f.time}
	}
	return fact{Message{Letter: LetterSome}, f.time}
}
