package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{
		{nil, 0},
		{[]float64{7}, 7},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 1, 3, 2}, 2.5},
	} {
		if got := median(c.values); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.values, got, c.want)
		}
	}
}

func TestPercentile(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(i))
	}
	for _, c := range []struct {
		sorted []time.Duration
		p      float64
		want   time.Duration
	}{
		{nil, 0.5, 0},
		{[]time.Duration{3}, 0.99, 3},
		{hundred, 0, 0},
		{hundred, 0.5, 50},
		{hundred, 0.99, 99},
		{hundred, 1, 99},
	} {
		if got := percentile(c.sorted, c.p); got != c.want {
			t.Errorf("percentile of %d values, %v: %v, want %v", len(c.sorted), c.p, got, c.want)
		}
	}
}

func TestExtreme(t *testing.T) {
	values := []float64{1.1, 0.9, 0.97, 1.3}
	for _, c := range []struct {
		name    string
		extreme extreme
		want    string // reached and verdict
	}{
		{"at least, one below", extreme{atLeast: true, limit: 0.95}, "3 of 4 points; worst 0.9 x at b|NOT MET"},
		{"at least, all above", extreme{atLeast: true, limit: 0.9}, "4 of 4 points; worst 0.9 x at b|met"},
		{"at most, one above", extreme{limit: 1.2}, "3 of 4 points; worst 1.3 x at d|NOT MET"},
		{"at most, all below", extreme{limit: 1.3}, "4 of 4 points; worst 1.3 x at d|met"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := goals{part: "p"}
			for i, value := range values {
				c.extreme.point(value, string(rune('a'+i)))
			}
			c.extreme.addTo(&g, "a thing", " x")
			if got := g.list[0].reached + "|" + g.list[0].verdict; got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	g := goals{part: "p"}
	(&extreme{limit: 1}).addTo(&g, "nowhere", "")
	if got := g.list[0].verdict; got != "not measured" {
		t.Errorf("without a point: %q, want not measured", got)
	}
}

func TestGoalsTableCounts(t *testing.T) {
	g := goals{part: "smtp"}
	g.add(true, "a", "at least 1", "%.1f", 1.5)
	g.add(false, "b", "at least 1", "%.1f", 0.5)
	g.unmeasured("c", "at least 1", "no peer")
	table := g.table()
	for _, want := range []string{"NOT MET\n", "3 goals: 1 met, 1 not met, 1 not measured\n", "smtp  a     at least 1  1.5      met\n"} {
		if !strings.Contains(table, want) {
			t.Errorf("no %q in\n%s", want, table)
		}
	}
}

func TestInTurns(t *testing.T) {
	var order []int
	inTurns(3, 3, func(round, row int) error {
		order = append(order, row)
		if want := len(order) - 1; round != want/3 {
			t.Errorf("measurement %d is in round %d", want, round)
		}
		return nil
	})
	if want := []int{0, 1, 2, 1, 2, 0, 2, 0, 1}; !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
}
