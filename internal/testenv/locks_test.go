package testenv

import (
	"maps"
	"slices"
	"sync"
	"testing"
)

// TestLocks: mutexes are found behind pointers, interfaces and slices, once, and not in other modules' types.
func TestLocks(t *testing.T) {
	type inner struct {
		mu   sync.Mutex
		back any
	}
	type outer struct {
		sync.RWMutex
		near   inner
		far    any
		row    []*inner
		absent *inner
		other  *sync.Map
	}
	o := &outer{far: &inner{}, row: []*inner{{}, {}}, absent: nil, other: &sync.Map{}}
	o.near.back, o.row[1].back = o, o.row[0]
	found := Locks("o", o)
	want := []string{"o.RWMutex", "o.far.mu", "o.near.mu", "o.row[0].mu", "o.row[1].mu"}
	if got := slices.Sorted(maps.Keys(found)); !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	found["o.near.mu"].Lock()
	if o.near.mu.TryLock() {
		t.Error("another lock")
	}
}
