// Package mime finds what mail readers may see in a message: every part, file name and decoded content that some
// reader would show, where readers differ in what they make of malformed MIME (RFC 2045 to 2049, 2231, 2047).
//
// The message is read once as the standards say. Wherever a choice is met that readers make differently, such as
// which of two boundaries counts, where a header ends or what an unknown encoding means, each further choice is
// followed as well: a view. What is found is the union of all views. An ordinary message has one.
//
// All work is counted, by bytes passed over, and bounded by a multiple of the size of the message; memory is
// bounded by what encoded messages inside the message decode to.
package mime

import (
	"errors"
	"fmt"
	"io"
)

// Limits bound the examination of one message. Zero values stand for the defaults.
type Limits struct {
	Depth      int // levels of multiparts and attached messages; default 20
	Parts      int // parts of a message; default 1000
	PartHeader int // bytes in the header of one part, but for the message's own; default 256 KiB
}

// LimitError says which limit a message exceeds. No ordinary message does.
type LimitError struct{ What string }

func (e *LimitError) Error() string { return "message " + e.What }

// Errors of Walk about the message.
var (
	ErrTooDeep      error = &LimitError{"is nested too deep"}
	ErrTooManyParts error = &LimitError{"has too many parts"}
	ErrHeader       error = &LimitError{"has a part whose header is too large"}
	ErrWork         error = &LimitError{"takes too much work to read in all the ways that it can be read"}
)

// Part is one part of a message as some reader sees it.
type Part struct {
	Types []string // media types it may be taken for, in lower case; the likeliest first
	Depth int      // 0 for the message itself
	View  string   // the choice by which it is seen; "" if the standards say so
}

// Viewer is told what is found. An error that one of its functions returns ends the walk.
type Viewer struct {
	Part    func(p *Part) error
	Name    func(p *Part, name string) error       // a file name, decoded, as some reader reads it
	Content func(p *Part, content io.Reader) error // decoded content; it need not be read to its end
}

// Factors of the work that is allowed, and the decoded bytes that may be held in memory.
const (
	workFactor = 24
	workBase   = 16 << 20
	maxDecoded = 64 << 20
)

// scanWeight is how many bytes may be searched for the work of one that is decoded.
const scanWeight = 8

// Walk examines a message with lines that end in LF or CRLF. It returns in which ways readers may differ about it,
// without repetitions, none for an ordinary message. An error is a *LimitError or comes from the viewer.
func Walk(message []byte, lim Limits, v Viewer) (ambiguities []string, err error) {
	w := &walker{viewer: v, lim: lim.orDefault(), work: workFactor*int64(len(message)) + workBase,
		seen: map[key]bool{}, begun: map[place]bool{}, told: map[string]bool{}}
	err = w.message(message)
	return w.ambiguities, err
}

func (l Limits) orDefault() Limits {
	for _, d := range []struct {
		value    *int
		standard int
	}{{&l.Depth, 20}, {&l.Parts, 1000}, {&l.PartHeader, 256 << 10}} {
		if *d.value == 0 {
			*d.value = d.standard
		}
	}
	return l
}

// walker is the examination of one message.
type walker struct {
	viewer      Viewer
	lim         Limits
	work        int64 // what may still be done
	decoded     int64 // bytes of messages that were decoded into memory
	parts       int   // in the standard view
	buffers     int
	seen        map[key]bool
	begun       map[place]bool
	ambiguities []string
	told        map[string]bool // ambiguities
}

// text is a piece of the message, or of something that was decoded from it.
type text struct {
	b      []byte
	buffer int // which of the two, or what decoded thing
	off    int
}

func (t text) sub(from, to int) text { return text{t.b[from:to], t.buffer, t.off + from} }

// place is where a text begins.
type place struct{ buffer, off int }

// key is a text that was examined in some way.
type key struct {
	place
	length int
	how    string
}

// once reports whether t is examined in that way for the first time.
func (w *walker) once(t text, how string) bool {
	k := key{place{t.buffer, t.off}, len(t.b), how}
	if w.seen[k] {
		return false
	}
	w.seen[k] = true
	return true
}

// newText makes a text of decoded bytes.
func (w *walker) newText(b []byte) (text, error) {
	w.buffers++
	if w.decoded += int64(len(b)); w.decoded > maxDecoded {
		return text{}, ErrWork
	}
	return text{b: b, buffer: w.buffers}, nil
}

// spend counts n bytes of work.
func (w *walker) spend(n int) error {
	if w.work -= int64(n); w.work < 0 {
		return ErrWork
	}
	return nil
}

// differ notes in which way readers differ.
func (w *walker) differ(format string, args ...any) {
	what := format
	if len(args) > 0 {
		what = fmt.Sprintf(format, args...)
	}
	if !w.told[what] && len(w.ambiguities) < 20 {
		w.told[what] = true
		w.ambiguities = append(w.ambiguities, what)
	}
}

// IsLimit reports whether err is about a limit that the message exceeds.
func IsLimit(err error) bool {
	var l *LimitError
	return errors.As(err, &l)
}
