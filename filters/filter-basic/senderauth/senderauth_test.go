package senderauth

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/authres"
	"github.com/emersion/go-msgauth/dkim"
	"github.com/miekg/dns"

	"postern/internal/testenv"
)

// nameServer is a name server with records of its own.
type nameServer struct {
	address string

	mu      sync.Mutex
	records map[string][]dns.RR
	broken  map[string]int // code of the answer, or silent
	asked   []string
	held    map[string]bool // names that are answered once all of them were asked
	release chan struct{}
}

const silent = -1

// startDNS starts a name server with records in zone format.
func startDNS(t *testing.T, zone string) *nameServer {
	t.Helper()
	s := &nameServer{records: map[string][]dns.RR{}, broken: map[string]int{}}
	parser := dns.NewZoneParser(strings.NewReader(zone), ".", "test")
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		key := strings.ToLower(rr.Header().Name)
		s.records[key] = append(s.records[key], rr)
	}
	if err := parser.Err(); err != nil {
		t.Fatal(err)
	}
	s.address = fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t)) // the same for both
	packets, err := net.ListenPacket("udp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", s.address) // for answers that are too long
	if err != nil {
		t.Fatal(err)
	}
	for _, server := range []*dns.Server{{PacketConn: packets, Handler: s}, {Listener: listener, Handler: s}} {
		go func() { _ = server.ActivateAndServe() }()
		t.Cleanup(func() { _ = server.Shutdown() })
	}
	return s
}

// ServeDNS answers a question.
func (s *nameServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	name := strings.ToLower(q.Question[0].Name)
	s.waitForOthers(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, dns.TypeToString[q.Question[0].Qtype]+" "+name)
	reply := new(dns.Msg)
	reply.SetReply(q)
	if code, ok := s.broken[name]; ok {
		if code == silent {
			return
		}
		reply.Rcode = code
	} else if records, ok := s.records[name]; !ok {
		reply.Rcode = dns.RcodeNameError
	} else {
		for _, rr := range records {
			if rr.Header().Rrtype == q.Question[0].Qtype {
				reply.Answer = append(reply.Answer, rr)
			}
		}
	}
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
		reply.Truncate(dns.MinMsgSize)
	}
	_ = w.WriteMsg(reply)
}

// hold has these names answered once all of them were asked, so that who asks for one after another gets no answer.
func (s *nameServer) hold(names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held, s.release = map[string]bool{}, make(chan struct{})
	for _, name := range names {
		s.held[name] = true
	}
}

func (s *nameServer) waitForOthers(name string) {
	s.mu.Lock()
	is := s.held[name]
	if delete(s.held, name); is && len(s.held) == 0 {
		close(s.release)
	}
	release := s.release
	s.mu.Unlock()
	if is {
		<-release
	}
}

func (s *nameServer) breakName(name string, code int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken[name] = code
}

// questions returns how often a question was asked.
func (s *nameServer) questions(question string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, q := range s.asked {
		if q == question {
			n++
		}
	}
	return n
}

// key signs for the domains of these tests.
var publicKey, key = func() (ed25519.PublicKey, ed25519.PrivateKey) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return public, private
}()

// signed signs a message with LF line ends for a domain.
func signed(t testing.TB, domain, message string) string {
	t.Helper()
	var out bytes.Buffer
	err := dkim.Sign(&out, strings.NewReader(strings.ReplaceAll(message, "\n", "\r\n")), &dkim.SignOptions{Domain: domain, Selector: "s", Signer: key,
		HeaderKeys: []string{"From", "Subject"}})
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(out.String(), "\r\n", "\n")
}

const zone = `
example.org.            60 IN TXT "v=spf1 ip4:192.0.2.0/24 -all"
_dmarc.example.org.     60 IN TXT "v=DMARC1; p=reject; sp=quarantine"
mail.example.org.       60 IN TXT "v=spf1 ip4:192.0.2.7 -all"
sub.example.org.        60 IN TXT "v=spf1 ip4:192.0.2.7 ~all"
strict.test.            60 IN TXT "v=spf1 ?all"
_dmarc.strict.test.     60 IN TXT "v=DMARC1; p=quarantine; adkim=s; aspf=s"
a.strict.test.          60 IN TXT "v=spf1 ip4:192.0.2.7 -all"
none.test.              60 IN TXT "v=spf1 mx include:example.org ?all"
none.test.              60 IN MX 10 mx.none.test.
mx.none.test.           60 IN A 198.51.100.5
_dmarc.none.test.       60 IN TXT "v=DMARC1; p=none"
sampled.test.           60 IN TXT "v=spf1 -all"
_dmarc.sampled.test.    60 IN TXT "v=DMARC1; p=reject; pct=0"
two.test.               60 IN TXT "v=spf1 -all"
two.test.               60 IN TXT "v=spf1 +all"
_dmarc.two.test.        60 IN TXT "v=DMARC1; p=reject"
_dmarc.two.test.        60 IN TXT "v=DMARC1; p=none"
bad.test.               60 IN TXT "v=spf1 ipv4:192.0.2.7 -all"
_dmarc.bad.test.        60 IN TXT "v=DMARC1; p=dance"
loop.test.              60 IN TXT "v=spf1 include:loop.test -all"
many.test.              60 IN TXT "v=spf1 a:a.many.test a:b.many.test a:c.many.test a:d.many.test a:e.many.test a:f.many.test a:g.many.test a:h.many.test a:i.many.test a:j.many.test a:k.many.test -all"
down.test.              60 IN TXT "v=spf1 include:broken.test -all"
_dmarc.down.test.       60 IN TXT "v=DMARC1; p=reject"
xn--bcher-kva.test.     60 IN TXT "v=spf1 ip4:192.0.2.7 -all"
_dmarc.xn--bcher-kva.test. 60 IN TXT "v=DMARC1; p=reject"
nosp.test.              60 IN TXT "v=spf1 -all"
`

func startZone(t *testing.T) *nameServer {
	t.Helper()
	k := base64.StdEncoding.EncodeToString(publicKey)
	all := zone
	for _, d := range []string{"example.org", "strict.test", "a.strict.test", "other.test"} {
		all += "s._domainkey." + d + `. 60 IN TXT "v=DKIM1; k=ed25519; p=` + k + "\"\n"
	}
	s := startDNS(t, all)
	s.breakName("broken.test.", dns.RcodeServerFailure)
	s.breakName("s._domainkey.down.test.", dns.RcodeServerFailure)
	s.breakName("_dmarc.failing.test.", dns.RcodeServerFailure)
	return s
}

// mailFromTo is a message of an author.
func mailOf(from string) string { return "From: " + from + "\nSubject: x\n\nhello\n" }

func TestCheck(t *testing.T) {
	r := NewResolver(startZone(t).address)
	tests := []struct {
		name, ip, helo, sender, message string
		spf, dkim, dmarc, policy        string
	}{
		{"all pass", "192.0.2.7", "mail.example.org", "a@example.org", signed(t, "example.org", mailOf("a@example.org")), "pass", "pass", "pass", "reject"},
		{"SPF alone", "192.0.2.7", "x", "a@example.org", mailOf("Anna <a@example.org>"), "pass", "", "pass", "reject"},
		{"DKIM alone", "198.51.100.1", "x", "a@example.org", signed(t, "example.org", mailOf("a@example.org")), "fail", "pass", "pass", "reject"},
		{"neither", "198.51.100.1", "x", "a@example.org", mailOf("a@example.org"), "fail", "", "fail", "reject"},
		{"changed", "198.51.100.1", "x", "a@other.test", signed(t, "example.org", mailOf("a@example.org")) + "more\n", "none", "fail", "fail", "reject"},
		{"of another", "192.0.2.7", "x", "a@mail.none.test", signed(t, "other.test", mailOf("a@example.org")), "none", "pass", "fail", "reject"},
		{"subdomain", "192.0.2.7", "x", "a@sub.example.org", mailOf("a@example.org"), "pass", "", "pass", "reject"},
		{"subdomain's policy", "198.51.100.1", "x", "a@sub.example.org", mailOf("a@sub.example.org"), "softfail", "", "fail", "quarantine"},
		{"strict", "192.0.2.7", "x", "a@a.strict.test", signed(t, "a.strict.test", mailOf("a@strict.test")), "pass", "pass", "fail", "quarantine"},
		{"strict, the same", "192.0.2.7", "x", "a@a.strict.test", signed(t, "strict.test", mailOf("a@strict.test")), "pass", "pass", "pass", "quarantine"},
		{"no policy", "192.0.2.7", "x", "a@nosp.test", mailOf("a@nosp.test"), "fail", "", "none", ""},
		{"policy none, SPF by MX", "198.51.100.5", "x", "a@none.test", mailOf("a@none.test"), "pass", "", "pass", "none"},
		{"SPF by include", "192.0.2.99", "x", "a@none.test", mailOf("a@none.test"), "pass", "", "pass", "none"},
		{"SPF neutral", "203.0.113.1", "x", "a@none.test", mailOf("a@none.test"), "neutral", "", "fail", "none"},
		{"not sampled", "192.0.2.7", "x", "a@sampled.test", mailOf("a@sampled.test"), "fail", "", "fail", "quarantine"},
		{"two records", "192.0.2.7", "x", "a@two.test", mailOf("a@two.test"), "permerror", "", "none", ""},
		{"bad records", "192.0.2.7", "x", "a@bad.test", mailOf("a@bad.test"), "permerror", "", "permerror", ""},
		{"SPF includes itself", "192.0.2.7", "x", "a@loop.test", mailOf("a@nosp.test"), "permerror", "", "none", ""},
		{"SPF of too many names", "192.0.2.7", "x", "a@many.test", mailOf("a@nosp.test"), "permerror", "", "none", ""},
		{"DNS is down", "192.0.2.7", "x", "a@down.test", mailOf("a@down.test"), "temperror", "", "temperror", "reject"},
		{"DNS of another is down", "192.0.2.7", "x", "a@down.test", signed(t, "down.test", mailOf("a@example.org")), "temperror", "temperror", "fail", "reject"},
		{"DMARC is down", "192.0.2.7", "x", "a@failing.test", mailOf("a@failing.test"), "none", "", "temperror", ""},
		{"null sender", "192.0.2.7", "mail.example.org", "", mailOf("a@example.org"), "pass", "", "pass", "reject"},
		{"null sender and address", "192.0.2.7", "[192.0.2.7]", "", mailOf("a@example.org"), "none", "", "fail", "reject"},
		{"two authors' fields", "192.0.2.7", "x", "a@example.org", "From: a@nosp.test\n" + mailOf("a@example.org"), "pass", "", "none", ""},
		{"two domains", "192.0.2.7", "x", "a@example.org", mailOf("a@example.org, b@nosp.test"), "pass", "", "none", ""},
		{"two authors of one", "192.0.2.7", "x", "a@example.org", mailOf("a@example.org, b@EXAMPLE.org"), "pass", "", "pass", "reject"},
		{"name that is an address", "192.0.2.7", "x", "a@nosp.test", mailOf(`"a@nosp.test" <a@example.org>`), "fail", "", "fail", "reject"},
		{"no address", "192.0.2.7", "x", "a@example.org", mailOf("Anna"), "pass", "", "permerror", ""},
		{"no From", "192.0.2.7", "x", "a@example.org", "Subject: x\n\nhello\n", "pass", "", "none", ""},
		{"international", "192.0.2.7", "x", "a@b\u00fccher.test", mailOf("a@b\u00fccher.test"), "pass", "", "pass", "reject"},
		{"no address of the client", "unknown", "x", "a@example.org", mailOf("a@example.org"), "none", "", "fail", "reject"},
		{"header alone", "192.0.2.7", "x", "a@example.org", "From: a@example.org\n", "pass", "", "pass", "reject"},
		{"field of many lines", "192.0.2.7", "x", "a@example.org", "X: y\n" + strings.Repeat(" z\n", 1<<20) + mailOf("a@example.org"), "pass", "permerror", "pass", "reject"},
		{"header of many fields", "192.0.2.7", "x", "a@example.org", strings.Repeat("X: z\n", 1<<18) + mailOf("a@example.org"), "pass", "permerror", "pass", "reject"},
		{"bad signature", "192.0.2.7", "x", "a@example.org", "DKIM-Signature: v=1; a=x\n" + mailOf("a@example.org"), "pass", "permerror", "pass", "reject"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := message(tt.ip, tt.helo, tt.sender, tt.message)
			got := Check(t.Context(), r, m)
			var signatures []string
			for _, d := range got.DKIM {
				signatures = append(signatures, string(d.Value))
			}
			if dkim := strings.Join(signatures, " "); string(got.SPF) != tt.spf || dkim != tt.dkim || string(got.DMARC) != tt.dmarc || string(got.Policy) != tt.policy {
				t.Errorf("spf=%s dkim=%s dmarc=%s policy %s (%s); want %s, %s, %s, %s", got.SPF, dkim, got.DMARC, got.Policy, got.String(), tt.spf, tt.dkim, tt.dmarc, tt.policy)
			}
			if _, results, err := authres.Parse(got.Field("mx.test", m)); err != nil || len(results) != 3+max(1, len(got.DKIM)) {
				t.Errorf("field %q: %d results, %v", got.Field("mx.test", m), len(results), err)
			}
		})
	}
}

func message(ip, helo, sender, text string) *Message {
	return &Message{ClientIP: ip, Helo: helo, Sender: sender, Content: []byte(text)}
}

// TestWRK_23_LocalPartsThatHideTheDomain: whatever a local part is made of, the sender's domain is the one behind the
// last @, and its SPF record counts. The second record of the zone names those who may send.
func TestWRK_23_LocalPartsThatHideTheDomain(t *testing.T) {
	r := NewResolver(startDNS(t, `example.org. 60 IN TXT "v=spf1 ip4:192.0.2.0/24 -all"
named.test. 60 IN TXT "v=spf1 -exists:%{l}.bad.test exists:%{l1r-}.ok.test -all"
anna.ok.test. 60 IN A 127.0.0.2
postmaster.ok.test. 60 IN A 127.0.0.2
eve.bad.test. 60 IN A 127.0.0.2
`).address)
	locals := []string{"a", `"a@b"`, `"a@nosp.test"`, `"@"`, `"\@"`, `"a b"`, `"a\"b"`, `"\\"`, `""`, `"`, "a%{d}", "%", "%{", `"%{o}@%{s}"`, "a@b", "@relay.test:a",
		"\u00fc", "\xff", "a/b", "a\x00b", "", strings.Repeat("a", 5000), strings.Repeat("a@", 2000)}
	for _, local := range locals {
		for sender, want := range map[string]authres.ResultValue{local + "@example.org": "fail", local + "@EXAMPLE.org.": "fail"} {
			got := Check(t.Context(), r, message("203.0.113.9", "nosp.test", sender, mailOf("a@none.test")))
			if got.SPF != want || !got.SPFSender || got.SPFDomain != "example.org" {
				t.Errorf("sender %.50q: spf=%s for %q, want %s", sender, got.SPF, got.SPFDomain, want)
			}
		}
	}
	for sender, want := range map[string]authres.ResultValue{"anna@named.test": "pass", `"anna"@named.test`: "pass", `"an\na"@named.test`: "pass", "anna-list@named.test": "pass",
		`"anna@x"@named.test`: "fail", "bert@named.test": "fail", "eve@named.test": "fail", `"eve"@named.test`: "fail", "@named.test": "pass", `""@named.test`: "pass"} {
		if got := Check(t.Context(), r, message("203.0.113.9", "x", sender, mailOf("a@none.test"))); got.SPF != want {
			t.Errorf("sender %q: spf=%s, want %s", sender, got.SPF, want)
		}
	}
	for helo, want := range map[string]authres.ResultValue{"example.org": "fail", "EXAMPLE.ORG.": "fail", "a@example.org": "none", "example.org@x.test": "none", "%{d}": "none", "": "none"} {
		if got := Check(t.Context(), r, message("203.0.113.9", helo, "", mailOf("a@none.test"))); got.SPF != want || got.SPFSender {
			t.Errorf("greeting %q: spf=%s, want %s", helo, got.SPF, want)
		}
	}
}

// TestChecksHaveTheirOwnLookups: a sender whose SPF record uses up what may be asked does not have DMARC fail for now.
func TestChecksHaveTheirOwnLookups(t *testing.T) {
	zone, record := "_dmarc.bank.test. 60 IN TXT \"v=DMARC1; p=reject\"\n", "v=spf1"
	for i := range 10 {
		record += fmt.Sprintf(" mx:m%d.test", i)
		for j := range 10 {
			zone += fmt.Sprintf("m%d.test. 60 IN MX 1 h%[1]d-%d.test.\nh%[1]d-%[2]d.test. 60 IN A 192.0.2.9\n", i, j)
		}
	}
	zone += fmt.Sprintf("many.test. 60 IN TXT \"%s -all\"\n", record)
	got := Check(t.Context(), NewResolver(startDNS(t, zone).address), message("192.0.2.7", "x", "a@many.test", "From: b@bank.test\n\nx\n"))
	if got.SPF != authres.ResultTempError || got.DMARC != authres.ResultFail || got.Policy != "reject" {
		t.Errorf("spf=%s dmarc=%s p=%s, want temperror, fail, reject", got.SPF, got.DMARC, got.Policy)
	}
}

// TestWRK_22_SlowNameServerOfTheSender: the sender's own name servers answer slowly, to have the time be over before the
// author's domain is asked what it wants. They are asked at the same time, each signer too.
func TestWRK_22_SlowNameServerOfTheSender(t *testing.T) {
	s := startSealers(t, chainKey, "slow.test. 60 IN TXT \"v=spf1 -all\"\n")
	text := signed(t, "example.org", signed(t, "slow.test", strings.ReplaceAll(chain, "\r\n", "\n")))
	s.hold("slow.test.", "s._domainkey.slow.test.", "s._domainkey.example.org.", "s._domainkey.last.test.", "_dmarc.example.org.")
	got := Check(t.Context(), NewResolver(s.address), message("192.0.2.7", "x", "a@slow.test", text))
	if got.SPF != authres.ResultFail || got.ARC.Value != authres.ResultPass || got.DMARC != authres.ResultFail || got.Policy != "reject" {
		t.Errorf("%s, policy %q; want ARC to pass, SPF and DMARC to fail", got.String(), got.Policy)
	}
}

// TestField has values that try to be more than a value.
func TestField(t *testing.T) {
	r := Results{SPF: "fail", SPFSender: true, DMARC: "none", DKIM: []DKIM{{Value: "fail", Domain: `x.test; dkim=pass header.d="bank.test`}}, From: "x.test\n\tspf=pass"}
	m := message("", `h; spf=pass`, `a\"; dkim=pass header.d=bank.test; x="@y`, "")
	field := r.Field("mx.test", m)
	id, results, err := authres.Parse(field)
	if err != nil || id != "mx.test" || len(results) != 3 || strings.Count(field, "\n") != 3 {
		t.Fatalf("%q: %d results of %s, %v", field, len(results), id, err)
	}
	for _, one := range results {
		switch x := one.(type) {
		case *authres.SPFResult:
			if x.Value != "fail" {
				t.Errorf("%+v", x)
			}
		case *authres.DKIMResult:
			if x.Value != "fail" {
				t.Errorf("%+v", x)
			}
		}
	}
	if want := "mx.test;\n\tspf=none smtp.helo=mail.test;\n\tdkim=none;\n\tdmarc=none"; (&Results{SPF: "none", DMARC: "none"}).Field("mx.test", message("", "mail.test", "", "")) != want {
		t.Errorf("%q", (&Results{SPF: "none", DMARC: "none"}).Field("mx.test", message("", "mail.test", "", "")))
	}
}

func TestClaims(t *testing.T) {
	for value, want := range map[string]bool{
		"mx.test; spf=pass": true, "MX.test 1; spf=pass": true, `"mx.test"; none`: true, `"mx\.test"; none`: true, "(a;(b)\\)) mx.test ; none": true,
		"m(x)x.test": true, "other.test; spf=pass smtp.helo=mx.test": false, "": false, "(mx.test) other.test": false, "\tmx.test": true,
	} {
		if got := Claims(value, "mx.test"); got != want {
			t.Errorf("%q: %v", value, got)
		}
	}
}

// TestResolver sees that answers are remembered for a while, and that a message cannot ask for ever.
func TestResolver(t *testing.T) {
	s := startZone(t)
	r := NewResolver(s.address)
	now := time.Unix(1e9, 0)
	r.now = func() time.Time { return now }
	lookup := func(name string) error {
		_, err := r.client().LookupTXT(t.Context(), name)
		return err
	}
	for range 3 {
		if err := lookup("Example.org."); err != nil {
			t.Fatal(err)
		}
		if err := lookup("missing.test"); err == nil {
			t.Error("a name that is not there has a record")
		}
	}
	if n, m := s.questions("TXT example.org."), s.questions("TXT missing.test."); n != 1 || m != 1 {
		t.Errorf("asked %d and %d times", n, m)
	}
	now = now.Add(time.Minute)
	_, _ = lookup("example.org"), lookup("missing.test")
	if n, m := s.questions("TXT example.org."), s.questions("TXT missing.test."); n != 1 || m != 2 {
		t.Errorf("asked %d and %d times after a minute", n, m)
	}
	now = now.Add(time.Hour)
	if _ = lookup("example.org"); s.questions("TXT example.org.") != 2 {
		t.Error("an old answer is used")
	}
	c := r.client()
	var last error
	for i := range maxLookups + 5 {
		_, last = c.LookupTXT(t.Context(), strings.Repeat("x", i%50+1)+strings.Repeat("y", i/50)+".test")
	}
	if !isTemporary(last) || !strings.Contains(last.Error(), "too many") {
		t.Errorf("after %d look-ups: %v", maxLookups, last)
	}
	for i := range maxCached {
		r.remember(question{"TXT", string(rune(i))}, nil, nil)
	}
	if len(r.cache) > maxCached {
		t.Errorf("%d answers are remembered", len(r.cache))
	}
}

// TestSilentNameServer has a name server that never answers: the deadline ends the check, and the result is for now.
func TestSilentNameServer(t *testing.T) {
	s := startZone(t)
	for _, name := range []string{"example.org.", "_dmarc.example.org.", "s._domainkey.example.org."} {
		s.breakName(name, silent)
	}
	ctx, cancel := testenv.Soon(context.Background())
	defer cancel()
	got := Check(ctx, NewResolver(s.address), message("192.0.2.7", "x", "a@example.org", signed(t, "example.org", mailOf("a@example.org"))))
	if got.SPF != authres.ResultTempError || got.DMARC != authres.ResultTempError || len(got.DKIM) != 1 || got.DKIM[0].Value != authres.ResultTempError {
		t.Error(got.String())
	}
}

// TestManySignatures has more signatures than are verified.
func TestManySignatures(t *testing.T) {
	s := startZone(t)
	one := signed(t, "example.org", mailOf("a@example.org"))
	field := one[:strings.Index(one, "\nFrom: ")+1]
	got := Check(t.Context(), NewResolver(s.address), message("192.0.2.7", "x", "a@nosp.test", strings.Repeat(field, 100)+mailOf("a@example.org")))
	if len(got.DKIM) != maxSignatures || !slices.ContainsFunc(got.DKIM, func(d DKIM) bool { return d.Value == authres.ResultPass }) {
		t.Errorf("%d signatures: %s", len(got.DKIM), got.String())
	}
}

func FuzzField(f *testing.F) {
	f.Add("a@example.org", "mail.example.org", "a@b.test")
	f.Add(`"; dkim=pass`, "(", `<a@b>, "c" <d@e>`)
	f.Fuzz(func(t *testing.T, sender, helo, from string) {
		r := Results{SPF: "fail", SPFSender: true, DMARC: "fail", DKIM: []DKIM{{Value: "fail", Domain: helo, Reason: sender}}, From: from}
		field := r.Field("mx.test", &Message{Sender: sender, Helo: helo})
		if strings.Contains(field, "pass") && strings.Contains(strings.NewReplacer("=", "").Replace(field), "=pass") || strings.Count(field, ";") != 3 || strings.Count(field, "\n") != 3 {
			t.Errorf("%q", field)
		}
		if strings.ContainsAny(r.String(), "\r\n") {
			t.Errorf("log %q", r.String())
		}
		if a := authorsOf(slices.Values([]string{from, helo})); len(a.domains) > maxAuthors || slices.Contains(a.domains, "") {
			t.Errorf("%q: %q", from, a.domains)
		}
		Claims(from, "mx.test")
	})
}
