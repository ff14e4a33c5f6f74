package smtp

import (
	"bytes"
	"errors"
	"io"
)

// Violations of the line rules of RFC 5321, 2.3.8, as [DotDecoder.Violation] gives them.
var (
	ErrBareCR   = errors.New("bare CR in content")
	ErrBareLF   = errors.New("bare LF in content")
	ErrNUL      = errors.New("NUL in content")
	ErrLongLine = errors.New("line too long in content")
)

// dotState says what came last. Bytes that mean nothing before the next one is known (a CR, a dot at
// the beginning of a line) are not yet in the output.
type dotState uint8

const (
	dotStart   dotState = iota // at the beginning of the content, or behind CR LF
	dotLFStart                 // behind a bare LF: a line begins, but the end of data cannot
	dotMiddle                  // within a line
	dotCR                      // behind a CR within a line
	dotDot                     // behind a dot in dotStart
	dotDotCR                   // behind a dot and a CR in dotStart
	dotLFDot                   // behind a dot in dotLFStart
	dotDone                    // the end of data was seen
)

// DotDecoder decodes the content of DATA: lines ending in CR LF come out, without the dots that the
// sender stuffed (RFC 5321, 4.5.2). It takes the bytes in any pieces; how they are cut makes no difference.
//
// Only CR LF . CR LF is the end of data, or . CR LF right at the beginning. A bare LF is a line end like
// any other in the output, but never part of the end of data; with Reject it is a violation. A bare CR and
// a NUL are violations in any case. The decoder goes on behind a violation until the true end, so that
// the dialog stays in step.
//
// A dot at the beginning of a line is removed if another dot follows: a sender that stuffs makes no other
// such lines. The dot of one that does not stuff stays, where the RFC would drop it, and is stuffed by
// [DotWriter].
//
// The zero value is ready for use.
type DotDecoder struct {
	Reject  bool // a bare LF is a violation
	MaxLine int  // longest line in bytes without its end; a longer one is a violation; 0 for no limit
	Chunks  bool // content of BDAT (RFC 3030): dots mean nothing, and the content ends with Finish

	state dotState
	col   int // bytes of the present line so far
	bad   struct{ cr, lf, nul, long bool }
}

// Violation returns the first of [ErrBareCR], [ErrBareLF], [ErrNUL] and [ErrLongLine] that applies to what
// was decoded so far, or nil.
func (d *DotDecoder) Violation() error {
	switch {
	case d.bad.cr:
		return ErrBareCR
	case d.bad.lf:
		return ErrBareLF
	case d.bad.nul:
		return ErrNUL
	case d.bad.long:
		return ErrLongLine
	}
	return nil
}

// Done reports whether the end of data was seen.
func (d *DotDecoder) Done() bool { return d.state == dotDone }

// Decode appends what src means to dst. consumed is len(src) unless the end of data was within src: then
// done is true, and what is behind consumed is the next command. Behind a violation nothing is appended.
// The output has at most twice as many bytes as the input, and two more.
func (d *DotDecoder) Decode(dst, src []byte) (out []byte, consumed int, done bool) {
	rest := src
	for len(rest) > 0 && d.state != dotDone {
		if d.state == dotMiddle || d.atStart() && (rest[0] != '.' || d.Chunks) {
			r := scanLines(rest, d.atStart(), !d.Chunks, d.col)
			d.note(rest[:r.n], r)
			if d.Violation() == nil {
				dst = append(dst, rest[:r.n]...)
			}
			rest = rest[r.n:]
			if len(rest) == 0 {
				break
			}
		}
		dst = d.step(dst, rest[0])
		rest = rest[1:]
	}
	return dst, len(src) - len(rest), d.state == dotDone
}

// Finish ends the content of BDAT: a CR that was the very last byte is a violation.
func (d *DotDecoder) Finish() error {
	if d.state == dotCR {
		d.bad.cr = true
	}
	d.state = dotDone
	return d.Violation()
}

func (d *DotDecoder) atStart() bool { return d.state == dotStart || d.state == dotLFStart }

// note takes over what was found in a run of lines.
func (d *DotDecoder) note(run []byte, r lineRun) {
	if r.n == 0 {
		return
	}
	if bytes.IndexByte(run, 0) >= 0 {
		d.bad.nul = true
	}
	if bytes.Count(run, crByte) != r.ends {
		d.bad.cr = true
	}
	if d.MaxLine > 0 && max(r.longest, r.col) > d.MaxLine {
		d.bad.long = true
	}
	d.col = r.col
	d.state = dotMiddle
	if r.start {
		d.state = dotStart
	}
}

// step decodes one byte; it is called for those that scanLines does not take.
func (d *DotDecoder) step(dst []byte, b byte) []byte {
	switch d.state {
	case dotStart, dotLFStart:
		if b == '.' && !d.Chunks {
			d.state = d.state.afterDot()
			return dst
		}
	case dotDot:
		if b == '\r' {
			d.state = dotDotCR
			return dst
		}
		dst = d.put(dst, '.')
		if b == '.' {
			return dst
		}
	case dotLFDot:
		dst = d.put(dst, '.')
		if b == '.' {
			return dst
		}
	case dotDotCR:
		if b == '\n' {
			d.state = dotDone
			return dst
		}
		d.bad.cr = true // and so it does not matter that the dot and the CR are not in the output
	case dotCR:
		if b == '\n' {
			return d.endLine(dst, dotStart)
		}
		d.bad.cr = true
	}
	return d.stepMiddle(dst, b)
}

func (s dotState) afterDot() dotState {
	if s == dotStart {
		return dotDot
	}
	return dotLFDot
}

// stepMiddle decodes a byte that no dot and no CR in front of it gives a meaning.
func (d *DotDecoder) stepMiddle(dst []byte, b byte) []byte {
	switch b {
	case '\r':
		d.state = dotCR
		return dst
	case '\n':
		if d.Reject {
			d.bad.lf = true
		}
		return d.endLine(dst, dotLFStart)
	case 0:
		d.bad.nul = true
	}
	return d.put(dst, b)
}

func (d *DotDecoder) put(dst []byte, b byte) []byte {
	d.state = dotMiddle
	d.col++
	if d.MaxLine > 0 && d.col > d.MaxLine {
		d.bad.long = true
	}
	if d.Violation() != nil {
		return dst
	}
	return append(dst, b)
}

func (d *DotDecoder) endLine(dst []byte, next dotState) []byte {
	d.state, d.col = next, 0
	if d.Violation() != nil {
		return dst
	}
	return append(dst, '\r', '\n')
}

var crByte = []byte{'\r'}

// lineRun is the beginning of a piece of content that needs no look at single bytes.
type lineRun struct {
	n       int  // its length
	ends    int  // how many times CR LF is in it
	longest int  // length of the longest line that ends in it
	col     int  // length so far of the line that does not end in it
	start   bool // the end of the run is the beginning of a line
}

// scanLines finds the longest beginning of p that has no LF but in CR LF, does not end in a CR that the next byte may make whole, and, if
// dots is set, has no line that begins with a dot. start says that p begins a line, col is the length so
// far of the line it continues. A stray CR or NUL does not end the run: the caller looks for them, once for
// the whole run, so that no input has its bytes looked at more than a few times.
func scanLines(p []byte, start, dots bool, col int) lineRun {
	r := lineRun{col: col, start: start}
	for r.n < len(p) {
		if dots && r.start && p[r.n] == '.' {
			return r
		}
		i := bytes.IndexByte(p[r.n:], '\n')
		if i < 0 {
			tail := len(p) - r.n
			if p[len(p)-1] == '\r' {
				tail--
			}
			return r.add(tail)
		}
		if i == 0 || p[r.n+i-1] != '\r' {
			return r.add(i)
		}
		r.longest = max(r.longest, r.col+i-1)
		r.n += i + 1
		r.ends++
		r.col, r.start = 0, true
	}
	return r
}

// add takes n more bytes of a line that does not end.
func (r lineRun) add(n int) lineRun {
	if n > 0 {
		r.n += n
		r.col += n
		r.start = false
	}
	return r
}

// DotWriter encodes content for DATA: dots at the beginning of lines are stuffed, and Close writes the
// end of data (RFC 5321, 4.5.2). What comes out has CR and LF only as CR LF, no NUL, and exactly one end
// of data, at its end, whatever comes in: a bare LF becomes CR LF, a bare CR and a NUL become spaces.
//
// It makes many small writes where lines begin with dots; W should have a buffer.
type DotWriter struct {
	W io.Writer

	state dotState // dotStart, dotMiddle, dotCR or dotDone
	err   error
	small [5]byte
}

// ErrClosed is the error of a Write behind Close.
var ErrClosed = errors.New("write content: the end of data was written already")

// Write encodes p. An error of W stays.
func (w *DotWriter) Write(p []byte) (int, error) {
	if w.state == dotDone {
		return 0, ErrClosed
	}
	for rest := p; len(rest) > 0 && w.err == nil; {
		if w.state == dotMiddle || w.state == dotStart {
			r := scanLines(rest, w.state == dotStart, true, 0)
			w.writeRun(rest[:r.n], r)
			if rest = rest[r.n:]; len(rest) == 0 {
				break
			}
		}
		w.writeByte(rest[0])
		rest = rest[1:]
	}
	if w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

// Close writes the end of data, behind a line end if the content did not end with one. Only the first
// call writes.
func (w *DotWriter) Close() error {
	switch w.state {
	case dotDone:
		return w.err
	case dotStart:
		w.put(".\r\n")
	case dotCR:
		w.put(" ")
		w.put("\r\n.\r\n")
	default:
		w.put("\r\n.\r\n")
	}
	w.state = dotDone
	return w.err
}

// writeRun writes what scanLines found: as it is, but for a stray CR or NUL.
func (w *DotWriter) writeRun(run []byte, r lineRun) {
	if r.n == 0 {
		return
	}
	w.state = dotMiddle
	if r.start {
		w.state = dotStart
	}
	if bytes.Count(run, crByte) != r.ends || bytes.IndexByte(run, 0) >= 0 {
		run = w.writeStray(run)
	}
	w.write(run)
}

// writeStray writes run up to the last stray CR or NUL in it, and gives what is behind.
func (w *DotWriter) writeStray(run []byte) []byte {
	from := 0
	for i, b := range run {
		if b == 0 || b == '\r' && (i+1 == len(run) || run[i+1] != '\n') { // at its end: one of two CR
			w.write(run[from:i])
			w.put(" ")
			from = i + 1
		}
	}
	return run[from:]
}

// writeByte encodes one byte; it is called for those that scanLines does not take.
func (w *DotWriter) writeByte(b byte) {
	if w.state == dotCR && b != '\n' {
		w.put(" ")
		w.state = dotMiddle
	}
	switch {
	case b == '\n':
		w.put("\r\n")
		w.state = dotStart
	case b == '\r':
		w.state = dotCR
	case b == '.' && w.state == dotStart:
		w.put("..")
		w.state = dotMiddle
	case b == 0:
		w.put(" ")
		w.state = dotMiddle
	default:
		w.small[0] = b
		w.write(w.small[:1])
		w.state = dotMiddle
	}
}

func (w *DotWriter) put(s string) { w.write(append(w.small[:0], s...)) }

func (w *DotWriter) write(p []byte) {
	if w.err == nil && len(p) > 0 {
		_, w.err = w.W.Write(p)
	}
}
