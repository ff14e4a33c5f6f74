package main

import (
	"bytes"
	"strings"
	"testing"
	"testing/iotest"

	"postern/internal/workdir"
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
		h, body, more := splitHeader([]byte(tt.in))
		var names []string
		for _, f := range h.fields {
			names = append(names, string(f.raw[:f.name]))
		}
		got := "-"
		if !more {
			got = tt.in[body:]
		}
		if got != tt.body || !more && strings.Join(names, " ") != tt.names {
			t.Errorf("splitHeader(%q): fields %q, body %q; want %q, %q", tt.in, names, got, tt.names, tt.body)
		}
	}
}

// TestHeaderGatePieces has the header come in pieces: what goes on must not depend on them.
func TestHeaderGatePieces(t *testing.T) {
	for _, content := range []string{
		"Subject: x\r\nReceived: a\r\n\tb\r\nTo: y\r\n\r\nbody\r\n..\r\n", "Received: only\r\n\r\n", "no header\r\n", "", "\r\n", "A: 1\r\n", "A: 1\r\nReceived: b\r\n", "A: 1\r\nbody\r\n",
		"From a\r\n>>From b\r\nA: 1\r\n\r\nbody\r\n", " folded\r\n", "Received: a\r\n\tb\r\nbody\r\n", "A: 1", "A: 1\r\nFrom b\r\n", "A\x01: 1\r\n", "From : a\r\n\r\n", "Received : a\r\n\r\n",
	} {
		for _, drop := range []bool{false, true} {
			pass := func(size int) string {
				var out bytes.Buffer
				g := &headerGate{next: &out, limit: 1000, hops: 10, drop: drop}
				if !drop {
					g.add = []byte("Received: ours")
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

func TestHeaderGateLimits(t *testing.T) {
	g := &headerGate{next: &bytes.Buffer{}, limit: 100, hops: 2}
	var err error
	for range 200 {
		if _, err = g.Write([]byte("A: bcdefgh\r\n")); err != nil {
			break
		}
	}
	if err != errHeaderTooLong {
		t.Errorf("endless header: %v", err)
	}
	g = &headerGate{next: &bytes.Buffer{}, limit: 1 << 20, hops: 2}
	for range 100_000 {
		if _, err = g.Write([]byte("A")); err != nil {
			t.Fatal(err)
		}
	}
	if held := cap(g.line) + cap(g.out); held > 4<<10 {
		t.Errorf("%d bytes held of a line without end", held)
	}
	g = &headerGate{next: &bytes.Buffer{}, limit: 1000, hops: 2}
	if _, err := g.Write([]byte("Received: a\r\nreceived: b\r\nRECEIVED : c\r\n\r\n")); err != errHops {
		t.Errorf("three hops: %v, want errHops", err)
	}
}

func FuzzHeaderEdit(f *testing.F) {
	f.Add("A: 1\r\nB: 2\r\n\r\n", byte('H'), "X", "a\nb: c", 1)
	f.Add("Received: a\n\n", byte('J'), "Received", "", 1)
	f.Add("A: 1\n b\n\n", byte('N'), "A", "\n\n x\r\ry\x00", 0)
	f.Add("", byte('M'), "", "text/plain;\n x", 0)
	f.Fuzz(func(t *testing.T, text string, letter byte, name, value string, index int) {
		if !isFieldName([]byte(name)) {
			name = "X-Name" // workdir lets no other names through
		}
		h, _, more := splitHeader([]byte(text + "\n\n"))
		if more {
			t.Fatalf("no end of the header in %q", text)
		}
		h.fields = append([]field{{name: len("Received"), raw: []byte("Received: ours"), ours: true}}, h.fields...)
		before := len(h.fields)
		h.apply(workdir.Change{Letter: letter, Name: name, Value: value, Index: index})
		if n := len(h.fields) - before; n < -1 || n > 2 {
			t.Errorf("%c made %d fields more", letter, n)
		}
		out := h.appendTo(nil)
		again, body, more := splitHeader(out)
		if more || body != len(out) || len(again.fields) != len(h.fields) {
			t.Errorf("%d fields read back as %d, body at %d of %d: %q", len(h.fields), len(again.fields), body, len(out), out)
		}
	})
}

func FuzzXClient(f *testing.F) {
	f.Add("ADDR=192.0.2.1 PORT=25 NAME=a.example HELO=b LOGIN=c PROTO=ESMTP")
	f.Add("ADDR=IPV6:2001:db8::1 NAME=[UNAVAILABLE]")
	f.Add("NAME=a+0D+0A")
	f.Fuzz(func(t *testing.T, arg string) {
		var x xclient
		if x.parse(arg) != nil {
			return
		}
		if strings.ContainsAny(x.name+x.login, "\r\n\x00") || x.addr.Is4In6() || x.addr.Zone() != "" {
			t.Errorf("%q gives %+v", arg, x)
		}
	})
}

func BenchmarkHeaderGate(b *testing.B) {
	content := []byte(strings.Repeat("Received: from a by b; date\r\n\tmore\r\n", 5) + "Subject: x\r\nFrom: y\r\nTo: z\r\n\r\n" + strings.Repeat("body\r\n", 100))
	b.ReportAllocs()
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		g := &headerGate{next: discard{}, limit: 1 << 20, hops: 100, add: []byte("Received: ours")}
		if _, err := g.Write(content); err != nil {
			b.Fatal(err)
		}
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
