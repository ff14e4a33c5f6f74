package hub

import "math/bits"

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
