package smtp

import (
	"strings"
	"testing"
)

func TestParsePath(t *testing.T) {
	long := strings.Repeat("a", 2000)
	for _, tt := range []struct {
		in               string
		strict, rfc, off string // the address, or "!" for an error
		rest             string
	}{
		{"<a@b>", "a@b", "a@b", "a@b", ""},
		{"<>", "", "", "", ""},
		{"<a@b> SIZE=1", "a@b", "a@b", "a@b", "SIZE=1"},
		{"<a.b+c@d.example>", "a.b+c@d.example", "a.b+c@d.example", "a.b+c@d.example", ""},
		{`<"a b"@c>`, `"a b"@c`, `"a b"@c`, `"a b"@c`, ""},
		{`<"a>b"@c>`, `"a>b"@c`, `"a>b"@c`, `"a>b"@c`, ""},
		{`<"a\"b"@c>`, `"a\"b"@c`, `"a\"b"@c`, `"a\"b"@c`, ""},
		{"<a%b@c>", "!", "a%b@c", "a%b@c", ""},
		{"<a!b@c>", "!", "a!b@c", "a!b@c", ""},
		{"<a@[192.0.2.1]>", "a@[192.0.2.1]", "a@[192.0.2.1]", "a@[192.0.2.1]", ""},
		{"<a@[IPv6:2001:db8::1]>", "!", "a@[IPv6:2001:db8::1]", "a@[IPv6:2001:db8::1]", ""},
		{"<a@[IPv6:x]>", "!", "!", "a@[IPv6:x]", ""},
		{"<a@[1.2.3]>", "a@[1.2.3]", "!", "a@[1.2.3]", ""},
		{"<@a,@b:c@d>", "!", "!", "c@d", ""},
		{"<a@b@c>", "!", "!", "!", ""},
		{"<a@>", "!", "!", "!", ""},
		{"<@b>", "!", "!", "!", ""},
		{"<@b:>", "!", "!", "!", ""},
		{"<a b@c>", "!", "!", "!", ""},
		{"<a..b@c>", "!", "!", "a..b@c", ""},
		{"<.a@c>", "!", "!", ".a@c", ""},
		{"<a@b", "!", "!", "!", ""},
		{`<"a@b>`, "!", "!", "!", ""},
		{"a@b", "!", "!", "a@b", ""},
		{"a@b X=1", "!", "!", "a@b", "X=1"},
		{"<a@b>X=1", "!", "!", "!", ""},
		{"<postmaster>", "!", "postmaster", "postmaster", ""},
		{"<somebody>", "!", "!", "somebody", ""},
		{"<a@-b>", "a@-b", "!", "a@-b", ""},
		{"<a@b..c>", "a@b..c", "!", "a@b..c", ""},
		{"<a:b@c>", "!", "!", "!", ""},
		{"<" + long + "@b>", "!", "!", "!", ""},
		{"<gr\xc3\xbcn@b>", "grün@b", "grün@b", "grün@b", ""},
		{"<gr\xfcn@b>", "!", "!", "!", ""},
		{"", "!", "!", "!", ""},
	} {
		for check, want := range map[AddressCheck]string{CheckStrict: tt.strict, CheckRFC: tt.rfc, CheckOff: tt.off} {
			p, rest, err := ParsePath(tt.in, check)
			got := p.Address
			if err != nil {
				got = "!"
			}
			if got != want || err == nil && rest != tt.rest {
				t.Errorf("ParsePath(%.60q, %s) = %q, %q, %v; want %q, %q", tt.in, check, got, rest, err, want, tt.rest)
			}
		}
	}
}

func TestParsePathDomain(t *testing.T) {
	for in, want := range map[string]string{"<a@b.c>": "b.c", `<"x@y"@z>`: "z", "<>": "", "<postmaster>": ""} {
		p, _, err := ParsePath(in, CheckRFC)
		if err != nil || p.Domain != want {
			t.Errorf("ParsePath(%q): domain %q, %v; want %q", in, p.Domain, err, want)
		}
	}
}
