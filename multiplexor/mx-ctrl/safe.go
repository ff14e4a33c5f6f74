package main

import (
	"io"
	"os"
	"strings"
)

// safeLine makes text from a worker fit to be shown in one line of a terminal:
// every byte that is not printable ASCII becomes '?'. So it moves no cursor, and
// is as wide as it is long.
func safeLine(s string) string {
	return mapBytes(s, func(c byte) bool { return c >= ' ' && c <= '~' })
}

// safeText makes a reply fit to be shown on a terminal: control characters but
// LF and tab become '?', those of ISO 8859 (0x80 to 0x9f) too unless they belong
// to UTF-8, where they have no power alone but do as the characters U+0080 to
// U+009F.
func safeText(s string) string {
	s = strings.ToValidUTF8(s, "?")
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

func mapBytes(s string, good func(byte) bool) string {
	b := []byte(s)
	for i, c := range b {
		if !good(c) {
			b[i] = '?'
		}
	}
	return string(b)
}

// terminalSafe returns a writer that is safe for a terminal if w is one. Anything
// else gets every byte as it came, as from md-mx-ctrl.
func terminalSafe(w io.Writer) io.Writer {
	if f, ok := w.(*os.File); ok && isTerminal(int(f.Fd())) {
		return safeWriter{w}
	}
	return w
}

type safeWriter struct{ w io.Writer }

// Write writes whole texts only: no character is split between two calls.
func (s safeWriter) Write(p []byte) (int, error) {
	if _, err := io.WriteString(s.w, safeText(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}
