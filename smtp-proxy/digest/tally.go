package digest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// maxKinds bounds how many kinds of a thing are counted: strangers can think of ever new ones.
const maxKinds = 20000

// tally counts how often each kind of a thing happened, and when last.
type tally[K comparable] struct {
	kinds  map[K]*count
	others int // of kinds beyond maxKinds
}

type count struct {
	n    int
	last time.Time
}

func (t *tally[K]) add(k K, at time.Time) {
	if t.kinds == nil {
		t.kinds = map[K]*count{}
	}
	c := t.kinds[k]
	if c == nil {
		if len(t.kinds) >= maxKinds {
			t.others++
			return
		}
		c = &count{}
		t.kinds[k] = c
	}
	c.n++
	if at.After(c.last) {
		c.last = at
	}
}

// row is a kind with its count.
type row[K comparable] struct {
	Kind  K         `json:"kind"`
	Count int       `json:"count"`
	Last  time.Time `json:"last,omitzero"`
}

// MarshalJSON gives all kinds.
func (t tally[K]) MarshalJSON() ([]byte, error) {
	rows, others := t.top(len(t.kinds))
	return json.Marshal(struct {
		Rows   []row[K] `json:"rows"`
		Others int      `json:"others"`
	}{rows, others})
}

// top returns the most frequent kinds, of equal ones the latest first, and the sum of the others.
func (t *tally[K]) top(rows int) (top []row[K], others int) {
	top = []row[K]{}
	for k, c := range t.kinds {
		top = append(top, row[K]{k, c.n, c.last})
	}
	slices.SortFunc(top, func(a, b row[K]) int {
		if c := cmp.Or(cmp.Compare(b.Count, a.Count), b.Last.Compare(a.Last)); c != 0 {
			return c
		}
		return cmp.Compare(fmt.Sprint(a.Kind), fmt.Sprint(b.Kind))
	})
	others = t.others
	for _, r := range top[min(rows, len(top)):] {
		others += r.Count
	}
	return top[:min(rows, len(top))], others
}
