package main

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"postern/internal/testenv"
)

// TestOddAddressesOfAFilter has addresses that Postfix takes from a milter.
func TestOddAddressesOfAFilter(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
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
