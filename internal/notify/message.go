package notify

import (
	"strconv"
	"strings"
)

// A Message is one event: a letter and what follows it. On the wire it is the
// letter, a space and the text if there is one, and a line feed.
type Message struct {
	Letter byte   // 'A' to 'Z'; a message with another letter is not published
	Text   string // at most MaxText bytes; "" for messages that are a letter only
}

// MaxText bounds the text of one message, in bytes; what is longer is cut.
const MaxText = 1000

// Control lines begin with a star and belong to no letter.
const (
	LineOK       = "*OK"    // the greeting
	LineErr      = "*ERR "  // and why the connection ends
	LineExtended = "*EXT "  // and number and run: the interest line was read by a hub that knows "+"
	LineLost     = "*LOST " // and how many messages are missing here
	LineLive     = "*LIVE " // and the number of the last message: the snapshot is complete
)

// TooSlow is what LineErr says to a listener that reads too little. It may come back at once.
const TooSlow = "too slow"

// String is the message as it stands on the wire, without the line feed.
func (m Message) String() string {
	return strings.TrimSuffix(string(m.Append(nil)), "\n")
}

// Append adds the message and its line feed to dst. Control bytes in the text
// become spaces: a text that came from a worker must not forge a line.
func (m Message) Append(dst []byte) []byte {
	dst = append(dst, m.Letter)
	if m.Text != "" {
		dst = append(dst, ' ')
		start := len(dst)
		dst = append(dst, m.Text[:min(len(m.Text), MaxText)]...)
		for i, c := range dst[start:] {
			if c < ' ' || c == 0x7f {
				dst[start+i] = ' '
			}
		}
	}
	return append(dst, '\n')
}

// Worker returns the number of the worker that an S message speaks of, or -1.
func (m Message) Worker() int {
	if m.Letter != LetterStatus {
		return -1
	}
	n, digits := 0, 0
	for ; digits < len(m.Text) && m.Text[digits] != ' '; digits++ {
		c := m.Text[digits]
		if c < '0' || c > '9' || n > 1<<27 {
			return -1
		}
		n = n*10 + int(c-'0')
	}
	if digits == 0 {
		return -1
	}
	return n
}

// Status returns what an S message says behind the number of the worker.
func (m Message) Status() string {
	_, text, _ := strings.Cut(m.Text, " ")
	return text
}

// States of a worker, as StateChange returns them.
const (
	Stopped = "Stopped"
	Idle    = "Idle"
	Busy    = "Busy"
	Killed  = "Killed"
)

// StateChange takes the status "StateChange Old -> New" of an S message apart. A tag that
// a client or a worker chose is taken for one only if it is one to the letter.
func (m Message) StateChange() (from, to string, ok bool) {
	if m.Letter != LetterStatus {
		return "", "", false
	}
	change, ok := strings.CutPrefix(m.Status(), "StateChange ")
	if !ok {
		return "", "", false
	}
	from, to, ok = strings.Cut(change, " -> ")
	return from, to, ok && isState(from) && isState(to)
}

func isState(s string) bool { return s == Stopped || s == Idle || s == Busy || s == Killed }

// Free returns how many workers or slots are free according to the message: what F
// says, 0 for Z, or -1 if it does not say.
func (m Message) Free() int {
	switch m.Letter {
	case LetterNone:
		return 0
	case LetterFree:
		if n, err := strconv.ParseUint(m.Text, 10, 31); err == nil {
			return int(n)
		}
	}
	return -1
}
