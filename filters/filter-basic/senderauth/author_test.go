package senderauth

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const authorsZone = `
bank.test.           60 IN TXT "v=spf1 ip4:192.0.2.9 -all"
_dmarc.bank.test.    60 IN TXT "v=DMARC1; p=reject"
shop.test.           60 IN TXT "v=spf1 ip4:192.0.2.9 -all"
_dmarc.shop.test.    60 IN TXT "v=DMARC1; p=quarantine"
watch.test.          60 IN TXT "v=spf1 -all"
_dmarc.watch.test.   60 IN TXT "v=DMARC1; p=none"
evil.test.           60 IN TXT "v=spf1 +all"
_dmarc.evil.test.    60 IN TXT "v=DMARC1; p=reject"
open.test.           60 IN TXT "v=spf1 +all"
_dmarc.broken.test.  60 IN TXT "v=DMARC1; p=dance"
_dmarc.xn--bcher-kva.test. 60 IN TXT "v=DMARC1; p=reject"
`

// TestWRK_29_ForgedAuthorInAnOddFrom: the sender's own domain passes, and another one, whose policy is to reject, stands
// where some reader takes it for the author's.
func TestWRK_29_ForgedAuthorInAnOddFrom(t *testing.T) {
	s := startDNS(t, authorsZone)
	s.breakName("_dmarc.down.test.", 2)
	r := NewResolver(s.address)
	for _, header := range []string{
		"From: ceo@bank.test, x@evil.test",
		"From: x@evil.test, ceo@bank.test",
		"From: <ceo@bank.test> <x@evil.test>",
		"From: <x@evil.test> <ceo@bank.test>",
		"From: ceo@bank.test <x@evil.test>",
		"From: 'ceo@bank.test' <x@evil.test>",
		"From: \u201cceo@bank.test\u201d, x@evil.test",
		"From: CEO ceo@bank.test",
		"From: \"CEO\" ceo@bank.test x@evil.test",
		"From: ceo@bank.test\x00@evil.test",
		"From: ceo@bank.test@evil.test",
		"From: \"ceo@bank.test\"@evil.test",
		"From: =?utf-8?q?ceo@bank.test?=@evil.test",
		"From: =?utf-8?b?Y2VvQGJhbmsudGVzdAA=?=@evil.test",
		"From: =?x-none?q?ceo=40bank.test?= =?utf-8?q?=3Cx=40evil.test=3E?=",
		"From: ceo@(a)bank.test, x@evil.test",
		"From: ceo @ bank . test",
		"From: ceo@bank\n .test <x@evil.test>",
		"From: <@bank.test:x@evil.test>",
		"From: <@evil.test:ceo@bank.test>",
		"From: us: ceo@bank.test, x@evil.test;",
		"From: x@evil.test; ceo@bank.test",
		"From: ceo@BANK.test., x@evil.test",
		"From: ceo@bank\u3002test x@evil.test",
		"From: ceo@ba\u00adnk.test <x@evil.test>",
		"From: J\xf6rg <x@evil.test> <ceo@bank.test>",
		"From: ceo@b\u00fccher.test <x@evil.test>",
		"From: Smith, J. <ceo@mail.bank.test> (x@evil.test",
		"From: (ceo@bank.test <x@evil.test>",
		"From: ceo@bank.test\nFrom: x@evil.test",
		"From: x@evil.test\nFrom: ceo@bank.test",
		"from : ceo@bank.test\nFrom: x@evil.test",
		"FROM\t:ceo@bank.test\nFrom: x@evil.test",
		"From:\n ceo@bank.test\nFrom: x@evil.test",
		"Subject: x\nFrom: x@evil.test\nTo: y@open.test\nFrom: ceo@bank.test",
		"\nFrom: ceo@bank.test",
		"From: x@evil.test, a@open.test, b@watch.test, c@shop.test, ceo@bank.test",
		"From: ceo@bank.test, x@down.test",
		"From: ceo@bank.test, x@broken.test",
	} {
		got := Check(t.Context(), r, message("203.0.113.9", "x", "x@evil.test", header+"\nSubject: x\n\nhello\n"))
		if got.DMARC != "fail" || got.Policy != "reject" || got.From == "evil.test" || got.Vouched(func(string) bool { return true }) {
			t.Errorf("%q: %s, policy %q of %q", header, got.String(), got.Policy, got.authors.domains)
		}
	}
	for header, want := range map[string]string{ // what counts of several domains
		"From: a@shop.test, x@evil.test":                                         "fail quarantine shop.test",
		"From: a@shop.test, a@bank.test":                                         "fail reject bank.test",
		"From: a@shop.test, x@down.test":                                         "fail quarantine shop.test",
		"From: a@watch.test, x@evil.test":                                        "fail none watch.test",
		"From: a@watch.test, x@down.test":                                        "temperror  down.test",
		"From: x@evil.test, a@open.test":                                         "none  open.test",
		"From: x@evil.test, y@mail.evil.test":                                    "pass reject evil.test",
		"From: x@evil.test\nFrom: y@evil.test":                                   "pass reject evil.test",
		"From: x@evil.test, a@broken.test":                                       "permerror  broken.test",
		"From: a@broken.test":                                                    "permerror  broken.test",
		"From: a@a.test, b@b.test, c@c.test, d@d.test, e@e.test, ceo@bank.test":  "fail reject ",
		"From: " + strings.Repeat("x@evil.test, ", maxFrom/13) + "ceo@bank.test": "fail reject ",
		"From: CEO": "permerror  no author", "From: ": "permerror  no author", "From: <>": "permerror  no author", "From: us:;": "permerror  no author",
		"From: \"ceo at bank.test\"": "permerror  no author", "From: CEO <ceo>": "permerror  no author", "Subject: x": "none  no author", "Sender: ceo@bank.test": "none  no author",
	} {
		got := Check(t.Context(), r, message("203.0.113.9", "x", "x@evil.test", header+"\n\nhello\n"))
		from := got.From
		if got.NoAuthor {
			from += "no author"
		}
		if is := fmt.Sprintf("%s %s %s", got.DMARC, got.Policy, from); is != want {
			t.Errorf("%.80q: %s, want %s", header, is, want)
		}
	}
	// A signature is about one of several From fields.
	s = startZone(t)
	for header, want := range map[string]string{"": "pass", "From: ceo@example.org\n": "fail", "from : ceo@mail.example.org\n": "fail"} {
		got := Check(t.Context(), NewResolver(s.address), message("203.0.113.9", "x", "x@nosp.test", header+signed(t, "example.org", mailOf("a@example.org"))))
		if string(got.DMARC) != want || len(got.DKIM) != 1 || got.DKIM[0].Value != "pass" || got.Policy == "" {
			t.Errorf("signed, below %q: %s, policy %q", header, got.String(), got.Policy)
		}
	}
}

// TestAuthorsAreAskedForAtOnce: the name server of one author's domain takes no time from the others.
func TestAuthorsAreAskedForAtOnce(t *testing.T) {
	s := startDNS(t, authorsZone)
	s.hold("_dmarc.bank.test.", "_dmarc.shop.test.", "_dmarc.evil.test.", "evil.test.")
	got := Check(t.Context(), NewResolver(s.address), message("203.0.113.9", "x", "x@evil.test", mailOf("x@evil.test, a@shop.test, ceo@bank.test")))
	if got.DMARC != "fail" || got.Policy != "reject" {
		t.Errorf("%s, policy %q", got.String(), got.Policy)
	}
}

// TestOrdinaryAuthors has From fields as they are, in order and with mistakes that are common: the author is who it is,
// and nobody besides.
func TestOrdinaryAuthors(t *testing.T) {
	s := startDNS(t, authorsZone)
	r := NewResolver(s.address)
	for _, from := range []string{
		"a@bank.test", "<a@bank.test>", "Anna <a@bank.test>", "\"Smith, Anna\" <a@bank.test>", "Anna B. Smith <a@bank.test>", "a@bank.test (Anna)",
		"Smith, Anna <a@bank.test>", "Anna [ext] <a@bank.test>", "Bank: Anna <a@bank.test>", "Anna @ Bank <a@bank.test>", "a@bank.test <a@bank.test>", "'a@bank.test' <a@bank.test>",
		"\"a@bank.test\" <a@bank.test>", "\"b@shop.test via list\" <a@bank.test>", "\"'Bob <b@shop.test>' via list\" <a@bank.test>", "\"J\xf6rg <b@shop.test>\" <a@bank.test>", "=?utf-8?q?b=40shop=2Etest?= <a@bank.test>",
		"=?UTF-8?B?w4RubmE=?= <a@bank.test>", "=?iso-2022-jp?B?GyRCSXQbKEI=?= <a@bank.test>", "=?windows-1251?Q?=C0=ED=ED=E0?= <a@bank.test>", "\"=?utf-8?q?=C3=84nna?=\" <a@bank.test>",
		"\u00c4nna <a@bank.test>", "\xc4nna <a@bank.test>", "Anna<a@bank.test>", "<a@bank.test> (Anna)", "Anna <a@bank.test>,", "Anna <a@bank.test>;", "Anna <a@bank.test> ",
		"a@bank.test, b@bank.test", "Anna\n <a@bank.test>", "a..b@bank.test", "a.@bank.test", "<a@bank.test", "a@bank.test>", "Anna <<a@bank.test>>", "Anna <a@BANK.test.>",
		"Anna <a@mail.bank.test>", "Anna <mailto:a@bank.test>", "Anna \"Bee\" Smith <a@bank.test>", "(Anna) a@bank.test", "\"a b\"@bank.test", "Staff: a@bank.test;",
	} {
		got := Check(t.Context(), r, message("192.0.2.9", "x", "a@bank.test", mailOf(from)))
		wrong := func(d string) bool { return d != "bank.test" && d != "mail.bank.test" }
		if got.DMARC != "pass" || got.Policy != "reject" || got.NoAuthor || slices.ContainsFunc(got.authors.domains, wrong) || len(got.authors.domains) != 1 {
			t.Errorf("%q: %s, policy %q of %q", from, got.String(), got.Policy, got.authors.domains)
		}
	}
}
