package printable

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"
)

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

func TestJSON(t *testing.T) {
	for in, want := range map[string]string{
		"{\"a\": \"plain äöü 日本\"}\n": "{\"a\": \"plain äöü 日本\"}\n",
		"\"\u009b31m\u202ex\u007f\"":  `"\u009b31m\u202ex\u007f"`,
		"\"\U000e0041\"":              `"\udb40\udc41"`,
		"[\n  \"\u2066\"\n]":          "[\n  \"\\u2066\"\n]",
	} {
		if got := string(JSON([]byte(in))); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	var b strings.Builder
	text := "c\u009b\u2028\x1b"
	if err := json.NewEncoder(JSONWriter(&b)).Encode(text); err != nil {
		t.Fatal(err)
	}
	var back string
	if err := json.Unmarshal([]byte(b.String()), &back); err != nil || back != text || strings.ContainsFunc(b.String(), func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
		t.Errorf("%q became %q and then %q, %v", text, b.String(), back, err)
	}
}
