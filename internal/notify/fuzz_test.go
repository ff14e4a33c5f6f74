package notify

import (
	"bytes"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"
)

// FuzzInterest feeds whatever a peer may send. The result must not depend on
// how it comes in pieces, and must be what a straightforward reading gives.
func FuzzInterest(f *testing.F) {
	for _, s := range []string{"?YZ\n", "?*+@17/99\n", "?\x00YZ\n?R\n", "YZ\n", "?" + strings.Repeat("Y", 300) + "\n", "?+@18446744073709551616\n", "?@1/2+A\n\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		var whole, pieces []interest
		if err := readInterests(bytes.NewReader(input), func(in interest) bool { whole = append(whole, in); return true }); err != nil {
			t.Fatal(err)
		}
		readInterests(iotest.OneByteReader(bytes.NewReader(input)), func(in interest) bool { pieces = append(pieces, in); return true })
		if len(whole) != len(pieces) {
			t.Fatalf("%d interests, byte by byte %d", len(whole), len(pieces))
		}
		n := 0
		lines := bytes.Split(input, []byte("\n"))
		for _, line := range lines[:len(lines)-1] {
			if len(line) == 0 || line[0] != '?' {
				continue
			}
			line = line[:min(len(line), maxInterest)]
			in := whole[n]
			if in != pieces[n] {
				t.Fatalf("%+v, byte by byte %+v", in, pieces[n])
			}
			for c := byte('A'); c <= 'Z'; c++ {
				if want := bytes.IndexByte(line, c) >= 0 || bytes.IndexByte(line, '*') >= 0; in.letters.has(c) != want {
					t.Fatalf("%q: letter %c is %v", line, c, !want)
				}
			}
			if want := bytes.IndexByte(line, '+') >= 0; in.extended != want {
				t.Fatalf("%q: extended is %v", line, !want)
			}
			n++
		}
		if n != len(whole) {
			t.Fatalf("%d interests of %d lines", len(whole), n)
		}
	})
}

// FuzzEvent reads lines as a client does. What it takes for a message must be
// the line again when written.
func FuzzEvent(f *testing.F) {
	for _, s := range []string{"Z", "F 3", "S 0 StateChange Idle -> Busy", "12 1795327812.000001 S 3 x", "=12 1795327812.000001 F 0",
		"*LOST 3", "*LIVE 12", "*EXT 12 99", "*ERR too slow", "*OK", "", "oop qid", "1 2 3", "S \xff\x1b]0;x\a"} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, line string, ext bool) {
		e, err := parseLine(line, ext)
		if err != nil {
			if !strings.HasPrefix(line, lineErr) {
				t.Fatalf("%q: %v", line, err)
			}
			return
		}
		switch e.Kind {
		case Happened, State:
			if e.Letter < 'A' || e.Letter > 'Z' {
				t.Fatalf("%q: letter %q", line, e.Letter)
			}
			// "F " is read as "F": the original never sends either.
			if !strings.HasSuffix(line, e.Line()) && !strings.HasSuffix(line, e.Line()+" ") {
				t.Fatalf("%q became %q", line, e.Line())
			}
		case Lost, Live, Up:
			if line[0] != '*' {
				t.Fatalf("%q is taken for control", line)
			}
		}
		for _, s := range []string{e.Words(), Printable(line)} {
			if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r >= 0x202a && r <= 0x202e }) {
				t.Fatalf("%q is shown as %q", line, s)
			}
		}
		_, _ = e.Worker(), e.Free()
	})
}
