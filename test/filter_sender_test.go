package test

import (
	"net"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// nameServer answers questions for TXT records, and says of other names that they do not exist.
func nameServer(t *testing.T, texts map[string]string) (address string) {
	t.Helper()
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: packets, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		reply := new(dns.Msg)
		reply.SetReply(q)
		name := q.Question[0].Name
		if text, ok := texts[strings.ToLower(name)]; !ok {
			reply.Rcode = dns.RcodeNameError
		} else if q.Question[0].Qtype == dns.TypeTXT {
			reply.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60}, Txt: []string{text}}}
		}
		_ = w.WriteMsg(reply)
	})}
	go func() { _ = server.ActivateAndServe() }()
	t.Cleanup(func() { _ = server.Shutdown() })
	return packets.LocalAddr().String()
}

// TestFilterBasicAuthenticates has filter-basic find out whom messages are from, with a name server of the test.
func TestFilterBasicAuthenticates(t *testing.T) {
	t.Parallel()
	server := nameServer(t, map[string]string{
		"example.org.": "v=spf1 ip4:192.0.2.0/24 -all", "_dmarc.example.org.": "v=DMARC1; p=reject",
		"bank.test.": "v=spf1 -all", "_dmarc.bank.test.": "v=DMARC1; p=reject",
	})
	flags := []string{"--authenticate", "--dns-server=" + server, "--authserv-id=mx.test", "--trusted-networks=127.0.0.1"}
	good := "From: a@example.org\nAuthentication-Results: mx.test; dkim=pass header.d=bank.test\n\nhello\n"
	forged := "From: a@bank.test\n\nhello\n"
	// The client of these messages has logged in.
	results, _ := scanMessage(t, good, flags...)
	if strings.Contains(results, "spf=") || !strings.Contains(results, "JAuthentication-Results 1\n") {
		t.Errorf("with a login: RESULTS %q", results)
	}
	for _, tt := range []struct{ message, flags, want string }{
		{good, "", "JAuthentication-Results 1\nN"},
		{good, "", "NAuthentication-Results 0 mx.test;%0A%09spf=pass%20smtp.helo=helo.example.org%20smtp.mailfrom=a@example.org;%0A%09dkim=none;%0A%09arc=none;%0A%09dmarc=pass%20header.from=example.org\n"},
		{forged, "", "dmarc=fail%20header.from=bank.test"},
		{forged, "--on-dmarc-fail=mark", "HX-Filter-Warning message%20is%20not%20from%20bank.test"},
		{forged, "--on-dmarc-fail=reject", "B550 5.7.26 message%20is%20not%20from%20bank.test"},
		{"From: ceo@bank.test <a@example.org>\n\nhello\n", "--on-dmarc-fail=reject", "B550 5.7.26 message%20is%20not%20from%20bank.test"},
		{"Subject: hello\n\nhello\n", "--on-dmarc-fail=reject", "HX-Filter-Warning message%20has%20no%20author%27s%20address"},
	} {
		results, log := scanAnonymous(t, tt.message, append(flags, strings.Fields(tt.flags)...)...)
		if !strings.Contains(results, tt.want) {
			t.Errorf("%s: RESULTS %q, without %q; log %q", tt.flags, results, tt.want, log)
		}
		if !strings.Contains(log, "AB12: spf=pass; arc=none; dmarc=") {
			t.Errorf("log %q", log)
		}
	}
}
