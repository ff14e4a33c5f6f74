package senderauth

import (
	"slices"
	"strings"
	"testing"
)

// TestFields has headers with line ends of all kinds: fields are the same, whole, and nothing behind the header is one.
func TestFields(t *testing.T) {
	for _, tt := range []struct{ content, body, fields, from string }{
		{"", "", "", ""},
		{"From: a\n\nFrom: b\n", "From: b\n", "from= a", "a"},
		{"From: a\r\n\r\nb\r\n", "b\r\n", "from= a", "a"},
		{"From: a", "", "from= a", "a"},
		{"From: a\r", "", "from= a", "a"},
		{"\nFrom: a\n", "From: a\n", "", ""},
		{"From:\n a\r\n\tb\nFROM : c\nFrom\n : d\n\n", "", "from= a\tb|from= c|from= d", "a\tb|c|d"},
		{" From: a\nno field\nX: y\n \nFrom: b\n\n", "", "from= a|x= y |from= b", "a|b"},
		{"From:\n\n", "", "from=", ""},
	} {
		fields, body := split([]byte(tt.content))
		var got []string
		for _, f := range fields {
			got = append(got, f.name+"="+f.value)
			if !strings.HasSuffix(f.raw, "\r\n") || strings.Count(f.raw, "\n") != strings.Count(f.raw, "\r\n") {
				t.Errorf("%q: raw field %q", tt.content, f.raw)
			}
		}
		if all := strings.Join(got, "|"); all != tt.fields || string(body) != tt.body {
			t.Errorf("%q: fields %q, body %q; want %q, %q", tt.content, all, body, tt.fields, tt.body)
		}
		if from := strings.Join(slices.Collect(Values([]byte(tt.content), "from")), "|"); from != tt.from {
			t.Errorf("%q: From %q, want %q", tt.content, from, tt.from)
		}
	}
}

// TestHeadersOfManyFields has a header of any size: what is read of it takes no memory for each field.
func TestHeadersOfManyFields(t *testing.T) {
	content := []byte(strings.Repeat("y:\n", 1<<20) + strings.Repeat("From:\n", 1<<18) + mailOf("ceo@bank.test"))
	n := testing.AllocsPerRun(1, func() {
		if a := authorsOf(Values(content, "From")); !a.tooMany {
			t.Error("all From fields are read")
		}
	})
	if n > 100000 {
		t.Errorf("%.0f pieces of memory", n)
	}
}
