package smtp

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits of replies.
const (
	MaxReplyLine  = 512      // bytes of a reply line with its CR LF: RFC 5321, 4.5.3.1.5
	maxReplyBytes = 64 << 10 // of a whole reply that is read
	maxReplyLines = 256      // of a reply that is read
)

// ErrReplySyntax is wrapped by the errors of [ReadReply] that are the peer's fault: the connection is
// out of step and of no more use.
var ErrReplySyntax = errors.New("malformed reply")

// Reply is one reply of a server: RFC 5321, 4.2, with the enhanced code of RFC 2034.
type Reply struct {
	Code     int      // 200 to 599
	Enhanced string   // such as "5.7.1", or empty
	Lines    []string // the text of each line, without codes
}

// NewReply makes a reply of one line.
func NewReply(code int, enhanced, text string) Reply {
	return Reply{Code: code, Enhanced: enhanced, Lines: []string{text}}
}

// Positive reports whether the reply is 2xx.
func (r Reply) Positive() bool { return r.Code/100 == 2 }

// Intermediate reports whether the reply is 3xx: the server waits for more.
func (r Reply) Intermediate() bool { return r.Code/100 == 3 }

// Temporary reports whether the reply is 4xx: trying again later may help.
func (r Reply) Temporary() bool { return r.Code/100 == 4 }

// Permanent reports whether the reply is 5xx.
func (r Reply) Permanent() bool { return r.Code/100 == 5 }

// Text returns the text of all lines as one.
func (r Reply) Text() string { return strings.Join(r.Lines, " ") }

// String returns the reply as one line, for logs. It may hold whatever the server sent, but no control bytes.
func (r Reply) String() string {
	out := strconv.Itoa(r.Code)
	if r.Enhanced != "" {
		out += " " + r.Enhanced
	}
	return out + " " + r.Text()
}

// ASCII returns the reply with everything beyond ASCII as '?': RFC 6531, 3.7.4.2, allows that only for those who asked for it.
func (r Reply) ASCII() Reply {
	for i, text := range r.Lines {
		if isASCII(text) {
			continue
		}
		lines := slices.Clone(r.Lines)
		for j := i; j < len(lines); j++ {
			lines[j] = strings.Map(func(c rune) rune {
				if c >= 0x80 {
					return '?'
				}
				return c
			}, lines[j])
		}
		r.Lines = lines
		break
	}
	return r
}

// Err gives nil for 2xx and 3xx, and a [*ReplyError] else.
func (r Reply) Err() error {
	if r.Code >= 200 && r.Code < 400 {
		return nil
	}
	return &ReplyError{r}
}

// ReplyError is a reply that refuses, as an error.
type ReplyError struct{ Reply Reply }

// Error gives code and text.
func (e *ReplyError) Error() string { return "server replied " + e.Reply.String() }

// AppendTo appends the reply as it goes over the wire: each line at most 512 bytes with its CR LF, longer
// texts folded into more lines, but not the challenge of AUTH, which is one line (RFC 4954, 4); control bytes and bytes that are no UTF-8 as '?'. What is no reply code
// becomes 451: a client that waits must get an answer it understands.
func (r Reply) AppendTo(dst []byte) []byte {
	code := r.Code
	if code < 200 || code > 599 {
		code = 451
	}
	prefix := ""
	if IsEnhanced(r.Enhanced) {
		prefix = r.Enhanced + " "
	}
	room := MaxReplyLine - len("250-\r\n") - len(prefix)
	if code == 334 {
		room = maxReplyBytes
	}
	mark := -1 // where the separator of the last line is
	line := func(text string) {
		dst = strconv.AppendInt(dst, int64(code), 10)
		mark = len(dst)
		dst = append(dst, '-')
		dst = append(dst, prefix...)
		dst = appendClean(dst, text)
		dst = append(dst, '\r', '\n')
	}
	for _, text := range r.Lines {
		for len(text) > room {
			cut := foldAt(text, room)
			line(text[:cut])
			text = strings.TrimPrefix(text[cut:], " ")
		}
		line(text)
	}
	if mark < 0 {
		line("")
	}
	dst[mark] = ' '
	return dst
}

// foldAt finds a place to cut text in, at most room bytes from its beginning: the last space in the second
// half, or any place that does not cut a character.
func foldAt(text string, room int) int {
	if i := strings.LastIndexByte(text[:room+1], ' '); i > room/2 {
		return i
	}
	for i := room; i > room-utf8.UTFMax; i-- {
		if utf8.RuneStart(text[i]) {
			return i
		}
	}
	return room
}

// appendClean appends text with everything replaced that could be taken for something else by the other
// side or by a terminal. It never makes text longer.
func appendClean(dst []byte, text string) []byte {
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && size <= 1 || isControl(r) {
			dst = append(dst, '?')
		} else {
			dst = append(dst, text[i:i+size]...)
		}
		i += size
	}
	return dst
}

// isControl reports whether a character may not be in a reply: RFC 5321, 4.2 allows HT, SP and what is
// printable; C1 controls would be taken for commands by terminals.
func isControl(r rune) bool {
	return r < ' ' && r != '\t' || 0x7f <= r && r < 0xa0
}

func cleanText(text string) string {
	for _, r := range text {
		if r == utf8.RuneError || isControl(r) {
			return string(appendClean(nil, text))
		}
	}
	return text
}

// ReadReply reads one reply, all lines of it: at most 64 KiB and 256 lines, every line with the same code
// from 200 to 599. Control bytes in the text become '?'. A line that ends in LF alone is taken, as by all
// clients. The error wraps [ErrReplySyntax] if the reply was malformed, and is io.ErrUnexpectedEOF if the
// connection ended within it. The buffer of b should hold at least 512 bytes; longer lines are put together.
func ReadReply(b *bufio.Reader) (Reply, error) {
	var r Reply
	for left := maxReplyBytes; ; {
		line, err := readReplyLine(b, left)
		if err != nil {
			if err == io.EOF && r.Code != 0 {
				err = io.ErrUnexpectedEOF
			}
			return Reply{}, err
		}
		left -= len(line)
		code, more, text, err := parseReplyLine(line)
		switch {
		case err != nil:
			return Reply{}, err
		case r.Code != 0 && code != r.Code:
			return Reply{}, fmt.Errorf("%w: codes %d and %d in one", ErrReplySyntax, r.Code, code)
		case len(r.Lines) == maxReplyLines:
			return Reply{}, fmt.Errorf("%w: more than %d lines", ErrReplySyntax, maxReplyLines)
		}
		r.add(code, text)
		if !more {
			return r, nil
		}
	}
}

// add takes one more line. The enhanced code counts only if all lines have the same (RFC 2034, 4).
func (r *Reply) add(code int, text string) {
	enhanced, rest := cutEnhanced(code, text)
	switch {
	case len(r.Lines) == 0:
		r.Code, r.Enhanced = code, enhanced
		text = rest
	case r.Enhanced == "":
	case enhanced == r.Enhanced:
		text = rest
	default:
		for i := range r.Lines {
			r.Lines[i] = r.Enhanced + " " + r.Lines[i]
		}
		r.Enhanced = ""
	}
	r.Lines = append(r.Lines, text)
}

// readReplyLine returns the next line with its end, valid until the next read unless it is long.
func readReplyLine(b *bufio.Reader, limit int) ([]byte, error) {
	line, err := b.ReadSlice('\n')
	if err == nil && len(line) <= limit {
		return line, nil
	}
	long := append([]byte(nil), line...)
	for err == bufio.ErrBufferFull && len(long) <= limit {
		line, err = b.ReadSlice('\n')
		long = append(long, line...)
	}
	if len(long) > limit {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrReplySyntax, maxReplyBytes)
	}
	if err == io.EOF && len(long) > 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	return long, nil
}

// parseReplyLine takes a reply line apart: RFC 5321, 4.2. A line of the code alone is a last line.
func parseReplyLine(line []byte) (code int, more bool, text string, err error) {
	line = line[:len(line)-1]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	if len(line) < 3 || line[0] < '2' || line[0] > '5' || !isShortNumber(string(line[1:3])) {
		return 0, false, "", fmt.Errorf("%w: %.40q has no reply code", ErrReplySyntax, line)
	}
	code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	if len(line) == 3 {
		return code, false, "", nil
	}
	if line[3] != ' ' && line[3] != '-' {
		return 0, false, "", fmt.Errorf("%w: %.40q has no reply code", ErrReplySyntax, line)
	}
	return code, line[3] == '-', cleanText(string(line[4:])), nil
}

// cutEnhanced takes an enhanced code off a text: RFC 2034, 4: the class is that of the reply code.
func cutEnhanced(code int, text string) (enhanced, rest string) {
	word, rest, _ := strings.Cut(text, " ")
	if !IsEnhanced(word) || int(word[0]-'0') != code/100 {
		return "", text
	}
	return word, rest
}

// IsEnhanced reports whether s is an enhanced code: RFC 3463, 2: class 2, 4 or 5, subject and detail of up to
// three digits.
func IsEnhanced(s string) bool {
	if len(s) < 5 || len(s) > 9 || s[0] != '2' && s[0] != '4' && s[0] != '5' || s[1] != '.' {
		return false
	}
	subject, detail, ok := strings.Cut(s[2:], ".")
	return ok && isShortNumber(subject) && isShortNumber(detail)
}

func isShortNumber(s string) bool {
	for _, b := range []byte(s) {
		if b < '0' || b > '9' {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 3
}
