package notify

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzWords has a terminal get nothing but what is printed, whatever a message says.
func FuzzWords(f *testing.F) {
	for _, s := range []string{"F 3", "Z", "S 0 StateChange Idle -> Busy", "S 3 \xff\x1b]0;x\a", "A \u202e x", "J \u009b", "R failed \x00"} {
		f.Add(s[0], strings.TrimPrefix(s[1:], " "))
	}
	f.Fuzz(func(t *testing.T, letter byte, text string) {
		hidden := func(r rune) bool {
			return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r >= 0x202a && r <= 0x202e
		}
		m := Message{Letter: letter, Text: text}
		if s := m.Words(); !utf8.ValidString(s) || strings.ContainsFunc(s, hidden) {
			t.Fatalf("%q is shown as %q", m, s)
		}
	})
}
