package main

import (
	"math"
	"testing"
	"time"
)

// numericOptions are all options of the original that have a number: what they are
// without being given, and what becomes of values. The tables of the original's
// name and of ours differ where two numbers are given.
var numericOptions = []struct {
	letter    string
	get       func(s *settings) int64
	standard  [2]int64 // under the original's name, and under ours
	values    map[string][2]int64
	onlyOurs  map[string]int64
	badValues []string // under both names
}{
	{letter: "b", get: func(s *settings) int64 { return inSeconds(s.Busy) }, standard: [2]int64{120, 120}, values: atLeast(10)},
	{letter: "c", get: func(s *settings) int64 { return inSeconds(s.Client) }, standard: [2]int64{10, 10}, values: atLeast(10)},
	{letter: "i", get: func(s *settings) int64 { return inSeconds(s.Idle) }, standard: [2]int64{300, 300}, values: atLeast(10)},
	{letter: "I", get: func(s *settings) int64 { return int64(s.Backlog) }, standard: [2]int64{0, 0}, // the original's depended on -x
		values: map[string][2]int64{"4": {5, 4}, "5": {5, 5}, "200": {200, 200}, "201": {200, 201}, "-1": {0, 0}, huge: {200, math.MaxInt32}, tiny: {0, 0}}},
	{letter: "L", get: func(s *settings) int64 { return inSeconds(s.StatusInterval) }, standard: [2]int64{0, 0},
		values: both(map[string]int64{"1": 5, "4": 5, "5": 5, "6": 6, "0": 0, "-5": 0, huge: math.MaxInt32, tiny: 0})},
	{letter: "m", get: func(s *settings) int64 { return int64(s.Min) }, standard: [2]int64{1, 1},
		values: both(map[string]int64{"0": 1, "-1": 1, "2": 2, "3": 2, huge: 2, tiny: 1})}, // -x is 2
	{letter: "M", get: func(s *settings) int64 { return int64(s.MaxAS) }, standard: [2]int64{0, 0},
		values: both(map[string]int64{"500000": 500000, "0": 0, "-1": 0, huge: math.MaxInt32, tiny: 0})},
	{letter: "P", get: func(s *settings) int64 { return int64(s.Ticks) }, standard: [2]int64{1, 1},
		values: both(map[string]int64{"0": 1, "-1": 1, "30": 30, "31": 30, huge: 30, tiny: 1})},
	{letter: "q", get: func(s *settings) int64 { return int64(s.QueueSize) }, standard: [2]int64{0, 1024},
		values: both(map[string]int64{"0": 0, "128": 128}), onlyOurs: map[string]int64{"129": 129, "1048576": 1 << 20}, badValues: []string{huge}},
	{letter: "Q", get: func(s *settings) int64 { return inSeconds(s.QueueTime) }, standard: [2]int64{30, 30},
		values: both(map[string]int64{"0": 1, "-1": 1, "1": 1, "600": 600, "601": 600, huge: 600, tiny: 1})},
	{letter: "r", get: func(s *settings) int64 { return int64(s.MaxRequests) }, standard: [2]int64{500, 500},
		values: both(map[string]int64{"0": 1, "-1": 1, "1": 1, "7": 7, huge: math.MaxInt32, tiny: 1})},
	{letter: "R", get: func(s *settings) int64 { return int64(s.MaxRSS) }, standard: [2]int64{0, 0},
		values: both(map[string]int64{"100000": 100000, "0": 0, "-1": 0, huge: math.MaxInt32, tiny: 0})},
	{letter: "V", get: func(s *settings) int64 { return inSeconds(s.MaxLifetime) }, standard: [2]int64{0, 0},
		values: both(map[string]int64{"0": 0, "-1": 0, "1": 1, huge: math.MaxInt32, tiny: 0})},
	{letter: "w", get: func(s *settings) int64 { return inSeconds(s.Interval) }, standard: [2]int64{3, 3},
		values: both(map[string]int64{"0": 1, "-1": 1, "1": 1, "2": 2, huge: math.MaxInt32, tiny: 1})},
	{letter: "W", get: func(s *settings) int64 { return inSeconds(s.Gap) }, standard: [2]int64{0, 0},
		values: both(map[string]int64{"0": 0, "-1": 0, "5": 5, huge: math.MaxInt32, tiny: 0})},
	{letter: "x", get: func(s *settings) int64 { return int64(s.Max) }, standard: [2]int64{2, 2},
		values: both(map[string]int64{"0": 1, "-1": 1, "1": 1, "1000": 1000, huge: maxWorkers, tiny: 1})},
	{letter: "X", get: func(s *settings) int64 { return inSeconds(s.TickTime) }, standard: [2]int64{0, 0},
		values: both(map[string]int64{"0": 0, "-1": 0, "5": 5, huge: math.MaxInt32, tiny: 0})},
	{letter: "y", get: func(s *settings) int64 { return int64(s.PerDomain) }, standard: [2]int64{0, 0},
		values: both(map[string]int64{"0": 0, "-1": 0, "1": 1, "2": 0, "3": 0, huge: 0, tiny: 0})}, // -x is 2
}

const (
	huge = "9999999999" // of more than 32 bits
	tiny = "-99999999999999999999"
)

func inSeconds(s seconds) int64 { return int64(time.Duration(s) / time.Second) }

// both is for values that are the same under either name.
func both(values map[string]int64) map[string][2]int64 {
	all := map[string][2]int64{}
	for text, v := range values {
		all[text] = [2]int64{v, v}
	}
	return all
}

// atLeast is for times that have a least one under the original's name, and one
// second under ours.
func atLeast(least int64) map[string][2]int64 {
	return map[string][2]int64{"0": {least, 1}, "-1": {least, 1}, "1": {least, 1}, "9": {least, 9}, "10": {10, 10}, "11": {11, 11}, "11abc": {11, 11}, "0.5": {least, 1},
		" 12": {12, 12}, "+12": {12, 12}, "0x10": {least, 1}, huge: {math.MaxInt32, math.MaxInt32}, "4294967306": {math.MaxInt32, math.MaxInt32}, tiny: {least, 1}}
}

// given is an option with a value, and what it is to become.
type given struct {
	letter, text string
	get          func(s *settings) int64
	want         int64
}

// lines puts the options with their values on as few command lines as there are
// values of one option: each line has all options, with another value each. As -x
// bounds -m and -y, it has lines of its own.
func lines(program int) [][]given {
	var all, alone [][]given
	for _, o := range numericOptions {
		var values []given
		for text, v := range o.values {
			values = append(values, given{o.letter, text, o.get, v[program]})
		}
		if program == 1 {
			for text, v := range o.onlyOurs {
				values = append(values, given{o.letter, text, o.get, v})
			}
		}
		for i, v := range values {
			if o.letter == "x" {
				alone = append(alone, []given{v})
				continue
			}
			if i == len(all) {
				all = append(all, nil)
			}
			all[i] = append(all[i], v)
		}
	}
	return append(all, alone...)
}

// TestNumericOptions has every default and every bound, with the value attached to
// its letter and apart from it, alone and behind a switch.
func TestNumericOptions(t *testing.T) {
	t.Parallel()
	read := func(name string, args []string) (*settings, error) {
		s := &settings{program: name}
		p := parser(name)
		p.DefaultFile = "/nonexistent"
		p.Lookup = func(string) (string, bool) { return "", false }
		_, err := p.Parse(s, s.arguments(args))
		return s, err
	}
	for i, name := range []string{originalName, ourName} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := read(name, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range numericOptions {
				if got := o.get(s); got != o.standard[i] {
					t.Errorf("without -%s: %d, want %d", o.letter, got, o.standard[i])
				}
				for _, text := range append(o.badValues, "", "many", "-", "x1") {
					if s, err := read(name, []string{"-" + o.letter, text}); err == nil {
						t.Errorf("-%s %q was taken as %d", o.letter, text, o.get(s))
					}
				}
			}
			for _, line := range lines(i) {
				for form, write := range []func(letter, text string) []string{
					func(letter, text string) []string { return []string{"-" + letter + text} },
					func(letter, text string) []string { return []string{"-" + letter, text} },
					func(letter, text string) []string { return []string{"-lZ" + letter + text} },
					func(letter, text string) []string { return []string{"-lZ" + letter, text} },
				} {
					var args []string
					for _, g := range line {
						args = append(args, write(g.letter, g.text)...)
					}
					s, err := read(name, args)
					if err != nil {
						t.Errorf("%q: %v", args, err)
						continue
					}
					for _, g := range line {
						if got := g.get(s); got != g.want {
							t.Errorf("%q: -%s %s is %d, want %d", args, g.letter, g.text, got, g.want)
						}
					}
					if clustered := form >= 2; s.LogEvents != clustered || s.Pipe != clustered {
						t.Errorf("%q: -l %v, -Z %v", args, s.LogEvents, s.Pipe)
					}
				}
			}
		})
	}
}

func TestTimesWithUnits(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{"90s": 90 * time.Second, "2m": 2 * time.Minute, "500ms": 500 * time.Millisecond, "1h30m": 90 * time.Minute, "1.5s": 1500 * time.Millisecond,
		"-3s": -3 * time.Second, "7": 7 * time.Second, "7abc": 7 * time.Second, "2000000h": time.Duration(maxSeconds), huge: time.Duration(maxSeconds)} {
		var s seconds
		if err := s.UnmarshalText([]byte(text)); err != nil || time.Duration(s) != want {
			t.Errorf("%q is %v, %v, want %v", text, time.Duration(s), err, want)
		}
	}
	for _, text := range []string{"10min", "3d", "99999999999h", "5 s", "s", "", "ten", "1h x"} {
		var s seconds
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was taken as %v", text, time.Duration(s))
		}
	}
}
