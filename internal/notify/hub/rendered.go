package hub

import "sort"

// rendered is the lines of a chunk that listeners with one key are sent,
// ready to be written. It is made once for all of them. The distributor alone
// uses it.
type rendered struct {
	key  key
	upto int // records of the chunk looked at
	text []byte
	ends []uint32 // of each line in text
	recs []uint32 // its record in the chunk
}

// renderedMax bounds the memory of all that is rendered and of the chunks it belongs
// to, in bytes.
const renderedMax = 8 << 20

// render brings the lines of a chunk for a key up to date. text and recs are
// the chunk's, as far as the distributor may read them.
func (c *chunk) render(k key, text []byte, recs []record) *rendered {
	d := c.renderedFor(k)
	if k.extended && k.letters == allLetters {
		d.text = text
	}
	for ; d.upto < len(recs); d.upto++ {
		r := recs[d.upto]
		if !k.letters.has(r.letter) {
			continue
		}
		if k.letters != allLetters || !k.extended {
			start := uint32(0)
			if d.upto > 0 {
				start = recs[d.upto-1].end
			}
			if !k.extended {
				start += uint32(r.prefix)
			}
			d.text = append(d.text, text[start:r.end]...)
			d.ends = append(d.ends, uint32(len(d.text)))
		} else {
			d.ends = append(d.ends, r.end)
		}
		d.recs = append(d.recs, uint32(d.upto))
	}
	return d
}

func (c *chunk) renderedFor(k key) *rendered {
	for _, d := range c.rendered {
		if d.key == k {
			return d
		}
	}
	d := &rendered{key: k}
	c.rendered = append(c.rendered, d)
	return d
}

// size is the memory of the lines in bytes. That of lines which borrow
// the chunk's text is counted too; that errs on the safe side.
func (d *rendered) size() int { return 96 + cap(d.text) + 4*cap(d.ends) + 4*cap(d.recs) }

// line finds the first line of record rec or a later one.
func (d *rendered) line(rec uint64) int {
	return sort.Search(len(d.recs), func(i int) bool { return uint64(d.recs[i]) >= rec })
}

// at finds the line that byte off of text belongs to.
func (d *rendered) at(off int) int {
	return sort.Search(len(d.ends), func(i int) bool { return int(d.ends[i]) > off })
}

// start is where line i begins in text.
func (d *rendered) start(i int) int {
	if i == 0 {
		return 0
	}
	return int(d.ends[i-1])
}
