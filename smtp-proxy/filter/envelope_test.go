package filter

import (
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	for _, tt := range []struct {
		in, want string
		more     bool
	}{
		{"a@b.test", "a@b.test", false},
		{" < a@b.test > ", "a@b.test", false},
		{"<>", "", false},
		{"Bob <x@r.test>", "x@r.test", false},
		{`"Bob, B. <y@r.test>" <x@r.test>`, "x@r.test", false},
		{"x@r.test (Bob)", "x@r.test", false},
		{"(Bob (the \\) builder)) <x@r.test> (again)", "x@r.test", false},
		{"x@r.test, y@r.test", "x@r.test", true},
		{"<x@r.test>; Y <y@r.test>", "x@r.test", true},
		{", x@r.test", "x@r.test", false},
		{"a..b@r.test", "a..b@r.test", false},
		{"a..b@", "a..b@", false},
		{".a.@r.test", ".a.@r.test", false},
		{"nobody", "nobody", false},
		{"<@one.test,@two.test:x@r.test>", "x@r.test", false},
		{"j\u00fcrgen@b\u00fccher.test", "j\u00fcrgen@b\u00fccher.test", false},
		{`"a b"@r.test`, `"a b"@r.test`, false},
		{`"a\"b"@r.test`, `"a\"b"@r.test`, false},
		{"a b", "-", false},
		{"a b@r.test", "-", false},
		{"<a@b.test", "-", false},
		{"<a@b.test> RCPT TO:<x@y>", "-", false},
		{`"a@b.test`, "-", false},
		{"(a@b.test", "-", false},
		{"<@one.test:>", "-", false},
		{"a\xe4@r.test", "-", false},
		{strings.Repeat("a", 300) + "@r.test", "-", false},
	} {
		path, more, err := parseAddress(tt.in)
		got := path.Address
		if err != nil {
			got = "-"
		}
		if got != tt.want || err == nil && more != tt.more {
			t.Errorf("%q is %q, more %v, %v; want %q, %v", tt.in, got, more, err, tt.want, tt.more)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"a@b", `"Bob, B." <x@r.test> (c), <y@z>`, `"a\"b c"@d`, "<@a:b@c>", "a..b@", "\u00fc@\u00fc"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		path, _, err := parseAddress(s)
		if err != nil {
			return
		}
		if strings.ContainsAny(path.Address, "<>\r\n\x00") || strings.Count(path.Address, `"`)%2 == 0 && !strings.ContainsAny(path.Address, `"`) && strings.Contains(path.Address, " ") {
			t.Errorf("%q became %q", s, path.Address)
		}
		again, _, err := parseAddress(path.String())
		if err != nil || again != path && !strings.HasPrefix(path.Address, "@") {
			t.Errorf("%q became %q, and that %q, %v", s, path.Address, again.Address, err)
		}
	})
}
