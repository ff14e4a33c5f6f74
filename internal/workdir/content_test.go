package workdir

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// files are what Content left behind; Commands without the F line.
type files struct{ Input, Headers, Commands string }

func filesOf(t *testing.T, d *Dir) files {
	t.Helper()
	f := files{read(t, filepath.Join(d.Path(), fileInput)), read(t, filepath.Join(d.Path(), fileHeaders)),
		read(t, filepath.Join(d.Path(), fileCommands))}
	cut, ok := strings.CutSuffix(f.Commands, "F\n")
	if !ok {
		t.Errorf("COMMANDS %q does not end with F", f.Commands)
	}
	f.Commands = cut
	return f
}

// text is a word of n bytes.
func text(n int) string { return strings.Repeat("x", n) }

func TestContent(t *testing.T) {
	long := strings.Repeat("n", maxFieldName+10)
	tests := []struct {
		name, message string
		want          files
	}{
		{"plain", "Subject: hi\r\n\r\nbody\r\n", files{"Subject: hi\n\nbody\n", "Subject: hi\n", "Uhi\n"}},
		{"folded", "To: a,\r\n b\r\nX: a\r\n\tb\r\n\r\n", files{"To: a,\n b\nX: a\n\tb\n\n", "To: a, b\nX: a\tb\n", ""}},
		{"as it came", "A:b\r\nC:\td\r\nG:\r\nH:  two\r\nI: three  \r\nJ: \x1b$B\r\n\r\n",
			files{"A:b\nC:\td\nG:\nH:  two\nI: three  \nJ: \x1b$B\n\n", "A: b\nC: \td\nG: \nH:  two\nI: three  \nJ: \x1b$B\n", ""}},
		{"white space before the colon", "E :f\r\nG\t : g\r\nContent-Disposition : h\r\nSubject : i\r\n\r\n",
			files{"E:f\nG: g\nContent-Disposition: h\nSubject: i\n\n", "E: f\nG: g\nContent-Disposition: h\nSubject: i\n", "Ui\n"}},
		{"fold of white space", "A: b\r\n \r\n\t \r\n c\r\nD: e\r\n \r\nF:\r\n \r\n g\r\n \r\n\r\nbody\r\n",
			files{"A: b\n c\nD: e\nF:\n g\n\nbody\n", "A: b c\nD: e\nF:  g\n", ""}},
		{"control bytes", "A:\x0bb\r\nContent-Type:\x0btext/html\x0c;\x01\r\n \x1fcharset=\x7f\r\n\x0b: c\r\n\r\n",
			files{"A:\x0bb\nContent-Type: text/html ; \n  charset= \n\n\x0b: c\n\n", "A: \x0bb\nContent-Type: text/html ;   charset= \n", ""}},
		{"value begins on the next line", "A:\r\n b\r\n\r\n", files{"A:\n b\n\n", "A:  b\n", ""}},
		{"no body", "A: b\r\n\r\n", files{"A: b\n\n", "A: b\n", ""}},
		{"no empty line", "A: b\r\n", files{"A: b\n\n", "A: b\n", ""}},
		{"empty message", "", files{"\n", "", ""}},
		{"only an empty line", "\r\n", files{"\n", "", ""}},
		{"no header", "\r\nbody\r\n", files{"\nbody\n", "", ""}},
		{"no header, no empty line", "hello there\r\nA: b\r\n", files{"\nhello there\nA: b\n", "", ""}},
		{"no colon in the middle", "A: b\r\nrubbish\r\nC: d\r\n\r\nbody\r\n", files{"A: b\n\nrubbish\nC: d\n\nbody\n", "A: b\n", ""}},
		{"no colon at the end", "A: b\r\nrubbish", files{"A: b\n\nrubbish", "A: b\n", ""}},
		{"colon first", ": x\r\n", files{"\n: x\n", "", ""}},
		{"fold first", " x: y\r\nA: b\r\n", files{"\n x: y\nA: b\n", "", ""}},
		{"name with a space", "A b: c\r\n", files{"\nA b: c\n", "", ""}},
		{"8-bit name", "A\xe9: c\r\n", files{"\nA\xe9: c\n", "", ""}},
		{"endless name", long + ": c\r\n", files{"\n" + long + ": c\n", "", ""}},
		{"mailbox line", "From a@b Sat Jan  1\r\nA: b\r\n\r\n",
			files{"X-Mailbox-Line: From a@b Sat Jan  1\nA: b\n\n", "X-Mailbox-Line: From a@b Sat Jan  1\nA: b\n", ""}},
		{"quoted mailbox line", ">From a\r\n\r\n", files{"X-Mailbox-Line: >From a\n\n", "X-Mailbox-Line: >From a\n", ""}},
		{"mailbox line later", "A: b\r\nFrom a\r\n\r\n", files{"A: b\n\nFrom a\n\n", "A: b\n", ""}},
		{"mailbox lines", "From a\r\n>>From b\r\nA: b\r\n\r\n", files{"X-Mailbox-Line: From a\nX-Mailbox-Line: >>From b\nA: b\n\n",
			"X-Mailbox-Line: From a\nX-Mailbox-Line: >>From b\nA: b\n", ""}},
		{"From with a space", "From : a@b\r\n\r\n", files{"From: a@b\n\n", "From: a@b\n", ""}},
		{"content types", "Content-Type: a\r\nA: b\r\ncontent-type: c\r\n folded\r\nCONTENT-TYPE : d\r\nE: f\r\n\r\n",
			files{"Content-Type: a\nA: b\nE: f\n\n", "Content-Type: a\nA: b\nE: f\n", ""}},
		{"other fields that count once", "Content-Transfer-Encoding : 7bit\r\nContent-Disposition: a\r\n" +
			"content-transfer-encoding: base64\r\nContent-disposition: b\r\nContent-X: a\r\nContent-X: b\r\n\r\n",
			files{"Content-Transfer-Encoding: 7bit\nContent-Disposition: a\nContent-X: a\nContent-X: b\n\n",
				"Content-Transfer-Encoding: 7bit\nContent-Disposition: a\nContent-X: a\nContent-X: b\n", ""}},
		{"long line", "A: " + text(900) + " " + text(200) + "\r\n\r\n",
			files{"A: " + text(900) + "\n " + text(200) + "\n\n", "A: " + text(900) + " " + text(200) + "\n", ""}},
		{"long line without white space", "Content-Type:" + text(3000) + "\r\n\r\n",
			files{"Content-Type:" + text(985) + "\n " + text(997) + "\n " + text(997) + "\n " + text(21) + "\n\n",
				"Content-Type: " + text(985) + " " + text(997) + " " + text(997) + " " + text(21) + "\n", ""}},
		{"long line of umlauts", "A: x" + strings.Repeat("\u00e4", 600) + "\r\n\r\n",
			files{"A: x" + strings.Repeat("\u00e4", 497) + "\n " + strings.Repeat("\u00e4", 103) + "\n\n",
				"A: x" + strings.Repeat("\u00e4", 497) + " " + strings.Repeat("\u00e4", 103) + "\n", ""}},
		{"long white space", "A:" + strings.Repeat(" ", 2000) + "b" + strings.Repeat("\t", 2000) + "\r\n" + strings.Repeat(" ", 2000) + "c\r\n\r\n",
			files{"A:" + strings.Repeat(" ", 545) + "b" + strings.Repeat("\t", 450) + "\n" + strings.Repeat(" ", 539) + "c\n\n",
				"A: " + strings.Repeat(" ", 544) + "b" + strings.Repeat("\t", 450) + strings.Repeat(" ", 539) + "c\n", ""}},
		{"subjects", "subject: a\r\nMESSAGE-ID: <x y>\r\nSubject: b\r\n\tc\r\n\r\n",
			files{"subject: a\nMESSAGE-ID: <x y>\nSubject: b\n\tc\n\n", "subject: a\nMESSAGE-ID: <x y>\nSubject: b\tc\n",
				"Ua\nX<x%20y>\nUb%09c\n"}},
		{"bare CR in a value", "A: b\r\nSubject: a\rb\r\n\r\n", files{"A: b\nSubject: a b\n\n", "A: b\nSubject: a b\n", "!\nUa%20b\n"}},
		{"bare LF", "A: b\nC: d\n\nbody\n", files{"A: b\nC: d\n\nbody\n", "A: b\nC: d\n", ""}},
		{"bare CR in the body", "A: b\r\n\r\na\rb\r\r\n", files{"A: b\n\na\rb\r\n", "A: b\n", "?\n"}},
		{"CR at the very end", "A: b\r\n\r\na\r", files{"A: b\n\na\r", "A: b\n", "?\n"}},
		{"NUL in a value", "A: b\x00c\r\n\r\n", files{"A: b\x00c\n\n", "A: b\x00c\n", "!\n"}},
		{"NUL in the body", "A: b\r\n\r\n\x00\r\n", files{"A: b\n\n\x00\n", "A: b\n", "?\n"}},
		{"dots", "A: b\r\n\r\n.\r\n..\r\n", files{"A: b\n\n.\n..\n", "A: b\n", ""}},
		{"injection", "Subject: x%0AF\r\n\r\n", files{"Subject: x%0AF\n\n", "Subject: x%0AF\n", "Ux%250AF\n"}},
	}
	s := newSpool(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, size := range []int{0, 1, 2, 3, 7} {
				if got := filesOf(t, finish(t, s, tt.message, size)); got != tt.want {
					t.Errorf("%q in pieces of %d\n got %q\nwant %q", tt.message, size, got, tt.want)
				}
			}
		})
	}
}

// TestContentEverySplit writes one message in two pieces, split at every position.
func TestContentEverySplit(t *testing.T) {
	s := newSpool(t)
	message := []byte(read(t, "testdata/message.eml") + "\r\n.\r\n\x00\r\r\n")
	want := filesOf(t, finish(t, s, string(message), 0))
	for i := range message {
		d := newDir(t, s)
		c, err := d.Content()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range [][]byte{message[:i], message[i:]} {
			if _, err := c.Write(p); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.Finish(); err != nil {
			t.Fatal(err)
		}
		if got := filesOf(t, d); got != want {
			t.Fatalf("split at %d\n got %q\nwant %q", i, got, want)
		}
		_ = d.Remove()
	}
}

func TestContentBig(t *testing.T) {
	line := strings.Repeat("x", 75) + "\r\n"
	body := strings.Repeat(line, 20000) + strings.Repeat("y", 300000) + "\r\n"
	s := newSpool(t)
	for _, size := range []int{0, 1000, pieceSize - 1, pieceSize, pieceSize + 1} {
		d := finish(t, s, "A: b\r\n\r\n"+body, size)
		got := read(t, filepath.Join(d.Path(), fileInput))
		if want := "A: b\n\n" + strings.ReplaceAll(body, "\r\n", "\n"); got != want {
			t.Errorf("pieces of %d: %d bytes, want %d, equal up to there: %v", size, len(got), len(want), strings.HasPrefix(want, got))
		}
		if d.Size() != int64(len(got)) {
			t.Errorf("Size %d, want %d", d.Size(), len(got))
		}
	}
}

func TestHeaderLimits(t *testing.T) {
	tests := []struct {
		name, message string
		fails         bool
	}{
		{"many fields", strings.Repeat("A: b\r\n", 101), true},
		{"as many as may be", strings.Repeat("A: b\r\n", 100) + "\r\n", false},
		{"long MIME field", "Content-ID: a\r\n" + strings.Repeat(" "+text(70)+"\r\n", 1000), true},
		{"one long field", "A: " + strings.Repeat("x", 5000) + "\r\n", true},
		{"big body", "A: b\r\n\r\n" + strings.Repeat("x", 5000), false},
		{"many folds", "A: b\r\n" + strings.Repeat(" c\r\n", 2000), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, size := range []int{1, 10000} {
				s := newSpool(t)
				s.MaxHeader, s.MaxFields = 4096, 100
				d := newDir(t, s)
				c, err := d.Content()
				if err != nil {
					t.Fatal(err)
				}
				p := []byte(tt.message)
				for len(p) > 0 && err == nil {
					n := min(size, len(p))
					_, err = c.Write(p[:n])
					p = p[n:]
				}
				if errors.Is(err, ErrHeader) != tt.fails {
					t.Errorf("pieces of %d: %v, want failure %v", size, err, tt.fails)
				}
				if e := d.Finish(); (e != nil) != tt.fails {
					t.Errorf("finish: %v, want failure %v", e, tt.fails)
				}
			}
		})
	}
}

func TestLongSubjectIsCut(t *testing.T) {
	d := finish(t, newSpool(t), "Subject: "+strings.Repeat("x", 3*maxCommandText)+"\r\n\r\n", 100)
	if got := strings.ReplaceAll(filesOf(t, d).Commands, "%20", " "); len(got) != maxCommandText+2 {
		t.Errorf("U line of %d bytes, want %d", len(got), maxCommandText+2)
	}
	if got := strings.ReplaceAll(filesOf(t, d).Headers, " ", ""); len(got) != 3*maxCommandText+len("Subject:\n") {
		t.Errorf("HEADERS of %d bytes", len(got))
	}
}

// fieldLine is the first line of a field in normal form.
var fieldLine = regexp.MustCompile(`^[!-9;-~]{1,256}:`)

// checkNormal says what is not in normal form in a message with LF line ends.
func checkNormal(input, headers string) error {
	var unfolded strings.Builder
	for line := range strings.Lines(input) {
		line = strings.TrimSuffix(line, "\n")
		name := fieldLine.FindString(line)
		switch {
		case line == "":
			if got := strings.TrimPrefix(unfolded.String()+"\n", "\n"); got != headers {
				return fmt.Errorf("HEADERS %q, unfolded INPUTMSG %q", headers, got)
			}
			return nil
		case len(line) > maxHeaderLine:
			return fmt.Errorf("line of %d bytes", len(line))
		case name != "":
			unfolded.WriteString("\n" + name + " " + strings.TrimPrefix(line[len(name):], " "))
		case strings.IndexAny(line, white) != 0 || strings.Trim(line, white) == "" || unfolded.Len() == 0:
			return fmt.Errorf("line %q in the header", line)
		default:
			unfolded.WriteString(line)
		}
	}
	return errors.New("header does not end")
}

// visible is what is left of a text without white space and control bytes.
func visible(s string) string {
	return string(slices.DeleteFunc([]byte(s), func(b byte) bool { return b <= ' ' || b == 0x7f }))
}

func FuzzContent(f *testing.F) {
	f.Add([]byte("Subject: a\r\n b\r\n\r\nbody\r\n"), uint8(3))
	f.Add([]byte("Content-Type: a\r\nContent-Type: b\r\n\r\n"), uint8(1))
	f.Add([]byte("From x\r\nno\r\n"), uint8(5))
	f.Add([]byte("a : b\rc\r\n\x00\r\n"), uint8(2))
	f.Add([]byte("Content-Type\t: "+strings.Repeat("b ", 1000)+"\r\n \r\n c\r\n\xef: d\r\n"), uint8(9))
	s := &Spool{Dir: f.TempDir(), Insecure: true}
	f.Fuzz(func(t *testing.T, message []byte, size uint8) {
		if len(message) > 4096 {
			return // a file for each run is slow enough
		}
		whole := filesOf(t, finish(t, s, string(message), 0))
		if got := filesOf(t, finish(t, s, string(message), int(size))); got != whole {
			t.Errorf("%q in pieces of %d\n got %q\nwant %q", message, size, got, whole)
		}
		if err := checkNormal(whole.Input, whole.Headers); err != nil {
			t.Errorf("%q became %q: %v", message, whole.Input, err)
		}
		if bytes.ContainsAny(bytes.ReplaceAll(message, []byte("\r\n"), nil), "\r\n\x00") {
			return // not to be had from SMTP
		}
		if got := filesOf(t, finish(t, s, strings.ReplaceAll(whole.Input, "\n", "\r\n"), 0)); got.Input != whole.Input || got.Headers != whole.Headers {
			t.Errorf("%q became %q, and that became %q", message, whole.Input, got.Input)
		}
		lower := bytes.ToLower(message)
		if !bytes.Contains(lower, []byte("content-")) && !bytes.Contains(message, []byte("From ")) && visible(whole.Input) != visible(string(message)) {
			t.Errorf("%q lost text: %q", message, whole.Input)
		}
	})
}

func BenchmarkContent(b *testing.B) {
	message := []byte("Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 76)+"\r\n", 12000))
	dir := b.TempDir()
	s := &Spool{Dir: dir, Insecure: true}
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	for b.Loop() {
		d, err := s.Create("a")
		if err != nil {
			b.Fatal(err)
		}
		c, err := d.Content()
		if err != nil {
			b.Fatal(err)
		}
		for p := message; len(p) > 0; {
			n := min(pieceSize, len(p))
			if _, err := c.Write(p[:n]); err != nil {
				b.Fatal(err)
			}
			p = p[n:]
		}
		if err := d.Finish(); err != nil {
			b.Fatal(err)
		}
		if err := d.Remove(); err != nil {
			b.Fatal(err)
		}
	}
}
