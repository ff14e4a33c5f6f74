package hub

import (
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func TestReadInterests(t *testing.T) {
	const yz = 1<<('Y'-'A') | 1<<('Z'-'A')
	tests := []struct {
		name, input string
		want        []interest
	}{
		{"letters", "?YZ\n", []interest{{letters: yz}}},
		{"two lines in one packet", "?*\n?Y\n", []interest{{letters: allLetters &^ letterSet(newLetters)}, {letters: 1 << 24}}},
		{"question mark alone", "?\n", []interest{{}}},
		{"lower case, space, comma, CR", "?y, Y zZ\r\n", []interest{{letters: yz}}},
		{"NUL is passed over", "?\x00YZ\n", []interest{{letters: yz}}},
		{"no question mark", "YZ\n\n ?YZ\n", nil},
		{"no line feed", "?YZ", nil},
		{"star among letters", "?Q*\n", []interest{{letters: allLetters &^ letterSet(newLetters)}}},
		{"star and a new letter", "?*N\n", []interest{{letters: allLetters &^ letterSet("E")}}},
		{"star, extended", "?*+\n", []interest{{letters: allLetters, extended: true}}},
		{"extended", "?YZ+\n", []interest{{letters: yz, extended: true}}},
		{"plus first", "?+YZ\n", []interest{{letters: yz, extended: true}}},
		{"replay", "?YZ+@17\n", []interest{{letters: yz, extended: true, replay: true, since: 17}}},
		{"replay of a run", "?YZ+@17/99\n", []interest{{letters: yz, extended: true, replay: true, since: 17, run: 99}}},
		{"letters after the replay", "?+@17Y/9Z\n", []interest{{letters: yz, extended: true, replay: true, since: 17}}},
		{"at sign alone", "?YZ+@\n", []interest{{letters: yz, extended: true}}},
		{"replay without plus", "?YZ@17\n", []interest{{letters: yz}}},
		{"number too large", "?+@99999999999999999999999\n", []interest{{extended: true, replay: true, since: 1<<64 - 1}}},
		{"255 bytes count", "?" + strings.Repeat("y", 253) + "YZ\n?Z\n",
			[]interest{{letters: 1 << 24}, {letters: 1 << 25}}},
		{"a megabyte", "?Y" + strings.Repeat("Z", 1<<20) + "\n?Z\n",
			[]interest{{letters: yz}, {letters: 1 << 25}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var whole, bytewise []interest
			collect := func(to *[]interest) func(interest) bool {
				return func(in interest) bool { *to = append(*to, in); return true }
			}
			if err := readInterests(strings.NewReader(tt.input), collect(&whole)); err != nil {
				t.Fatal(err)
			}
			if err := readInterests(iotest.OneByteReader(strings.NewReader(tt.input)), collect(&bytewise)); err != nil {
				t.Fatal(err)
			}
			opt := cmp.AllowUnexported(interest{})
			if diff := cmp.Diff(tt.want, whole, opt); diff != "" {
				t.Errorf("%.60q: %s", tt.input, diff)
			}
			if diff := cmp.Diff(whole, bytewise, opt); diff != "" {
				t.Errorf("byte by byte: %s", diff)
			}
		})
	}
}
