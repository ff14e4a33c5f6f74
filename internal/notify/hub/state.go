package hub

import (
	"slices"
	"strconv"
	"time"

	"postern/internal/notify"
)

// A state is what a daemon's messages so far amount to: what a snapshot shows.
type state struct {
	single  [26]fact // newest F, L, N and E, and Y or Z (under Y)
	workers map[int]*tag
}

type fact struct {
	msg  notify.Message
	time time.Time
}

type tag struct {
	busy bool
	fact
}

func newState() *state { return &state{workers: map[int]*tag{}} }

// apply takes a message into account.
func (st *state) apply(m notify.Message, now time.Time) {
	switch m.Letter {
	case notify.LetterFree, notify.LetterGate, notify.LetterWorking, notify.LetterFault:
		st.single[m.Letter-'A'] = fact{m, now}
	case notify.LetterSome, notify.LetterNone:
		// A Z that repeats a Z is no news: the time stays that of the first.
		if f := &st.single[notify.LetterSome-'A']; f.msg.Letter != m.Letter {
			*f = fact{m, now}
		}
	case notify.LetterStatus:
		st.status(m, now)
	}
}

// status follows a worker's S messages: a tag lasts until the worker leaves
// the Busy state.
func (st *state) status(m notify.Message, now time.Time) {
	n := m.Worker()
	if n < 0 {
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
	if _, to, ok := m.StateChange(); ok {
		w.busy, w.msg = to == notify.Busy, notify.Message{}
		return
	}
	w.busy, w.fact = true, fact{m, now}
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
		dst = f.msg.Append(dst)
	}
	numbers := make([]int, 0, len(st.workers))
	for n, w := range st.workers {
		if w.busy {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		line(st.workers[n].fact)
	}
	line(st.single[notify.LetterFree-'A'])
	line(st.gate())
	line(st.single[notify.LetterGate-'A'])
	line(st.single[notify.LetterWorking-'A'])
	if f := st.single[notify.LetterFault-'A']; f.msg.Text != "" {
		line(f)
	}
	return dst
}

// gate is the last Y or Z; before the first of them the number of free workers
// says which it would be.
func (st *state) gate() fact {
	if f := st.single[notify.LetterSome-'A']; f.msg.Letter != 0 {
		return f
	}
	f := st.single[notify.LetterFree-'A']
	switch f.msg.Text {
	case "":
		return fact{}
	case "0":
		return fact{notify.Message{Letter: notify.LetterNone}, f.time}
	}
	return fact{notify.Message{Letter: notify.LetterSome}, f.time}
}
