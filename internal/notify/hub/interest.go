package hub

import (
	"bytes"
	"io"
)

// An interest is what a listener's line asks for. Every such line replaces
// the one before.
type interest struct {
	letters  letters
	extended bool   // "+": numbers, times, a snapshot
	replay   bool   // "@N": what came after number N as well
	since    uint64 // N
	run      uint64 // "@N/RUN": the run of the daemon N belongs to, 0 if not given
}

// maxInterest is how much of an interest line counts, in bytes; the original
// multiplexor reads as much.
const maxInterest = 255

// parseInterest reads a line without its line feed. A line that does not start
// with a question mark is none. Bytes that mean nothing are passed over, as
// the original does: that is what makes "+" and "@N" safe to send to it.
func parseInterest(line []byte) (in interest, ok bool) {
	if len(line) == 0 || line[0] != '?' {
		return interest{}, false
	}
	every := false
	line = line[1:min(len(line), maxInterest)]
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c >= 'A' && c <= 'Z':
			in.letters |= letterBit(c)
		case c == '*':
			every = true
		case c == '+':
			in.extended = true
		case c == '@':
			var n int
			in.since, n = leadingNumber(line[i+1:])
			in.replay = n > 0
			i += n
			if n > 0 && i+1 < len(line) && line[i+1] == '/' {
				in.run, n = leadingNumber(line[i+2:])
				i += 1 + n
			}
		}
	}
	switch {
	case every && in.extended:
		in.letters = allLetters
	case every:
		in.letters |= allLetters &^ letterSet(newLetters)
	}
	if !in.extended {
		in.replay, in.since, in.run = false, 0, 0
	}
	return in, true
}

// leadingNumber reads the digits at the start of b and says how many there
// are. A number too large stays at the largest.
func leadingNumber(b []byte) (v uint64, n int) {
	for ; n < len(b) && b[n] >= '0' && b[n] <= '9'; n++ {
		d := uint64(b[n] - '0')
		if v > (1<<64-1-d)/10 {
			v = 1<<64 - 1
			continue
		}
		v = v*10 + d
	}
	return v, n
}

// readInterests calls each for every interest line of r until each returns
// false or r ends; the end of r is no error. Of a long line the first 255
// bytes count, and a line without a line feed does not count at all.
func readInterests(r io.Reader, each func(interest) bool) error {
	line := make([]byte, 0, maxInterest)
	buf := make([]byte, 256)
	for {
		n, err := r.Read(buf)
		for p := buf[:n]; len(p) > 0; {
			part, rest, ended := bytes.Cut(p, []byte("\n"))
			line = append(line, part[:min(len(part), maxInterest-len(line))]...)
			if p = rest; !ended {
				break
			}
			if in, ok := parseInterest(line); ok && !each(in) {
				return nil
			}
			line = line[:0]
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
