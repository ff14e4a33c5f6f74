package notify

import (
	"math/bits"
	"strings"
)

// A Message is one event: a letter and what follows it. On the wire it is the
// letter, a space and the text if there is one, and a line feed.
type Message struct {
	Letter byte   // 'A' to 'Z'; a message with another letter is not published
	Text   string // at most 1000 bytes; "" for messages that are a letter only
}

// Control lines: they begin with a star and belong to no letter.
const (
	lineOK       = "*OK"   // the greeting
	lineErr      = "*ERR " // why the connection ends
	lineExtended = "*EXT " // the interest line was read by a hub that knows "+"
	lineLost     = "*LOST "
	lineLive     = "*LIVE " // the snapshot is complete

	textNoSlots    = "No free listening slots"
	textNotAllowed = "Not allowed"
	textTooSlow    = "too slow"
)

// edgeLetters are never dropped: who misses one acts wrongly for ever. Of S
// and F the newest is as good as all of them; the rest is news that a slow
// listener may miss, and is told so.
const edgeLetters = "BELNRUYZ"

// maxText bounds the text of one message, in bytes; what is longer is cut.
const maxText = 1000

// maxLine bounds a line of the extended form: number, time, message.
const maxLine = 20 + 1 + 20 + 1 + 2 + maxText + 1

// String is the message as it stands on the wire, without the line feed.
func (m Message) String() string {
	return strings.TrimSuffix(string(m.append(nil)), "\n")
}

// append adds the message and its line feed to dst. Control bytes in the text
// become spaces: a text that came from a worker must not forge a line.
func (m Message) append(dst []byte) []byte {
	dst = append(dst, m.Letter)
	if m.Text != "" {
		dst = append(dst, ' ')
		start := len(dst)
		dst = append(dst, m.Text[:min(len(m.Text), maxText)]...)
		for i, c := range dst[start:] {
			if c < ' ' || c == 0x7f {
				dst[start+i] = ' '
			}
		}
	}
	return append(dst, '\n')
}

// letters is a set of message letters, a bit each.
type letters uint32

const allLetters letters = 1<<26 - 1

// newLetters are those that an original multiplexor does not have. A listener in the
// classic form gets them only if it names them.
const newLetters = "EN"

func letterSet(s string) letters {
	var set letters
	for i := range len(s) {
		if s[i] >= 'A' && s[i] <= 'Z' {
			set |= letterBit(s[i])
		}
	}
	return set
}

func letterBit(c byte) letters { return 1 << (c - 'A') }

func (set letters) has(c byte) bool { return set&letterBit(c) != 0 }

// count adds up how many messages of these letters there were.
func (set letters) count(tally *[26]uint64) (n uint64) {
	for ; set != 0; set &= set - 1 {
		n += tally[bits.TrailingZeros32(uint32(set))]
	}
	return n
}

// workerNumber is the number an S message begins with; ok is false if there is
// none.
func workerNumber(text string) (n uint32, ok bool) {
	for i := range len(text) {
		c := text[i]
		if c < '0' || c > '9' {
			return n, ok && c == ' '
		}
		if n > 1<<27 {
			return 0, false
		}
		n, ok = n*10+uint32(c-'0'), true
	}
	return n, ok
}
