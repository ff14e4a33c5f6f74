package main

import (
	"bytes"
	"fmt"
	"io"
	"time"
)

// terminator ends a reply of several lines. RFC 1939, 3.
var terminator = []byte("\r\n.\r\n")

// ending finds the terminator in a stream that is looked at in pieces.
type ending struct{ tail []byte } // the last bytes seen, fewer than the terminator

func newEnding() *ending {
	// The first line of the reply has ended before.
	return &ending{tail: []byte("\r\n")}
}

// find returns how many bytes of p belong to the reply, and whether it ends there.
func (e *ending) find(p []byte) (n int, done bool) {
	// A terminator that began in an earlier piece.
	head := p[:min(len(p), len(terminator)-1)]
	seam := append(append([]byte{}, e.tail...), head...)
	if i := bytes.Index(seam, terminator); i >= 0 {
		return i + len(terminator) - len(e.tail), true
	}
	if i := bytes.Index(p, terminator); i >= 0 {
		return i + len(terminator), true
	}
	if keep := len(terminator) - 1; len(p) >= keep {
		e.tail = append(e.tail[:0], p[len(p)-keep:]...)
	} else {
		e.tail = append([]byte{}, seam[max(0, len(seam)-keep):]...)
	}
	return len(p), false
}

// flusher is a buffered writer.
type flusher interface {
	io.Writer
	Flush() error
}

// copyLines copies the lines of a reply, terminator included, byte for byte to w, in pieces as they come. Nothing
// stays in w's buffer while the server is waited for. A server that ends before gives io.ErrUnexpectedEOF.
func (b *backend) copyLines(w flusher) (written int64, err error) {
	end := newEnding()
	for {
		if b.r.Buffered() == 0 {
			if err := w.Flush(); err != nil {
				return written, err
			}
			if err := b.conn.SetReadDeadline(time.Now().Add(b.timeout)); err != nil {
				return written, err
			}
			if _, err := b.r.Peek(1); err != nil {
				if err == io.EOF {
					err = io.ErrUnexpectedEOF
				}
				return written, fmt.Errorf("read reply: %w", err)
			}
		}
		piece, _ := b.r.Peek(b.r.Buffered())
		n, done := end.find(piece)
		if _, err := w.Write(piece[:n]); err != nil {
			return written, err
		}
		written += int64(n)
		_, _ = b.r.Discard(n)
		if done {
			if b.r.Buffered() > 0 {
				return written, fmt.Errorf("bytes behind a reply: %w", errProtocol)
			}
			return written, nil
		}
	}
}
