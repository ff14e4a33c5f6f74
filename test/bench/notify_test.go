package main

import (
	"slices"
	"testing"
	"time"

	"postern/internal/testenv"
)

func TestHeardIsReadBack(t *testing.T) {
	want := heard{published: 1, edges: 2, readers: 3, got: 4, short: 5, wrong: 6, gaps: 7, lost: 8, closed: 9, millis: 10}
	got, err := parseHeard(want.line())
	if got != want || err != nil {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if got, err := parseHeard("1 2 3"); err == nil {
		t.Errorf("a short line gives %+v", got)
	}
	sum := want.plus(want)
	if sum.published != 2 || sum.millis != 20 || want.published != 1 {
		t.Errorf("sum %+v of twice %+v", sum, want)
	}
}

func TestFirstHeard(t *testing.T) {
	notes := []note{
		{0, 50, 0},                            // before the first request
		{0, 110, 0}, {0, 115, 0}, {0, 190, 0}, // of the first
		{0, 330, 0}, // of the second
		{1, 105, 0}, // another listener
	}
	got := firstHeard([]int64{100, 300, 500}, notes)
	if want := []time.Duration{10, 30}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestBareServerTellsTheTime has listeners read what the bare server says, and
// their delays are not nonsense.
func TestBareServerTellsTheTime(t *testing.T) {
	testenv.Need(t, "delays of listeners as the benchmark takes them", "cc")
	b := testBench(t)
	reader, err := b.compile("reader")
	if err != nil {
		t.Fatal(err)
	}
	bare, err := newBareServer(b.dir + "/bare")
	if err != nil {
		t.Fatal(err)
	}
	defer bare.close()
	r, err := b.startReaderOf(reader, bare, 2)
	if err != nil {
		t.Fatal(err)
	}
	begin := clock(clockMonotonic)
	for range 3 {
		if err := bare.send(); err != nil {
			t.Fatal(err)
		}
	}
	notes, err := r.finish()
	if err != nil {
		t.Fatal(err)
	}
	if len(notes) != 6 {
		t.Errorf("%d notes of 3 messages to 2 listeners", len(notes))
	}
	for _, n := range notes {
		if n.late < 0 || n.late > clock(clockMonotonic)-begin || n.when < begin {
			t.Errorf("note %+v, begun at %d", n, begin)
		}
	}
}
