package smtp

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// oracle decodes whole content in the plainest way, line by line. It is the specification that the decoder
// is held to.
func oracle(in string, reject bool) (out string, consumed int, done bool, bad string) {
	var cr, lf, nul bool
	begin, crlfBefore := 0, true // where the present line begins, and whether CR LF is in front of it
	for i := range len(in) + 1 {
		atEnd := i == len(in)
		if !atEnd && in[i] != '\n' {
			continue
		}
		line := in[begin:i]
		text := strings.TrimSuffix(line, "\r")
		crlf := text != line && !atEnd
		if crlf && crlfBefore && text == "." {
			return out, i + 1, true, name(cr, lf, nul)
		}
		cr = cr || strings.Contains(text, "\r")
		nul = nul || strings.Contains(text, "\x00")
		if atEnd {
			break
		}
		lf = lf || !crlf && reject
		if strings.HasPrefix(text, "..") {
			text = text[1:]
		}
		out += text + "\r\n"
		begin, crlfBefore = i+1, crlf
	}
	return out, len(in), false, name(cr, lf, nul)
}

func name(cr, lf, nul bool) string {
	switch {
	case cr:
		return "cr"
	case lf:
		return "lf"
	case nul:
		return "nul"
	}
	return ""
}

func badName(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, ErrBareCR):
		return "cr"
	case errors.Is(err, ErrBareLF):
		return "lf"
	case errors.Is(err, ErrNUL):
		return "nul"
	}
	return err.Error()
}

// decodePieces feeds the pieces to a decoder until it is done.
func decodePieces(d *DotDecoder, pieces ...string) (out string, consumed int, done bool) {
	var buf []byte
	for _, p := range pieces {
		var n int
		buf, n, done = d.Decode(buf, []byte(p))
		consumed += n
		if done {
			break
		}
		if n != len(p) {
			return fmt.Sprintf("consumed %d of %d without being done", n, len(p)), consumed, done
		}
	}
	return string(buf), consumed, done
}

// check compares one way to cut the input with the oracle.
func check(t *testing.T, in string, reject bool, pieces ...string) {
	t.Helper()
	wantOut, wantN, wantDone, wantBad := oracle(in, reject)
	d := DotDecoder{Reject: reject}
	out, n, done := decodePieces(&d, pieces...)
	if n != wantN || done != wantDone || badName(d.Violation()) != wantBad {
		t.Fatalf("%q in pieces %q, reject %v:\n got %d bytes, done %v, violation %q\nwant %d bytes, done %v, violation %q",
			in, pieces, reject, n, done, badName(d.Violation()), wantN, wantDone, wantBad)
	}
	if wantBad == "" && wantDone && out != wantOut {
		t.Fatalf("%q in pieces %q, reject %v:\n got %q\nwant %q", in, pieces, reject, out, wantOut)
	}
	if wantBad == "" && !wantDone && !strings.HasPrefix(out, wantOut) {
		t.Fatalf("%q in pieces %q, reject %v:\n got %q\nwant the beginning %q", in, pieces, reject, out, wantOut)
	}
}

// The rows of the table of smuggling sequences, and what must come of each: R refused, N one message of
// normalised lines, C content.
var smuggling = []struct {
	id, eod, reject, normalize string
	line                       string // what the odd line is in the decoded content
}{
	{"SMG_01", "\n.\n", "R", "N", "."},
	{"SMG_02", "\n.\r\n", "R", "N", "."},
	{"SMG_03", "\r\n.\n", "R", "N", "."},
	{"SMG_04", "\r.\r", "R", "R", ""},
	{"SMG_05", "\r.\n", "R", "R", ""},
	{"SMG_06", "\n.\r", "R", "R", ""},
	{"SMG_07", "\r.\r\n", "R", "R", ""},
	{"SMG_08", "\r\n.\r", "R", "R", ""},
	{"SMG_09", "\r\n.\r\r\n", "R", "R", ""},
	{"SMG_10", "\r\r\n.\r\r\n", "R", "R", ""},
	{"SMG_11", "\r\n\x00.\r\n", "R", "R", ""},
	{"SMG_12", "\r\n.\x00\r\n", "R", "R", ""},
	{"SMG_13_vt", "\r\n.\x0b\r\n", "C", "C", ".\x0b"},
	{"SMG_13_ff", "\r\n.\x0c\r\n", "C", "C", ".\x0c"},
	{"SMG_13_85", "\r\n.\x85\r\n", "C", "C", ".\x85"},
	{"SMG_13_sp", "\r\n. \r\n", "C", "C", ". "},
	{"SMG_13_ht", "\r\n.\t\r\n", "C", "C", ".\t"},
	{"SMG_14_a", "\n\n.\n\n", "R", "N", "\r\n."},
	{"SMG_14_b", "\r\n.\n\r\n", "R", "N", "."},
	{"SMG_15", "\r\n..\r\n", "C", "C", "."},
}

func smuggled(eod string) string {
	return "Subject: a\r\n\r\nline" + eod + "MAIL FROM:<evil@x.test>\r\nRCPT TO:<victim@y.test>\r\nDATA\r\n" +
		"Subject: b\r\n\r\nforged\r\n.\r\nQUIT\r\n"
}

func TestDotDecoderSmuggling(t *testing.T) {
	for _, row := range smuggling {
		for _, mode := range []string{"reject", "normalize"} {
			t.Run(row.id+"/"+mode, func(t *testing.T) {
				want := row.reject
				if mode == "normalize" {
					want = row.normalize
				}
				in := smuggled(row.eod)
				d := DotDecoder{Reject: mode == "reject"}
				out, n, done := decodePieces(&d, in)
				if !done || in[n:] != "QUIT\r\n" {
					t.Fatalf("%q: done %v, left %q; the only end is the true one", in, done, in[n:])
				}
				if (want == "R") != (d.Violation() != nil) {
					t.Fatalf("%q: violation %v, want %s", in, d.Violation(), want)
				}
				if want != "R" && !strings.Contains(out, "line\r\n"+row.line+"\r\n") {
					t.Fatalf("%q: decoded to %q, which lacks the line %q", in, out, row.line)
				}
				// SMG-16, SMG-17: however it is cut.
				for i := 0; i <= len(in); i++ {
					check(t, in, d.Reject, in[:i], in[i:])
					for j := i; j <= min(i+8, len(in)); j++ {
						check(t, in, d.Reject, in[:i], in[i:j], in[j:])
					}
				}
				check(t, in, d.Reject, strings.Split(in, "")...)
				encodesSafely(t, out)
			})
		}
	}
}

// Every sequence of up to seven bytes that could matter, cut everywhere and not at all.
func TestDotDecoderAllShortInputs(t *testing.T) {
	const alphabet = "\r\n.a\x00"
	limit := 7
	if testing.Short() {
		limit = 5
	}
	var in [7]byte
	var walk func(n int)
	walk = func(n int) {
		s := string(in[:n])
		for _, reject := range []bool{false, true} {
			check(t, s, reject, s)
			check(t, s, reject, strings.Split(s, "")...)
			check(t, s, reject, s[:n/2], s[n/2:])
		}
		if n == limit {
			return
		}
		for i := range len(alphabet) {
			in[n] = alphabet[i]
			walk(n + 1)
		}
	}
	walk(0)
}

// SMG-17, SMG-18: a dot or an end of data right at the edges of buffers of every usual size.
func TestDotDecoderBufferEdges(t *testing.T) {
	for _, edge := range []int{1, 512, 4095, 4096, 4097, 65535, 65536, 65537} {
		for _, tail := range []string{".\r\n", "\r\n.\r\n", "\n.\r\n.\r\n", ".", "..\r\n", "\r\n..\r\n", "\r", "\r.\r\n"} {
			for shift := -3; shift <= 3; shift++ {
				n := max(edge+shift, 0)
				in := strings.Repeat("A", n) + tail + "\r\n.\r\n"
				for _, size := range []int{edge, 4096, 65536} {
					var pieces []string
					for rest := in; rest != ""; {
						k := min(size, len(rest))
						pieces, rest = append(pieces, rest[:k]), rest[k:]
					}
					check(t, in, false, pieces...)
					check(t, in, true, pieces...)
				}
			}
		}
	}
}

func TestDotDecoderRandom(t *testing.T) {
	words := []string{"\r", "\n", ".", "\x00", "a", "\r\n", "\r\n.", "\r\n.\r\n", "MAIL FROM:<x@y>", strings.Repeat("b", 70)}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		var in strings.Builder
		for range rnd.IntN(30) {
			in.WriteString(words[rnd.IntN(len(words))])
		}
		s := in.String()
		var pieces []string
		for rest := s; rest != ""; {
			k := 1 + rnd.IntN(len(rest))
			pieces, rest = append(pieces, rest[:k]), rest[k:]
		}
		check(t, s, rnd.IntN(2) == 0, pieces...)
	}
}

func TestDotDecoderMaxLine(t *testing.T) {
	for _, test := range []struct {
		in  string
		bad bool
	}{
		{strings.Repeat("a", 10) + "\r\n.\r\n", false},
		{strings.Repeat("a", 11) + "\r\n.\r\n", true},
		{".." + strings.Repeat("a", 9) + "\r\n.\r\n", false},
		{".." + strings.Repeat("a", 10) + "\r\n.\r\n", true},
		{strings.Repeat("a", 11) + ".\r\n.\r\n", true}, // SMG-19
		{strings.Repeat("a", 10) + "\n" + strings.Repeat("b", 10) + "\n\r\n.\r\n", false},
		{"a\r\n" + strings.Repeat("a", 11) + "\n\r\n.\r\n", true},
	} {
		for i := 0; i <= len(test.in); i++ {
			d := DotDecoder{MaxLine: 10}
			_, n, done := decodePieces(&d, test.in[:i], test.in[i:])
			if !done || n != len(test.in) || errors.Is(d.Violation(), ErrLongLine) != test.bad {
				t.Errorf("%q cut at %d: done %v at %d, violation %v; want one: %v", test.in, i, done, n, d.Violation(), test.bad)
			}
		}
	}
}

// BDAT: dots are content, nothing ends the content, and a CR may meet its LF in the next chunk (CMD-16).
func TestDotDecoderChunks(t *testing.T) {
	for _, test := range []struct{ in, want, bad string }{
		{".\r\n..\r\n.\r\nMAIL FROM:<a@b>\r\n", ".\r\n..\r\n.\r\nMAIL FROM:<a@b>\r\n", ""},
		{"a\n.\nb", "a\r\n.\r\nb", ""},
		{"a\r", "", "cr"},
		{"a\rb\r\n", "", "cr"},
		{"a\x00", "", "nul"},
		{"", "", ""},
	} {
		for i := 0; i <= len(test.in); i++ {
			d := DotDecoder{Chunks: true}
			out, n, done := decodePieces(&d, test.in[:i], test.in[i:])
			err := d.Finish()
			if done || n != len(test.in) || badName(err) != test.bad || test.bad == "" && out != test.want {
				t.Errorf("%q cut at %d: %q, %d, done %v, %v; want %q, %q", test.in, i, out, n, done, err, test.want, test.bad)
			}
		}
	}
}

// isSafe says what is wrong with an encoded message: INV-03, read by the plainest means.
func isSafe(wire string) error {
	if !strings.HasSuffix("\r\n"+wire, "\r\n.\r\n") {
		return errors.New("no end of data at the end")
	}
	if n := strings.Count("\r\n"+wire, "\r\n.\r\n"); n != 1 {
		return fmt.Errorf("%d ends of data", n)
	}
	rest := strings.ReplaceAll(wire, "\r\n", "")
	if strings.ContainsAny(rest, "\r\n\x00") {
		return errors.New("bare CR, bare LF or NUL")
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(wire, ".\r\n"), "\r\n") {
		if strings.HasPrefix(line, ".") && !strings.HasPrefix(line, "..") {
			return fmt.Errorf("line %q begins with a dot that is not stuffed", line)
		}
	}
	return nil
}

// encode writes the pieces through a DotWriter.
func encode(t *testing.T, pieces ...string) string {
	t.Helper()
	var wire bytes.Buffer
	w := DotWriter{W: &wire}
	for _, p := range pieces {
		if n, err := w.Write([]byte(p)); n != len(p) || err != nil {
			t.Fatalf("write %q: %d, %v", p, n, err)
		}
	}
	for range 2 {
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Write([]byte("x")); !errors.Is(err, ErrClosed) {
		t.Fatalf("write behind the end of data: %v", err)
	}
	return wire.String()
}

// encodesSafely checks INV-03 for content in any pieces, and that all ways to cut it encode alike.
func encodesSafely(t *testing.T, content string) {
	t.Helper()
	whole := encode(t, content)
	if err := isSafe(whole); err != nil {
		t.Fatalf("%q encoded to %q: %v", content, whole, err)
	}
	for i := 0; i <= len(content); i++ {
		if got := encode(t, content[:i], content[i:]); got != whole {
			t.Fatalf("%q cut at %d encoded to %q, uncut to %q", content, i, got, whole)
		}
	}
}

func TestDotWriter(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"", ".\r\n"},
		{"a", "a\r\n.\r\n"},
		{"a\r\n", "a\r\n.\r\n"},
		{".\r\n", "..\r\n.\r\n"},
		{"..a\r\n.b", "...a\r\n..b\r\n.\r\n"},
		{"a.\r\n", "a.\r\n.\r\n"},
		{"a\nb\n.\n", "a\r\nb\r\n..\r\n.\r\n"},
		{"a\rb\r\rc\r\r\n", "a b  c \r\n.\r\n"},
		{"a\r", "a \r\n.\r\n"},
		{"\r", " \r\n.\r\n"},
		{"\r\r\n.\r\r\n", " \r\n.. \r\n.\r\n"},
		{"a\x00b\x00\r\n\x00", "a b \r\n \r\n.\r\n"},
		{"\n\n\n", "\r\n\r\n\r\n.\r\n"},
		{"\r.\r\n", " .\r\n.\r\n"},
	} {
		if got := encode(t, test.in); got != test.want {
			t.Errorf("%q encoded to %q, want %q", test.in, got, test.want)
		}
		encodesSafely(t, test.in)
	}
	for _, row := range smuggling { // SMG-22
		encodesSafely(t, "line"+row.eod+"more")
	}
}

func TestDotWriterKeepsError(t *testing.T) {
	broken := errors.New("broken")
	w := DotWriter{W: writerFunc(func(p []byte) (int, error) { return 0, broken })}
	if _, err := w.Write([]byte("a")); !errors.Is(err, broken) {
		t.Errorf("write: %v", err)
	}
	if err := w.Close(); !errors.Is(err, broken) {
		t.Errorf("close: %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func FuzzDotRoundTrip(f *testing.F) {
	for _, row := range smuggling {
		f.Add([]byte(smuggled(row.eod)), uint16(3), true)
		f.Add([]byte(smuggled(row.eod)), uint16(1), false)
	}
	f.Fuzz(func(t *testing.T, in []byte, size uint16, reject bool) {
		var pieces []string
		for rest := string(in); rest != ""; {
			k := min(int(size)+1, len(rest))
			pieces, rest = append(pieces, rest[:k]), rest[k:]
		}
		check(t, string(in), reject, pieces...)
		if len(in) < 200 {
			encodesSafely(t, string(in))
		}
		d := DotDecoder{Reject: reject}
		out, _, done := decodePieces(&d, pieces...)
		if !done || d.Violation() != nil {
			return
		}
		// What was decoded and encoded again decodes to the same, and ends where it should.
		wire := encode(t, out)
		if err := isSafe(wire); err != nil {
			t.Fatalf("%q encoded to %q: %v", out, wire, err)
		}
		strict := DotDecoder{Reject: true}
		again, n, done := decodePieces(&strict, wire)
		if again != out || n != len(wire) || !done || strict.Violation() != nil {
			t.Fatalf("%q went through the wire as %q and came back as %q (%d of %d, done %v, %v)",
				out, wire, again, n, len(wire), done, strict.Violation())
		}
	})
}

func benchContent(line string) []byte {
	return bytes.Repeat([]byte(line), (64<<10)/len(line))
}

var benchLines = []struct{ name, line string }{
	{"base64", strings.Repeat("QUJD", 19) + "\r\n"},
	{"text40", strings.Repeat("t", 40) + "\r\n"},
	{"dots", ".." + strings.Repeat("t", 40) + "\r\n"},
	{"empty", "\r\n"},
	{"bareLF", strings.Repeat("t", 40) + "\n"},
}

func BenchmarkDotDecoder(b *testing.B) {
	for _, bench := range benchLines {
		b.Run(bench.name, func(b *testing.B) {
			in := benchContent(bench.line)
			out := make([]byte, 0, 3*len(in))
			var d DotDecoder
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				out, _, _ = d.Decode(out[:0], in)
			}
		})
	}
}

func BenchmarkDotWriter(b *testing.B) {
	for _, bench := range benchLines {
		b.Run(bench.name, func(b *testing.B) {
			in := benchContent(bench.line)
			w := DotWriter{W: writerFunc(func(p []byte) (int, error) { return len(p), nil })}
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := w.Write(in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
