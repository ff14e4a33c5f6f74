package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/authres"
	"github.com/emersion/go-msgauth/dmarc"

	"postern/filters/filter-basic/senderauth"
)

func TestJudgeSender(t *testing.T) {
	for _, tt := range []struct {
		name       string
		spf, dmarc authres.ResultValue
		policy     dmarc.Policy
		flags      string
		want       string
	}{
		{"pass", "pass", "pass", "reject", "--on-dmarc-fail=reject --on-spf-fail=reject", ""},
		{"SPF fails, no policy", "fail", "none", "", "--on-spf-fail=none", "none"},
		{"SPF fails", "fail", "none", "", "--on-spf-fail=reject", "reject"},
		{"SPF fails, marked", "fail", "none", "", "--on-spf-fail=mark", "mark"},
		{"SPF fails, DMARC passes", "fail", "pass", "reject", "--on-spf-fail=reject", ""},
		{"SPF soft fail", "softfail", "none", "", "--on-spf-fail=reject", ""},
		{"DMARC fails", "none", "fail", "reject", "--on-dmarc-fail=none", ""},
		{"DMARC fails, reject", "none", "fail", "reject", "--on-dmarc-fail=reject", "reject"},
		{"DMARC fails, quarantine", "none", "fail", "quarantine", "--on-dmarc-fail=reject", "mark"},
		{"DMARC fails, asks for nothing", "none", "fail", "none", "--on-dmarc-fail=reject", ""},
		{"DMARC fails, marked", "none", "fail", "reject", "--on-dmarc-fail=mark", "mark"},
		{"DNS fails", "temperror", "none", "", "--on-dns-failure=tempfail", "tempfail"},
		{"DNS fails, ignored", "none", "temperror", "", "--on-dns-failure=none", "none"},
		{"DNS fails, DMARC passes", "temperror", "pass", "reject", "--on-dns-failure=tempfail", ""},
	} {
		s := settings(t, strings.Fields(tt.flags)...)
		got := ""
		for _, f := range s.judgeSender(&senderauth.Results{SPF: tt.spf, DMARC: tt.dmarc, Policy: tt.policy}) {
			got += s.policy(f.kind)
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestAuthors has messages that are of too many authors, or of none.
func TestAuthors(t *testing.T) {
	for _, tt := range []struct {
		results     senderauth.Results
		flags, want string
	}{
		{senderauth.Results{DMARC: "fail", Policy: "reject"}, "--on-dmarc-fail=reject", "reject message has authors of too many domains"},
		{senderauth.Results{DMARC: "fail", Policy: "reject"}, "--on-dmarc-fail=mark", "mark message has authors of too many domains"},
		{senderauth.Results{DMARC: "fail", Policy: "reject"}, "--on-dmarc-fail=none", ""},
		{senderauth.Results{DMARC: "permerror", NoAuthor: true}, "--on-dmarc-fail=reject", "mark message has no author's address"},
		{senderauth.Results{DMARC: "none", NoAuthor: true}, "--on-dmarc-fail=mark", "mark message has no author's address"},
		{senderauth.Results{DMARC: "none", NoAuthor: true}, "--on-dmarc-fail=none", "none message has no author's address"},
		{senderauth.Results{DMARC: "permerror", From: "a.test"}, "--on-dmarc-fail=reject", ""},
	} {
		s := settings(t, tt.flags)
		var got []string
		for _, f := range s.judgeSender(&tt.results) {
			got = append(got, s.policy(f.kind)+" "+f.text)
		}
		if strings.Join(got, ", ") != tt.want {
			t.Errorf("%s, %s: %q, want %q", tt.results.String(), tt.flags, got, tt.want)
		}
	}
}

// TestSealers has a failure of DMARC, and a chain of ARC.
func TestSealers(t *testing.T) {
	failed := senderauth.Results{SPF: "none", DMARC: "fail", Policy: "reject", From: "a.test"}
	for _, tt := range []struct {
		name, flags string
		arc         authres.ResultValue
		claimed     string
		want        string
	}{
		{"chain is broken", "--trusted-sealers=list.test", "fail", "list.test", "reject"},
		{"chain cannot be checked now", "--trusted-sealers=list.test --on-dns-failure=tempfail", "temperror", "list.test", "mark tempfail"},
		{"another's chain cannot be checked now", "--trusted-sealers=list.test --on-dns-failure=tempfail", "temperror", "evil.test", "reject"},
		{"chain of nobody who is trusted", "--on-dns-failure=tempfail", "temperror", "list.test", "reject"},
	} {
		s := settings(t, append(strings.Fields(tt.flags), "--on-dmarc-fail=reject")...)
		failed.ARC = senderauth.ARC{Value: tt.arc, Claimed: []string{tt.claimed, tt.claimed}}
		var got []string
		for _, f := range s.judgeSender(&failed) {
			got = append(got, s.policy(f.kind))
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	if s := settings(t, "--trusted-sealers=list.test", "--trusted-sealers=Other.test"); !s.isSealer("other.test") || s.isSealer("x.list.test") {
		t.Errorf("sealers %q", s.TrustedSealers)
	}
}

// TestForgedAuthenticationResults has fields that claim to be of this host, and of others.
func TestForgedAuthenticationResults(t *testing.T) {
	headers := "Authentication-Results: MX.example.org; spf=pass\nFrom: a@b\nauthentication-results: other.test; spf=pass\n" +
		"Authentication-Results: (x) \"mx.example.org\" 1; dkim=pass\n"
	for _, tt := range []struct{ flags, want string }{
		{"--authenticate=no", ""},
		{"--authenticate --trusted-networks=192.0.2.0/24", "JAuthentication-Results 3\nJAuthentication-Results 1\n"},
	} {
		s := settings(t, append(strings.Fields(tt.flags), "--authserv-id=mx.example.org")...)
		s.log = &bytes.Buffer{}
		got := scanWith(t, s, "From: a@b\n\nx\n", headers)
		if strings.Count(got, "Authentication-Results") != strings.Count(tt.want, "Authentication-Results") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: RESULTS %q", tt.flags, got)
		}
	}
}

func TestSenderSettings(t *testing.T) {
	for _, flags := range [][]string{{"--trusted-networks=x"}, {"--auth-timeout=1ms"}, {"--dns-server=x"}, {"--trusted-networks=none", "--trusted-networks=::1"}} {
		var s Settings
		if _, err := s.parse(append([]string{"--config", "/dev/null"}, flags...)); err == nil {
			t.Errorf("%q is taken", flags)
		}
	}
	for ip, flags := range map[string][]string{"127.0.0.1": nil, "::1": nil, "::ffff:127.0.0.1": nil, "192.0.2.1": {"--trusted-networks=192.0.2.1"}} {
		if !settings(t, flags...).isTrusted(ip) {
			t.Errorf("%s is not trusted by %q", ip, flags)
		}
	}
	for ip, flags := range map[string][]string{"127.0.0.1": {"--trusted-networks=none"}, "192.0.2.1": nil, "x": nil, "": nil} {
		if settings(t, flags...).isTrusted(ip) {
			t.Errorf("%s is trusted by %q", ip, flags)
		}
	}
}
