package hub

import (
	"bytes"
	"strings"
	"testing"
	"testing/iotest"
)

// FuzzInterest feeds whatever a peer may send. The result must not depend on
// how it comes in pieces, and must be what a straightforward reading gives.
func FuzzInterest(f *testing.F) {
	for _, s := range []string{"?YZ\n", "?*\n", "?*+@17/99\n", "?\x00YZ\n?R\n", "YZ\n", "?" + strings.Repeat("Y", 300) + "\n", "?+@18446744073709551616\n", "?@1/2+A\n\r\n"} {
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
			extended := bytes.IndexByte(line, '+') >= 0
			if in.extended != extended {
				t.Fatalf("%q: extended is %v", line, !extended)
			}
			for c := byte('A'); c <= 'Z'; c++ {
				every := "*"
				if !extended && strings.IndexByte(newLetters, c) >= 0 {
					every = "" // who does not speak the extension gets no letter of it unasked
				}
				if want := bytes.ContainsAny(line, string(c)+every); in.letters.has(c) != want {
					t.Fatalf("%q: letter %c is %v", line, c, !want)
				}
			}
			n++
		}
		if n != len(whole) {
			t.Fatalf("%d interests of %d lines", len(whole), n)
		}
	})
}
