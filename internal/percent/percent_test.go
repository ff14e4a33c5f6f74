package percent

import (
	"errors"
	"strings"
	"testing"
)

func TestEncode(t *testing.T) {
	tests := []struct{ name, in, request, command string }{
		{"plain", "a@b<>+=,;", "a@b<>+=,;", "a@b<>+=,;"},
		{"space and controls", " \t\r\n\x00\x1f", "%20%09%0D%0A%00%1F", "%20%09%0D%0A%00%1F"},
		{"eight bit and del", "\x7f\x80\xff", "%7F%80%FF", "%7F%80%FF"},
		{"quotes", `%\'"`, "%25%5C%27%22", `%25\'"`},
		{"tilde stays", "~", "~", "~"},
		{"empty", "", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Encode(tt.in); got != tt.request {
				t.Errorf("Encode(%q) = %q, want %q", tt.in, got, tt.request)
			}
			if got := EncodeCommand(tt.in); got != tt.command {
				t.Errorf("EncodeCommand(%q) = %q, want %q", tt.in, got, tt.command)
			}
		})
	}
}

func TestJoin(t *testing.T) {
	if got, want := Join("map", "my map", "a%b", ""), "map my%20map a%25b "; got != want {
		t.Errorf("Join = %q, want %q", got, want)
	}
}

func TestDecode(t *testing.T) {
	tests := []struct {
		in, lenient string
		bad         bool
	}{
		{"plain", "plain", false},
		{"%41%6a%6A", "Ajj", false},
		{"%250A", "%0A", false}, // once, not twice
		{"%", "%", true},
		{"%4", "%4", true},
		{"%GG", "%GG", true},
		{"a%4Gb", "a%4Gb", true},
		{"%%41", "%A", true},
		{"%00x", "\x00x", false},
		{"", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			if got := Decode(tt.in); got != tt.lenient {
				t.Errorf("Decode(%q) = %q, want %q", tt.in, got, tt.lenient)
			}
			got, err := DecodeStrict(tt.in)
			var bad *BadEscape
			if tt.bad != errors.As(err, &bad) {
				t.Errorf("DecodeStrict(%q): error %v, want an error: %v", tt.in, err, tt.bad)
			}
			if err == nil && got != tt.lenient {
				t.Errorf("DecodeStrict(%q) = %q, want %q", tt.in, got, tt.lenient)
			}
		})
	}
}

// FuzzRoundTrip holds that what was encoded is one printable word and reads back
// as itself, and that decoding of anything at all ends and never grows.
func FuzzRoundTrip(f *testing.F) {
	for _, s := range []string{"", "%", "%4", "%zz", "a b", "\x00\xff\r\n", "%250A", `\'"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, enc := range []string{Encode(s), EncodeCommand(s)} {
			if strings.ContainsFunc(enc, func(r rune) bool { return r <= ' ' || r > '~' }) {
				t.Fatalf("encoding of %q is not one printable word: %q", s, enc)
			}
			if got, err := DecodeStrict(enc); err != nil || got != s {
				t.Fatalf("%q encoded %q decoded strictly %q, %v", s, enc, got, err)
			}
			if got := Decode(enc); got != s {
				t.Fatalf("%q encoded %q decoded %q", s, enc, got)
			}
		}
		lenient := Decode(s)
		if len(lenient) > len(s) {
			t.Fatalf("Decode(%q) grew to %q", s, lenient)
		}
		if strict, err := DecodeStrict(s); err == nil && strict != lenient {
			t.Fatalf("Decode(%q) = %q, DecodeStrict = %q", s, lenient, strict)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	for name, s := range map[string]string{"clean": "<someone@example.org>", "dirty": "a \"quoted\" word\n"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Encode(s)
			}
		})
	}
}
