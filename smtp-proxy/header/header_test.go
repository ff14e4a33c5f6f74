package header

import (
	"bytes"
	"strings"
	"testing"
	"testing/iotest"
)

func TestSplitHeader(t *testing.T) {
	for _, tt := range []struct {
		in    string
		names string
		body  string // "-" if more is needed
	}{
		{"A: 1\r\nB: 2\r\n\r\nbody", "A B", "body"},
		{"A: 1\nB: 2\n\nbody", "A B", "body"},
		{"A: 1\r\n folded\r\n\tmore\r\nB: 2\r\n\r\n", "A B", ""},
		{"\r\nbody", "", "body"},
		{"no header\r\nbody\r\n", "", "no header\r\nbody\r\n"},
		{"A: 1\r\nno field\r\n", "A", "no field\r\n"},
		{" folded\r\n\r\n", "", " folded\r\n\r\n"},
		{"A : 1\r\n\r\n", "A", ""},
		{": 1\r\n", "", ": 1\r\n"},
		{"A: 1\r\n", "", "-"},
		{"A: 1", "", "-"},
		{"", "", "-"},
	} {
		h, body, more := Split([]byte(tt.in))
		var names []string
		for _, f := range h.fields {
			names = append(names, string(f.raw[:f.name]))
		}
		got := "-"
		if !more {
			got = tt.in[body:]
		}
		if got != tt.body || !more && strings.Join(names, " ") != tt.names {
			t.Errorf("Split(%q): fields %q, body %q; want %q, %q", tt.in, names, got, tt.names, tt.body)
		}
	}
}

// TestEditorPieces has the header come in pieces: what goes on must not depend on them.
func TestEditorPieces(t *testing.T) {
	for _, content := range []string{
		"Subject: x\r\nReceived: a\r\n\tb\r\nTo: y\r\n\r\nbody\r\n..\r\n", "Received: only\r\n\r\n", "no header\r\n", "", "\r\n", "A: 1\r\n", "A: 1\r\nReceived: b\r\n", "A: 1\r\nbody\r\n",
		"From a\r\n>>From b\r\nA: 1\r\n\r\nbody\r\n", " folded\r\n", "Received: a\r\n\tb\r\nbody\r\n", "A: 1", "A: 1\r\nFrom b\r\n", "A\x01: 1\r\n", "From : a\r\n\r\n", "Received : a\r\n\r\n",
	} {
		for _, drop := range []bool{false, true} {
			pass := func(size int) string {
				var out bytes.Buffer
				g := &Editor{Next: &out, Limit: 1000, Hops: 10, Drop: drop}
				if !drop {
					g.Add = []byte("Received: ours")
				}
				r := iotest.OneByteReader(strings.NewReader(content))
				if size > 1 {
					r = strings.NewReader(content)
				}
				buf := make([]byte, size)
				for {
					n, err := r.Read(buf)
					if n > 0 {
						if _, err := g.Write(buf[:n]); err != nil {
							t.Fatal(err)
						}
					}
					if err != nil {
						break
					}
				}
				if err := g.Close(); err != nil {
					t.Fatal(err)
				}
				return out.String()
			}
			whole, bytewise := pass(1<<16), pass(1)
			if strings.TrimRight(whole, "\r\n") != strings.TrimRight(bytewise, "\r\n") {
				t.Errorf("%q (drop %v): whole\n%q, byte by byte\n%q", content, drop, whole, bytewise)
			}
			if drop && strings.Contains(whole, "Received") || !drop && !strings.HasPrefix(whole, "Received: ours\r\n") {
				t.Errorf("%q (drop %v) became %q", content, drop, whole)
			}
		}
	}
}

func TestEditorLimits(t *testing.T) {
	g := &Editor{Next: &bytes.Buffer{}, Limit: 100, Hops: 2}
	var err error
	for range 200 {
		if _, err = g.Write([]byte("A: bcdefgh\r\n")); err != nil {
			break
		}
	}
	if err != ErrTooLong {
		t.Errorf("endless header: %v", err)
	}
	g = &Editor{Next: &bytes.Buffer{}, Limit: 1 << 20, Hops: 2}
	for range 100_000 {
		if _, err = g.Write([]byte("A")); err != nil {
			t.Fatal(err)
		}
	}
	if held := cap(g.line) + cap(g.out); held > 4<<10 {
		t.Errorf("%d bytes held of a line without end", held)
	}
	g = &Editor{Next: &bytes.Buffer{}, Limit: 1000, Hops: 2}
	if _, err := g.Write([]byte("Received: a\r\nreceived: b\r\nRECEIVED : c\r\n\r\n")); err != ErrHops {
		t.Errorf("three hops: %v, want ErrHops", err)
	}
}

func FuzzHeaderEdit(f *testing.F) {
	f.Add("A: 1\r\nB: 2\r\n\r\n", byte(0), "X", "a\nb: c", 1)
	f.Add("Received: a\n\n", byte(3), "Received", "", 1)
	f.Add("A: 1\n b\n\n", byte(1), "A", "\n\n x\r\ry\x00", 0)
	f.Add("", byte(2), "Content-Type", "text/plain;\n x", 1)
	f.Fuzz(func(t *testing.T, text string, edit byte, name, value string, index int) {
		if !isName([]byte(name)) {
			name = "X-Name" // workdir lets no other names through
		}
		split, _, more := Split([]byte(text + "\n\n"))
		if more {
			t.Fatalf("no end of the header in %q", text)
		}
		h := split.With([]byte("Received: ours"))
		before := len(h.fields)
		switch edit % 4 {
		case 0:
			h.Add(name, value)
		case 1:
			h.Insert(name, index, value)
		case 2:
			h.Change(name, index, value)
		case 3:
			h.Remove(name, index)
		}
		if n := len(h.fields) - before; n < -1 || n > 1 {
			t.Errorf("edit %d made %d fields more", edit%4, n)
		}
		out := h.AppendTo(nil)
		again, body, more := Split(out)
		if more || body != len(out) || len(again.fields) != len(h.fields) {
			t.Errorf("%d fields read back as %d, body at %d of %d: %q", len(h.fields), len(again.fields), body, len(out), out)
		}
	})
}

func BenchmarkEditor(b *testing.B) {
	content := []byte(strings.Repeat("Received: from a by b; date\r\n\tmore\r\n", 5) + "Subject: x\r\nFrom: y\r\nTo: z\r\n\r\n" + strings.Repeat("body\r\n", 100))
	b.ReportAllocs()
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		g := &Editor{Next: discard{}, Limit: 1 << 20, Hops: 100, Add: []byte("Received: ours")}
		if _, err := g.Write(content); err != nil {
			b.Fatal(err)
		}
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
