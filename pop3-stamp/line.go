package main

import (
	"bufio"
	"errors"
	"strings"
)

// Limits of lines, in bytes with their line end.
const (
	maxCommand = 512      // RFC 2449, 4 asks for 255
	maxAuth    = 12288    // a challenge or response of a SASL exchange, RFC 4954, 4.3
	maxFlood   = 64 << 10 // of a line that is too long, before the session ends
	maxReply   = 4096     // of the upstream server, where it is no challenge; RFC 1939, 3 says 512
)

var (
	errLongLine = errors.New("line too long")
	errFlood    = errors.New("endless line")
)

// readLine reads a line of at most limit bytes and returns it without its line end, which is LF or CR LF. A longer
// line is read to its end, without keeping it, and gives errLongLine; one beyond maxFlood gives errFlood at once.
func readLine(r *bufio.Reader, limit int) (string, error) {
	var b []byte
	total := 0
	for {
		piece, err := r.ReadSlice('\n')
		total += len(piece)
		if total <= limit {
			b = append(b, piece...)
		}
		switch {
		case err == bufio.ErrBufferFull && total > maxFlood:
			return "", errFlood
		case err == bufio.ErrBufferFull:
			continue
		case err != nil:
			return "", err
		case total > limit:
			return "", errLongLine
		}
		return strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r"), nil
	}
}

// hasControl tells whether a command line has bytes that no command has: NUL, a bare CR and the like.
func hasControl(line string) bool {
	return strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// replyText makes a text of the upstream server fit for a reply line: control bytes become '?', and it is cut so that
// the line keeps within 512 bytes.
func replyText(s string) string {
	b := []byte(s[:min(len(s), 490)])
	for i, c := range b {
		if c < ' ' || c == 0x7f {
			b[i] = '?'
		}
	}
	return string(b)
}

// command is a line of a client, taken apart.
type command struct {
	verb string // in upper case
	arg  string // what follows the first space
}

func parseCommand(line string) command {
	verb, arg, _ := strings.Cut(line, " ")
	return command{strings.ToUpper(verb), arg}
}

// number reads a message or line number: 1 to 10 digits that fit into 32 bits.
func number(s string, least uint64) (string, bool) {
	if s == "" || len(s) > 10 {
		return "", false
	}
	var n uint64
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return "", false
		}
		n = n*10 + uint64(s[i]-'0')
	}
	return s, n >= least && n <= 1<<32-1
}
