package config

import (
	"math"
	"testing"
	"time"
)

func TestBytes(t *testing.T) {
	tests := []struct {
		in, text string
		want     Bytes
	}{
		{"0", "0", 0},
		{"1", "1", 1},
		{"1023", "1023", 1023},
		{"1024", "1K", 1024},
		{"512k", "512K", 512 << 10},
		{"10M", "10M", 10 << 20},
		{"2g", "2G", 2 << 30},
		{"3T", "3T", 3 << 40},
		{"9223372036854775807", "9223372036854775807", math.MaxInt64},
		{"8388607T", "8388607T", 8388607 << 40},
	}
	for _, tt := range tests {
		var got Bytes
		if err := got.UnmarshalText([]byte(tt.in)); err != nil || got != tt.want || got.String() != tt.text {
			t.Errorf("%q: %d (%s), %v; want %d (%s)", tt.in, got, got, err, tt.want, tt.text)
		}
	}
	for _, in := range []string{"", "k", "-1", "+1", "1kb", "1.5M", "10 M", "9223372036854775808", "8388608T", "0x10"} {
		var got Bytes
		if err := got.UnmarshalText([]byte(in)); err == nil {
			t.Errorf("%q read as %d, want an error", in, got)
		}
	}
}

func TestDuration(t *testing.T) {
	tests := []struct {
		in   string
		want time.Duration
		ok   bool
	}{
		{"0", 0, true},
		{"90", 90 * time.Second, true},
		{"1m30s", 90 * time.Second, true},
		{"250ms", 250 * time.Millisecond, true},
		{"9223372036", 9223372036 * time.Second, true},
		{"9223372037", 0, false},
		{"-1", 0, false},
		{"-1s", 0, false},
		{"1 m", 0, false},
		{"", 0, false},
		{"1d", 0, false},
	}
	for _, tt := range tests {
		got, err := parseDuration(tt.in)
		if (err == nil) != tt.ok || got != tt.want {
			t.Errorf("%q: %v, %v; want %v, ok %v", tt.in, got, err, tt.want, tt.ok)
		}
	}
}

func TestShare(t *testing.T) {
	for in, want := range map[string]Share{"0%": 0, "1%": 0.01, "0.1%": 0.001, "100%": 1} {
		var got Share
		if err := got.UnmarshalText([]byte(in)); err != nil || got != want || got.String() != in {
			t.Errorf("%q: %v (%s), %v; want %v", in, float64(got), got, err, float64(want))
		}
	}
	for _, in := range []string{"", "%", "1", "-1%", "101%", "NaN%", "x%", "1 %"} {
		var got Share
		if err := got.UnmarshalText([]byte(in)); err == nil {
			t.Errorf("%q read as %v, want an error", in, got)
		}
	}
}
