package mime

import (
	"bytes"
	"slices"
	"strings"
)

// Bounds of the readings of a boundary that are followed, and of lines like delimiters in one body, as a multiple of
// the parts a message may have.
const (
	maxBoundaries = 32 // as many as the bits of a delimiter
	maxDelimiters = 16
)

// delimiter is a line that some reader takes for one between parts (RFC 2046, 5.1.1).
type delimiter struct {
	at, next int    // where the line begins, and the next one
	exact    uint32 // for each reading of the boundary, whether the line is that, and white space
	close    uint32 // whether it is the last delimiter
	prefix   uint32 // whether it begins like that, in any case of letters, which is enough for some
}

// multipart examines the parts of a body, in all readings of its boundary; found reports whether there are any.
func (w *walker) multipart(b *body) (found bool, err error) {
	if !w.once(b.text, "multipart "+strings.Join(b.media.boundaries, "\n")) {
		return true, nil
	}
	if b.depth >= w.lim.Depth {
		return false, ErrTooDeep
	}
	if err := w.spend(len(b.b) / scanWeight); err != nil {
		return false, err
	}
	boundaries := b.media.boundaries
	if len(boundaries) > maxBoundaries {
		return false, ErrWork
	}
	limit := maxDelimiters * w.lim.Parts
	all := delimiters(b.b, boundaries, limit)
	views := splits(all, len(boundaries))
	guessed := len(views) == 0 || len(boundaries) == 1 && boundaries[0] == ""
	if guessed {
		if err := w.spend(len(b.b)); err != nil {
			return false, err
		}
		boundaries = guessBoundaries(b.b)
		all = delimiters(b.b, boundaries, limit)
		views = splits(all, len(boundaries))
	}
	if len(all) > limit {
		return false, ErrTooManyParts
	}
	if len(views) == 0 {
		return false, nil
	}
	if guessed {
		w.differ("a multipart without the boundary it names")
	} else if len(boundaries) > 1 && len(views) > 1 && boundariesDiffer(all, len(boundaries)) {
		w.differ("several boundaries")
	}
	for i, v := range views {
		view := v.view
		if i == 0 {
			view = b.view
		}
		if err := w.splitParts(b, v.delimiters, view); err != nil {
			return true, err
		}
	}
	return true, nil
}

// guessBoundaries returns the boundaries that readers guess: what the first line that looks like a delimiter has, and
// those that have a field that matters behind them; no more than 8, since readers are said to differ in any case.
func guessBoundaries(b []byte) []string {
	const most = 8
	var out set
	for pos := 0; pos < len(b) && len(out.list) < most; {
		if !bytes.HasPrefix(b[pos:], []byte("--")) {
			i := bytes.Index(b[pos:], []byte("\n--"))
			if i < 0 {
				break
			}
			pos += i + 1
		}
		line, next := lineAt(b, pos)
		if _, isField := beginsWithField(b[next:]); isField || len(out.list) == 0 {
			out.add(string(bytes.TrimRight(line[2:], " \t")))
		}
		pos = next
	}
	return out.list
}

// delimiters finds all lines that are a delimiter to some reader, or one more than limit.
func delimiters(b []byte, boundaries []string, limit int) []delimiter {
	var out []delimiter
	for pos := 0; pos < len(b) && len(out) <= limit; {
		if !bytes.HasPrefix(b[pos:], []byte("--")) {
			i := bytes.Index(b[pos:], []byte("\n--"))
			if i < 0 {
				break
			}
			pos += i + 1
		}
		line, next := lineAt(b, pos)
		d := delimiter{at: pos, next: next}
		for i, boundary := range boundaries {
			d.match(i, line[2:], []byte(boundary))
		}
		if d.prefix != 0 {
			out = append(out, d)
		}
		pos = max(next-1, pos+1)
		if pos < len(b) && b[pos] == '\n' && next < len(b) && bytes.HasPrefix(b[next:], []byte("--")) {
			pos = next
		}
	}
	return out
}

// match notes whether what follows the hyphens is the boundary with the number i.
func (d *delimiter) match(i int, rest, boundary []byte) {
	bit := uint32(1) << i
	if !bytes.HasPrefix(rest, boundary) {
		if len(rest) >= len(boundary) && bytes.EqualFold(rest[:len(boundary)], boundary) {
			d.prefix |= bit // letters of the other case
		}
		return
	}
	rest = rest[len(boundary):]
	if len(boundary) > 0 || len(bytes.Trim(rest, " \t-")) == 0 {
		d.prefix |= bit
	}
	after, closes := bytes.CutPrefix(rest, []byte("--"))
	if closes {
		d.close |= bit
		rest = after
	}
	if len(bytes.Trim(rest, " \t\r")) == 0 {
		d.exact |= bit
	}
}

// split is one reading of where the parts are.
type split struct {
	view       string
	delimiters []delimiter
}

// splits returns the readings that differ: for each boundary the lines that are exactly it, all of those, and those
// that only begin like it.
func splits(all []delimiter, n int) []split {
	var out []split
	add := func(view string, bits func(d delimiter) (is, closes bool)) {
		s := split{view: view}
		for _, d := range all {
			if is, closes := bits(d); is {
				d.close = 0
				if closes {
					d.close = 1
				}
				s.delimiters = append(s.delimiters, d)
			}
		}
		if len(s.delimiters) > 0 && !slices.ContainsFunc(out, func(o split) bool { return slices.Equal(o.delimiters, s.delimiters) }) {
			out = append(out, s)
		}
	}
	for i := range n {
		bit := uint32(1) << i
		add("another boundary", func(d delimiter) (bool, bool) { return d.exact&bit != 0, d.close&bit != 0 && d.exact&bit != 0 })
	}
	add("several boundaries at once", func(d delimiter) (bool, bool) { return d.exact != 0, d.close&d.exact != 0 })
	add("lines that only begin with the boundary", func(d delimiter) (bool, bool) { return true, d.close&d.exact != 0 })
	return out
}

// boundariesDiffer reports whether more than one reading of the boundary has lines of its own.
func boundariesDiffer(all []delimiter, n int) bool {
	used := 0
	for i := range n {
		if slices.ContainsFunc(all, func(d delimiter) bool { return d.exact&(1<<i) != 0 }) {
			used++
		}
	}
	return used > 1
}

// splitParts examines the parts of one split. What stands in front of the first and behind the last is text that some
// readers show; what looks like further parts behind the last is that to some.
func (w *walker) splitParts(b *body, ds []delimiter, view string) error {
	if err := w.between(b, b.text.sub(0, ds[0].at)); err != nil {
		return err
	}
	c := context{fallback: "text/plain", depth: b.depth + 1, view: view}
	if b.media.digest {
		c.fallback = "message/rfc822"
	}
	for i, d := range ds {
		end := len(b.b)
		if i+1 < len(ds) {
			end = ds[i+1].at
			// The line end in front of a delimiter belongs to it.
			if end > d.next && b.b[end-1] == '\n' {
				end--
				if end > d.next && b.b[end-1] == '\r' {
					end--
				}
			}
		}
		t := b.text.sub(min(d.next, end), end)
		if d.close != 0 {
			if err := w.between(b, t); err != nil {
				return err
			}
			if i+1 == len(ds) {
				return nil
			}
			c.view = "parts behind the last delimiter"
		}
		if err := w.entity(t, c); err != nil {
			return err
		}
	}
	return nil
}

// between shows text that belongs to no part.
func (w *walker) between(b *body, t text) error {
	if len(bytes.TrimSpace(t.b)) == 0 || !w.once(t, "between") {
		return nil
	}
	if err := w.show(b.part, t.b); err != nil {
		return err
	}
	if at, ok := beginsWithField(t.b); ok {
		const view = "a part outside of the delimiters"
		w.differ(view)
		if err := w.entity(t.sub(at, len(t.b)), b.inner("text/plain", view)); err != nil {
			return err
		}
	}
	return w.inline(b.part, t)
}
