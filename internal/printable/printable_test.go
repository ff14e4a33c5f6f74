package printable

import "testing"

// EVT-02.
func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"plain äöü 日本":      "plain äöü 日本",
		"\x1b]0;title\a":    `\x1b]0;title\x07`,
		"\x9b31m":           `\x9b31m`,
		"a\u202eb\u2066":    `a\u202eb\u2066`,
		"c\u009b":           `c\xc2\x9b`,
		"\xff\xc3":          `\xff\xc3`,
		"\U000e0041":        `\U000e0041`,
		"\ufffd replaced":   "\ufffd replaced",
		"line\nfeed\r\ttab": `line\x0afeed\x0d\x09tab`,
	} {
		if got := Text(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
