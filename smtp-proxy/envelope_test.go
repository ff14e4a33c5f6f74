package main

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"postern/internal/testenv"
)

func TestFilterAddress(t *testing.T) {
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
		path, more, err := filterAddress(tt.in)
		got := path.Address
		if err != nil {
			got = "-"
		}
		if got != tt.want || err == nil && more != tt.more {
			t.Errorf("%q is %q, more %v, %v; want %q, %v", tt.in, got, more, err, tt.want, tt.more)
		}
	}
}

func FuzzFilterAddress(f *testing.F) {
	for _, s := range []string{"a@b", `"Bob, B." <x@r.test> (c), <y@z>`, `"a\"b c"@d`, "<@a:b@c>", "a..b@", "\u00fc@\u00fc"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		path, _, err := filterAddress(s)
		if err != nil {
			return
		}
		if strings.ContainsAny(path.Address, "<>\r\n\x00") || strings.Count(path.Address, `"`)%2 == 0 && !strings.ContainsAny(path.Address, `"`) && strings.Contains(path.Address, " ") {
			t.Errorf("%q became %q", s, path.Address)
		}
		again, _, err := filterAddress(path.String())
		if err != nil || again != path && !strings.HasPrefix(path.Address, "@") {
			t.Errorf("%q became %q, and that %q, %v", s, path.Address, again.Address, err)
		}
	})
}

// TestOddAddressesOfAFilter has addresses that Postfix takes from a milter.
func TestOddAddressesOfAFilter(t *testing.T) {
	const one, both = "<one@server.example>", "[<one@server.example> <two@server.example> NOTIFY=NEVER"
	for _, tt := range []struct{ results, from, to, reply string }{
		{"RBob%20<x@r.test>", "<from@client.example>", both + " <x@r.test>]", "250"},
		{"Rx@r.test%20(Bob)\nRy@r.test,%20z@r.test\nRa..b@", "<from@client.example>", both + " <x@r.test> <y@r.test> <a..b@>]", "250"},
		{"R<>\nR%20\nRone@SERVER.example", "<from@client.example>", both + "]", "250"},
		{"S<no%20such\nSnobody@here\nS%20\nS<>\nS(a", "<from@client.example>", both + "]", "250"},
		{"SOne%20<ONE@server.example>\nf\"Bob\"%20<>", "<>", "[<two@server.example> NOTIFY=NEVER]", "250"},
		{"Rj\xc3\xbcrgen@r.test", "<from@client.example>", both + " <j\u00fcrgen@r.test>]", "250"},
		{"Ra%20b@r.test", "", "", "451 4.3.0"},
		{"fa%20b@r.test", "", "", "451 4.3.0"},
	} {
		t.Run(tt.results, func(t *testing.T) {
			b := testenv.StartBackend(t)
			m := startMultiplexor(t, scanWith(t, tt.results+"\nF\n"))
			if got := deliverThrough(t, b, m, filterMessage); !strings.HasPrefix(got, tt.reply) {
				t.Fatalf("reply %q, want %q", got, tt.reply)
			}
			got := b.Messages()
			if tt.to == "" && len(got) == 0 {
				return
			}
			if len(got) != 1 || strings.Fields(got[0].From)[0] != tt.from || fmt.Sprint(got[0].To) != tt.to {
				t.Errorf("delivered %+v, want from %s to %s", got, tt.from, tt.to)
			}
		})
	}
}

// TestServerRefusesTheFiltersAddress has servers that do not take what the filter put into the envelope.
func TestServerRefusesTheFiltersAddress(t *testing.T) {
	for _, tt := range []struct{ name, results, refused, reply, want string }{
		{"added, for good", "Rthree@server.example", "three@", "550 5.1.1 No such user", "550 5.1.1 No such user"},
		{"added, for now", "Rthree@server.example", "three@", "450 4.2.1 Mailbox busy", "450 4.2.1 Mailbox busy"},
		{"sender, for good", "fother@client.example", "other@", "553 5.1.8 No such sender", "553 5.1.8 No such sender"},
		{"known recipient", "Rthree@server.example", "two@", "550 5.1.1 Gone", "451 4.3.0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := testenv.StartBackend(t)
			var senders atomic.Int32 // the second one is of the envelope that is issued anew
			b.Answer(func(a testenv.Asked) string {
				if a.Verb == "MAIL" {
					senders.Add(1)
				}
				if senders.Load() > 1 && strings.Contains(a.Line, tt.refused) {
					return tt.reply
				}
				return ""
			})
			m := startMultiplexor(t, scanWith(t, tt.results+"\nF\n"))
			if got := deliverThrough(t, b, m, filterMessage); !strings.HasPrefix(got, tt.want) {
				t.Errorf("reply %q, want %q", got, tt.want)
			}
			if got := b.Messages(); len(got) != 0 {
				t.Errorf("delivered %+v", got)
			}
		})
	}
}
