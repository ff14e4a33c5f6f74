package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// terminator ends a reply of several lines. RFC 1939, 3.
var terminator = []byte("\r\n.\r\n")

// looseEnds are what a server means as the terminator that sends lines without CR; others may have them
// within a message.
var looseEnds = []string{"\n.\r\n", "\n.\n"}

// settleTime is how long a server may be silent behind a loose end until that was the terminator.
const settleTime = 2 * time.Second

// ending finds the terminator in a stream that is looked at in pieces.
type ending struct{ tail []byte } // the last bytes that were passed on, fewer than the terminator

func newEnding() *ending {
	// The first line of the reply has ended before.
	return &ending{tail: []byte("\r\n")}
}

// find returns how many bytes of p, which follows the tail, may be passed on, and whether the reply ends with
// them. What is left is the beginning of a terminator of any kind, or a loose end.
func (e *ending) find(p []byte) (n int, done bool) {
	// A terminator that began in an earlier piece.
	head := p[:min(len(p), len(terminator)-1)]
	seam := append(append([]byte{}, e.tail...), head...)
	if i := bytes.Index(seam, terminator); i >= 0 {
		return i + len(terminator) - len(e.tail), true
	}
	if i := indexTerminator(p); i >= 0 {
		return i + len(terminator), true
	}
	last := p
	if len(p) < len(terminator) {
		last = seam
	}
	return len(p) - min(len(p), unsure(last)), false
}

// indexTerminator is bytes.Index for the terminator. What is large in mail is base64, in which there is no dot: looking for
// that takes a tenth of the time that it takes to look at each end of line. Text that has many is looked at as ever.
func indexTerminator(p []byte) int {
	const dot, patience = 2, 16 // where it is, and how many are looked at
	from := 0                   // the terminator does not begin before
	for range patience {
		i := bytes.IndexByte(p[min(len(p), from+dot):], '.')
		if i < 0 {
			return -1
		}
		if from += i; bytes.HasPrefix(p[from:], terminator) {
			return from
		}
		from++
	}
	if i := bytes.Index(p[from:], terminator); i >= 0 {
		return from + i
	}
	return -1
}

// unsure returns how many bytes at the end of p may belong to a loose end.
func unsure(p []byte) int {
	for n := min(len(p), len(looseEnds[0])); n > 0; n-- {
		for _, end := range looseEnds {
			if n <= len(end) && string(p[len(p)-n:]) == end[:n] {
				return n
			}
		}
	}
	return 0
}

// passed notes that p was passed on.
func (e *ending) passed(p []byte) {
	const keep = 4 // one less than the terminator
	if len(p) < keep {
		p = append(append([]byte{}, e.tail...), p...)
	}
	e.tail = append(e.tail[:0], p[max(0, len(p)-keep):]...)
}

// loose reports whether what is held of the stream is a loose end, and returns the terminator, or its rest,
// that was meant.
func (e *ending) loose(held []byte) (rest []byte, yes bool) {
	switch {
	case string(held) == looseEnds[0], string(held) == looseEnds[1]:
		if e.tail[len(e.tail)-1] == '\r' {
			return terminator[1:], true
		}
		return terminator, true
	case string(held) == ".\n": // the first line
		return terminator[2:], true
	}
	return nil, false
}

// flusher is a buffered writer.
type flusher interface {
	io.Writer
	Flush() error
}

// copyLines copies the lines of a reply, terminator included, byte for byte to w, in pieces as they come.
// Nothing stays in w's buffer while the server is waited for. A server that ends before gives
// io.ErrUnexpectedEOF.
//
// A server that falls silent behind a loose end has ended: its client, which may take that for the end too,
// would otherwise wait with it. Only then is something else passed on than what came, the terminator.
func (b *backend) copyLines(w flusher) (written int64, err error) {
	end := newEnding()
	held := 0 // what may be a loose end and is not passed on before it is known
	for {
		if b.r.Buffered() == held {
			rest, loose := end.loose(b.held())
			err := b.more(w, loose)
			if loose && errors.Is(err, os.ErrDeadlineExceeded) {
				_, _ = b.r.Discard(held)
				n, err := w.Write(rest)
				return written + int64(n), err
			}
			if err != nil {
				return written, err
			}
		}
		piece := b.held()
		n, done := end.find(piece)
		if _, err := w.Write(piece[:n]); err != nil {
			return written, err
		}
		written += int64(n)
		end.passed(piece[:n])
		_, _ = b.r.Discard(n)
		held = len(piece) - n
		if done && held > 0 {
			return written, fmt.Errorf("bytes behind a reply: %w", errProtocol)
		}
		if done {
			return written, nil
		}
	}
}

// held is what was read of the server and not used yet.
func (b *backend) held() []byte {
	p, _ := b.r.Peek(b.r.Buffered())
	return p
}

// more waits until more has come of a reply than was looked at.
func (b *backend) more(w flusher, loose bool) error {
	if err := w.Flush(); err != nil {
		return err
	}
	patience := b.timeout
	if loose {
		patience = min(patience, settleTime)
	}
	b.until = time.Now().Add(patience)
	_, err := b.r.Peek(b.r.Buffered() + 1)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("read reply: %w", err)
	}
	return nil
}
