package smtp

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadReply(t *testing.T) {
	for _, test := range []struct {
		name, in string
		want     Reply
	}{
		{"plain", "250 OK\r\n", Reply{250, "", []string{"OK"}}},
		{"enhanced", "550 5.7.1 go away\r\n", Reply{550, "5.7.1", []string{"go away"}}},
		{"code alone", "220\r\n", Reply{220, "", []string{""}}},
		{"enhanced alone", "250 2.0.0\r\n", Reply{250, "2.0.0", []string{""}}},
		{"lines", "250-a\r\n250-b\r\n250 c\r\n", Reply{250, "", []string{"a", "b", "c"}}},
		{"LF alone", "250-a\n250 b\n", Reply{250, "", []string{"a", "b"}}},
		{"enhanced lines", "550-5.1.1 a\r\n550 5.1.1 b\r\n", Reply{550, "5.1.1", []string{"a", "b"}}},
		{"enhanced codes differ", "550-5.1.1 a\r\n550 5.1.2 b\r\n", Reply{550, "", []string{"5.1.1 a", "5.1.2 b"}}},
		{"enhanced of the wrong class", "250 5.1.1 a\r\n", Reply{250, "", []string{"5.1.1 a"}}},
		{"no enhanced code", "250 2.0 a\r\n", Reply{250, "", []string{"2.0 a"}}},
		{"a version is no enhanced code", "220 2.0.0.1 a\r\n", Reply{220, "", []string{"2.0.0.1 a"}}},
		{"control bytes", "250 a\x00b\x1b[2Jc\rd\x7fe\tf\r\n", Reply{250, "", []string{"a?b?[2Jc?d?e\tf"}}},
		{"C1 and bytes that are no UTF-8", "250 a\u009bb\xffc\u00fc\r\n", Reply{250, "", []string{"a?b?cü"}}},
		{"intermediate", "354 go on\r\n", Reply{354, "", []string{"go on"}}},
		{"256 lines", strings.Repeat("250-x\r\n", 255) + "250 x\r\n", Reply{250, "", strings.Split(strings.Repeat("x ", 255)+"x", " ")}},
		{"a long line", "250 " + strings.Repeat("x", 60000) + "\r\n", Reply{250, "", []string{strings.Repeat("x", 60000)}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, size := range []int{16, 512, 4096} {
				b := bufio.NewReaderSize(iotest(test.in+"250 next\r\n"), size)
				got, err := ReadReply(b)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("reply (-want +got):\n%s", diff)
				}
				if next, err := ReadReply(b); err != nil || next.Text() != "next" {
					t.Errorf("reply behind it: %v, %v", next, err)
				}
			}
		})
	}
}

// iotest gives a reader that returns a byte at a time.
func iotest(s string) io.Reader { return &oneByte{s} }

type oneByte struct{ rest string }

func (o *oneByte) Read(p []byte) (int, error) {
	if o.rest == "" {
		return 0, io.EOF
	}
	n := copy(p[:1], o.rest)
	o.rest = o.rest[n:]
	return n, nil
}

// CMD-26: what is no reply is an error, and never takes more memory than the limits say.
func TestReadReplyMalformed(t *testing.T) {
	for _, test := range []struct {
		name, in string
		want     error
	}{
		{"mixed codes", "250-a\r\n550 b\r\n", ErrReplySyntax},
		{"no code", "hello\r\n", ErrReplySyntax},
		{"empty line", "\r\n", ErrReplySyntax},
		{"code 999", "999 a\r\n", ErrReplySyntax},
		{"code 150", "150 a\r\n", ErrReplySyntax},
		{"code 600", "600 a\r\n", ErrReplySyntax},
		{"two digits", "25 a\r\n", ErrReplySyntax},
		{"four digits", "2500 a\r\n", ErrReplySyntax},
		{"no separator", "250OK\r\n", ErrReplySyntax},
		{"letters", "2x0 a\r\n", ErrReplySyntax},
		{"257 lines", strings.Repeat("250-x\r\n", 256) + "250 x\r\n", ErrReplySyntax},
		{"10000 lines", strings.Repeat("250-x\r\n", 10000), ErrReplySyntax},
		{"a line of 1 MiB", "250 " + strings.Repeat("x", 1<<20) + "\r\n", ErrReplySyntax},
		{"more than 64 KiB", strings.Repeat("250-"+strings.Repeat("x", 400)+"\r\n", 200), ErrReplySyntax},
		{"HTTP", "HTTP/1.1 400 Bad Request\r\n", ErrReplySyntax},
		{"nothing", "", io.EOF},
		{"half a line", "250 O", io.ErrUnexpectedEOF},
		{"half a reply", "250-a\r\n", io.ErrUnexpectedEOF},
	} {
		t.Run(test.name, func(t *testing.T) {
			src := strings.NewReader(test.in)
			got, err := ReadReply(bufio.NewReaderSize(src, 4096))
			if !errors.Is(err, test.want) {
				t.Errorf("got %v, %v; want %v", got, err, test.want)
			}
			if read := len(test.in) - src.Len(); read > maxReplyBytes+8192 {
				t.Errorf("%d bytes were read", read)
			}
		})
	}
}

func TestReplyAppendTo(t *testing.T) {
	for _, test := range []struct {
		name string
		in   Reply
		want string
	}{
		{"plain", NewReply(250, "2.0.0", "OK"), "250 2.0.0 OK\r\n"},
		{"no enhanced code", NewReply(220, "", "host ESMTP"), "220 host ESMTP\r\n"},
		{"lines", Reply{250, "", []string{"host", "PIPELINING", "SIZE"}}, "250-host\r\n250-PIPELINING\r\n250 SIZE\r\n"},
		{"enhanced lines", Reply{550, "5.7.1", []string{"a", "b"}}, "550-5.7.1 a\r\n550 5.7.1 b\r\n"},
		{"no text", Reply{Code: 250}, "250 \r\n"},
		{"no line end gets through", NewReply(550, "5.0.0", "a\r\n250 2.0.0 OK\x00\x1b"), "550 5.0.0 a??250 2.0.0 OK??\r\n"},
		{"UTF-8", NewReply(550, "5.0.0", "für\xff\u0085"), "550 5.0.0 für??\r\n"},
		{"no code", NewReply(0, "", "a"), "451 a\r\n"},
		{"no such enhanced code", NewReply(550, "5.0\r\n", "a"), "550 a\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := string(test.in.AppendTo([]byte("x"))); got != "x"+test.want {
				t.Errorf("got %q, want %q", got, "x"+test.want)
			}
		})
	}
}

func TestReplyFolds(t *testing.T) {
	for _, text := range []string{
		strings.Repeat("word ", 500),
		strings.Repeat("x", 3000),
		strings.Repeat("ü", 1500),
		strings.Repeat("€", 1500) + " " + strings.Repeat("\xff", 1000),
		strings.Repeat("x", 506) + " y", strings.Repeat("x", 505) + " y", strings.Repeat("x", 500),
	} {
		wire := NewReply(554, "5.7.1", text).AppendTo(nil)
		for line := range strings.Lines(string(wire)) {
			if len(line) > MaxReplyLine {
				t.Errorf("line of %d bytes", len(line))
			}
		}
		got, err := ReadReply(bufio.NewReader(bytes.NewReader(wire)))
		if err != nil {
			t.Fatalf("%q: %v", wire, err)
		}
		bare := func(s string) string { return strings.ReplaceAll(s, " ", "") }
		if want := bare(string(appendClean(nil, text))); bare(strings.Join(got.Lines, "")) != want {
			t.Errorf("text %.40q... came back as %q", text, got.Lines)
		}
	}
}

func TestReplyErr(t *testing.T) {
	for code, bad := range map[int]bool{220: false, 250: false, 354: false, 421: true, 550: true} {
		err := NewReply(code, "", "x").Err()
		var reply *ReplyError
		if (err != nil) != bad || bad && (!errors.As(err, &reply) || reply.Reply.Code != code) {
			t.Errorf("%d: %v", code, err)
		}
	}
}

func FuzzReadReply(f *testing.F) {
	f.Add([]byte("250-a\r\n250-2.0.0 b\r\n250 c\r\n"))
	f.Add([]byte("550-5.7.1 a\r\n550 5.7.1 \xc3\xbc\x00\r\n220 \r\n"))
	f.Add([]byte("250 5.7.1 a\n354\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		b := bufio.NewReaderSize(bytes.NewReader(in), 64)
		for {
			r, err := ReadReply(b)
			if err != nil {
				return
			}
			if r.Code < 200 || r.Code > 599 || len(r.Lines) == 0 || len(r.Lines) > maxReplyLines {
				t.Fatalf("%q gave %#v", in, r)
			}
			wire := r.AppendTo(nil)
			for line := range strings.Lines(string(wire)) {
				if len(line) > MaxReplyLine || strings.Trim(line[:len(line)-2], "\r\n\x00\x1b") != line[:len(line)-2] {
					t.Fatalf("%#v is written as %q", r, wire)
				}
			}
			again, err := ReadReply(bufio.NewReader(bytes.NewReader(wire)))
			if err != nil {
				if len(r.Lines)*2 < maxReplyLines && len(wire) < maxReplyBytes {
					t.Fatalf("%#v is written as %q, which reads as %v", r, wire, err)
				}
				continue
			}
			if again.Code != r.Code {
				t.Fatalf("%#v is written as %q and comes back as %#v", r, wire, again)
			}
			if again.Enhanced == r.Enhanced && len(wire) < MaxReplyLine {
				if diff := cmp.Diff(r, again); diff != "" {
					t.Fatalf("(-read +read again):\n%s", diff)
				}
			}
		}
	})
}

func BenchmarkReadReply(b *testing.B) {
	wire := bytes.Repeat([]byte("250 2.1.0 Ok\r\n"), 300)
	src := bytes.NewReader(wire)
	r := bufio.NewReader(src)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ReadReply(r); err != nil {
			src.Reset(wire)
			r.Reset(src)
		}
	}
}

func BenchmarkReplyAppendTo(b *testing.B) {
	reply := NewReply(250, "2.1.0", "Ok")
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out = reply.AppendTo(out[:0])
	}
}
