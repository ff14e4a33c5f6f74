package watch

import (
	"strings"
	"sync"
	"time"

	"postern/internal/notify"
)

// maxText bounds what is kept of a message, in bytes.
const maxText = 256

// A Line is something that a daemon has said, or that was found out about it.
type Line struct {
	Number  uint64 // of all lines, in the order they came
	Time    time.Time
	Target  *Target
	Message notify.Message
	Session string // "" if it is about none
	Address string // of the client, "" if it is not known
}

// Words says in English what the line means. The words are safe to show, but not yet escaped for HTML.
func (l *Line) Words() string { return l.Message.Words() }

// Gate is the gate that has refused something, "" if the line is not about one.
func (l *Line) Gate() string {
	words := strings.Fields(l.Message.Text)
	if l.Message.Letter != notify.LetterGated || len(words) < 3 {
		return ""
	}
	return words[2]
}

// Refusal says whether the line is about something that was refused, for now or for good.
func (l *Line) Refusal() bool { return strings.IndexByte(refusals, l.Message.Letter) >= 0 }

// refusals are the letters of messages about something refused.
const refusals = "GJTW"

// passing are the letters of messages that say how things stand: they come in masses, and are not kept as lines.
const passing = "SFYZN"

// A ring holds the last lines.
type ring struct {
	lines []Line
	next  int // place of the next one
}

func (r *ring) add(l Line, most int) {
	if len(r.lines) < most {
		r.lines = append(r.lines, l)
		return
	}
	r.lines[r.next] = l
	r.next = (r.next + 1) % most
}

// back calls f for each line, the newest first, until f says that it is enough.
func (r *ring) back(f func(*Line) bool) {
	for i := range r.lines {
		at := r.next - 1 - i
		if at < 0 {
			at += len(r.lines)
		}
		if !f(&r.lines[at]) {
			return
		}
	}
}

// history has the last lines of all daemons, and the last refusals for longer.
type history struct {
	mu       sync.Mutex
	most     int
	count    uint64
	all      ring
	refusals ring
}

// add keeps a line.
func (h *history) add(l Line) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count++
	l.Number = h.count
	h.all.add(l, h.most)
	if l.Refusal() {
		h.refusals.add(l, h.most)
	}
}

// newest gives the last lines that are wanted, the newest first, at most n.
func (h *history) newest(from *ring, n int, wanted func(*Line) bool) []Line {
	h.mu.Lock()
	defer h.mu.Unlock()
	var found []Line
	from.back(func(l *Line) bool {
		if wanted(l) {
			found = append(found, *l)
		}
		return len(found) < n
	})
	return found
}

// find gives the lines about a session, or an address and the sessions from there: the newest first, at most n.
func (h *history) find(query string, n int) []Line {
	h.mu.Lock()
	defer h.mu.Unlock()
	type key struct {
		target  *Target
		session string
	}
	sessions := make(map[key]bool)
	about := func(l *Line) bool {
		return l.Session == query || l.Address == query || sessions[key{l.Target, l.Session}]
	}
	// An address leads to sessions, whose other lines do not have it.
	for _, r := range []*ring{&h.all, &h.refusals} {
		r.back(func(l *Line) bool {
			if l.Session != "" && l.Address == query && len(sessions) < n {
				sessions[key{l.Target, l.Session}] = true
			}
			return true
		})
	}
	var found []Line
	oldest := uint64(0)
	h.all.back(func(l *Line) bool {
		oldest = l.Number
		if about(l) {
			found = append(found, *l)
		}
		return len(found) < n
	})
	h.refusals.back(func(l *Line) bool {
		if l.Number < oldest && len(found) < n && about(l) {
			found = append(found, *l)
		}
		return len(found) < n
	})
	return found
}

// parties gives the session and the client that a message names.
func parties(m notify.Message) (session, address string) {
	words := strings.SplitN(m.Text, " ", 3)
	if words[0] == "-" { // a client that never became a session
		words[0] = ""
	}
	word := func(i int) string {
		if i < len(words) {
			return words[i]
		}
		return ""
	}
	switch m.Letter {
	case notify.LetterConnected, notify.LetterDisconnected, notify.LetterWrongLogin, notify.LetterGated:
		return word(0), word(1)
	case notify.LetterAccepted, notify.LetterRejected, notify.LetterDeferred, notify.LetterHeld:
		return word(0), ""
	case notify.LetterStamp, notify.LetterStampGone:
		return "", word(0)
	}
	return "", ""
}
