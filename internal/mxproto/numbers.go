package mxproto

import "strconv"

// numbers reads the numbers of a reply one after another, as scanf(3) with %d and
// %lf does: an integer ends where its digits end, and after the first thing that
// is no number there are no more. The zero is given for those.
type numbers struct {
	rest string
	bad  bool
}

func (n *numbers) skip() {
	for n.rest != "" && (n.rest[0] == ' ' || n.rest[0] >= '\t' && n.rest[0] <= '\r') {
		n.rest = n.rest[1:]
	}
}

// take takes what belongs to a number off the rest; digits ends the number.
func (n *numbers) take(length int, ok bool) string {
	if n.bad = n.bad || !ok; n.bad {
		return ""
	}
	text := n.rest[:length]
	n.rest = n.rest[length:]
	return text
}

func (n *numbers) int() int64 {
	n.skip()
	i := signLength(n.rest)
	d := digitsLength(n.rest[i:])
	v, err := strconv.ParseInt(n.take(i+d, d > 0), 10, 64)
	if err != nil { // too large, or none
		n.bad = true
		return 0
	}
	return v
}

func (n *numbers) float() float64 {
	n.skip()
	i := signLength(n.rest)
	whole := digitsLength(n.rest[i:])
	i += whole
	fraction := 0
	if i < len(n.rest) && n.rest[i] == '.' {
		fraction = digitsLength(n.rest[i+1:])
		i += 1 + fraction
	}
	if i < len(n.rest) && n.rest[i]|0x20 == 'e' {
		sign := signLength(n.rest[i+1:])
		if exponent := digitsLength(n.rest[i+1+sign:]); exponent > 0 {
			i += 1 + sign + exponent
		}
	}
	v, err := strconv.ParseFloat(n.take(i, whole+fraction > 0), 64)
	if err != nil {
		n.bad = true
		return 0
	}
	return v
}

func (n *numbers) ints(to ...*int64) {
	for _, p := range to {
		*p = n.int()
	}
}

func signLength(s string) int {
	if s != "" && (s[0] == '+' || s[0] == '-') {
		return 1
	}
	return 0
}

func digitsLength(s string) int {
	i := 0
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	return i
}
