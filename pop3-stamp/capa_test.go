package main

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
)

// seen is what an upstream server was told, in order.
type seen struct {
	mu    sync.Mutex
	lines []string
}

func (s *seen) add(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, line)
}

func (s *seen) all() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.lines, "|")
}

func (s *seen) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = nil
}

func (s *seen) count(line string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, l := range s.lines {
		if l == line {
			n++
		}
	}
	return n
}

// capable is an upstream server that can what list says; with other lists after the login of bob.
func capable(s *seen, before, after string) backendFunc {
	return func(p *peer) {
		p.send("+OK ready\r\n")
		list := before
		for {
			line := p.line()
			if line == "" {
				return
			}
			s.add(line)
			verb, arg, _ := strings.Cut(line, " ")
			switch verb {
			case "CAPA":
				p.send("+OK\r\n" + strings.ReplaceAll(list, "|", "\r\n") + "\r\n.\r\n")
			case "PASS":
				if arg != "secret" {
					p.send("-ERR [AUTH] no\r\n")
					continue
				}
				list = after
				p.send("+OK\r\n")
			case "LANG":
				switch arg {
				case "":
					p.send("+OK\r\nen English\r\n.\r\n")
				case "en":
					p.send("+OK en\r\n")
				default:
					p.send("-ERR no such language\r\n")
				}
			default:
				p.send("+OK " + verb + "\r\n")
			}
		}
	}
}

// capa asks for the list.
func (p *peer) capa() []string {
	p.t.Helper()
	p.ask("CAPA", "+OK")
	var list []string
	for line := p.line(); line != "."; line = p.line() {
		if line == "" {
			p.t.Fatal("no end of the list")
		}
		list = append(list, line)
	}
	slices.Sort(list)
	return list
}

// TestCapabilities: clients are offered what both the server and the proxy can. The server is asked once for all clients
// before their logins, and by each after its own.
func TestCapabilities(t *testing.T) {
	before := "TOP|UIDL|USER|SASL PLAIN EXTERNAL SCRAM-SHA-256-PLUS SCRAM-SHA-256 GSSAPI|STLS|UTF8 USER|LANG|EXPIRE 60|X-WHO ip|IMPLEMENTATION Elsewhere"
	after := "TOP|UTF8|LANG|EXPIRE 30|X-MORE|LOGIN-DELAY 10"
	for _, tt := range []struct {
		flags                  []string
		wantBefore, wantInside string
	}{
		{nil, "AUTH-RESP-CODE|EXPIRE 60|LANG|PIPELINING|RESP-CODES|TOP|UIDL|USER|UTF8 USER",
			"AUTH-RESP-CODE|EXPIRE 30|LANG|LOGIN-DELAY 10|PIPELINING|RESP-CODES|TOP|UTF8"},
		{[]string{"--sasl", "plain", "--sasl", "LOGIN", "--unknown-commands", "pass"},
			"AUTH-RESP-CODE|EXPIRE 60|LANG|PIPELINING|RESP-CODES|SASL PLAIN|TOP|UIDL|USER|UTF8 USER",
			"AUTH-RESP-CODE|EXPIRE 30|LANG|LOGIN-DELAY 10|PIPELINING|RESP-CODES|TOP|UTF8|X-MORE"},
		{[]string{"--sasl", "any"}, "AUTH-RESP-CODE|EXPIRE 60|LANG|PIPELINING|RESP-CODES|SASL PLAIN SCRAM-SHA-256|TOP|UIDL|USER|UTF8 USER",
			"AUTH-RESP-CODE|EXPIRE 30|LANG|LOGIN-DELAY 10|PIPELINING|RESP-CODES|TOP|UTF8"},
	} {
		t.Run(strings.Join(tt.flags, " "), func(t *testing.T) {
			var s seen
			r := start(t, backendAt(t, capable(&s, before, after)), tt.flags...)
			for range 3 {
				p := r.client(t)
				for range 2 {
					if got := strings.Join(p.capa(), "|"); got != tt.wantBefore {
						t.Errorf("before the login:\n%s, want\n%s", got, tt.wantBefore)
					}
				}
				p.ask("USER bob", "+OK")
				p.ask("PASS secret", "+OK")
				if got := strings.Join(p.capa(), "|"); got != tt.wantInside {
					t.Errorf("after the login:\n%s, want\n%s", got, tt.wantInside)
				}
				p.ask("QUIT", "+OK")
			}
			if n := s.count("CAPA"); n != 4 {
				t.Errorf("the server was asked %d times, want 1 before and 3 after logins: %s", n, s.all())
			}
		})
	}
}

// TestCapabilitiesOfAnOldServer has one that does not know CAPA, one whose list is endless, and one that is away.
func TestCapabilitiesOfAnOldServer(t *testing.T) {
	p := start(t, backendAt(t, mailbox("")), "--sasl", "PLAIN", "--sasl", "any").client(t)
	if got, want := strings.Join(p.capa(), "|"), "AUTH-RESP-CODE|PIPELINING|RESP-CODES|SASL PLAIN|TOP|UIDL|USER"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	var s seen
	p = start(t, backendAt(t, capable(&s, strings.Repeat("X|", maxCapa+1), ""))).client(t)
	p.ask("CAPA", "-ERR [SYS/TEMP]")
	p.ended()
	p = start(t, "pop3://127.0.0.1:1").client(t)
	p.ask("CAPA", "-ERR [SYS/TEMP]")
	p.ended()
}

// TestCapabilitiesOfSecondServer: they are kept under the name of the server that has them.
func TestCapabilitiesOfSecondServer(t *testing.T) {
	var s seen
	url := backendAt(t, capable(&s, "UTF8", ""))
	r := start(t, "pop3://127.0.0.1:1", "--upstream", url)
	for range 3 {
		r.client(t).capa()
	}
	if _, first := r.capabilities.get("127.0.0.1:1"); first || s.count("CAPA") != 1 {
		t.Errorf("the list is that of the first: %v; the second was asked %d times", first, s.count("CAPA"))
	}
}

// TestUTF8AndLang: both are passed on before the login, and asked again of the connection that a further try needs.
func TestUTF8AndLang(t *testing.T) {
	var s seen
	p := start(t, backendAt(t, capable(&s, "UTF8|LANG", "UTF8|LANG")), "--max-errors", "9").client(t)
	p.ask("UTF8 yes", "-ERR syntax")
	p.ask("UTF8", "+OK UTF8")
	p.ask("LANG", "+OK")
	p.want("en English")
	p.want(".")
	p.ask("LANG xx", "-ERR no such language")
	p.ask("LANG ../en", "-ERR syntax")
	p.ask("LANG en", "+OK en")
	p.ask("UTF8", "+OK UTF8")
	p.ask("USER j\u00f8rgen", "+OK")
	p.ask("PASS gr\u00f8t", "-ERR [AUTH]")
	p.ask("USER bob", "+OK")
	p.ask("PASS secret", "+OK")
	p.ask("UTF8", "-ERR")
	p.ask("LANG en", "+OK en")
	p.ask("LANG xx", "-ERR no such language")
	p.ask("QUIT", "+OK")
	want := "UTF8|LANG|LANG xx|LANG en|UTF8|USER j\u00f8rgen|PASS gr\u00f8t|LANG en|UTF8|USER bob|PASS secret|LANG en|LANG xx|QUIT"
	if got := s.all(); got != want {
		t.Errorf("the server saw\n%s, want\n%s", got, want)
	}
}

// TestAnyMechanism: with "any" all mechanisms that can be passed through are, whatever their names, and no others.
func TestAnyMechanism(t *testing.T) {
	var s seen
	r := start(t, backendAt(t, capable(&s, "SASL X-OWN", "")), "--sasl", "any", "--max-errors", "99", "--max-login-tries", "99")
	for mechanism, want := range map[string]string{"X-OWN": "+OK AUTH", "x_other9": "+OK AUTH", "EXTERNAL": "-ERR [AUTH] mechanism", "ANONYMOUS": "-ERR [AUTH] mechanism",
		"SCRAM-SHA-1-PLUS": "-ERR [AUTH] mechanism", "ANY": "-ERR [AUTH] mechanism", "": "-ERR [AUTH] mechanism", "A.B": "-ERR [AUTH] mechanism",
		strings.Repeat("X", 21): "-ERR [AUTH] mechanism"} {
		r.client(t).ask(strings.TrimSpace("AUTH "+mechanism), want)
	}
	if got := s.all(); strings.Count(got, "AUTH") != 2 {
		t.Errorf("the server saw %s", got)
	}
	for _, bad := range []string{"EXTERNAL", "anonymous", "GSSAPI", "DIGEST-MD5", "SCRAM-SHA-1-PLUS", "A B", ""} {
		if mayPass(strings.ToUpper(bad)) {
			t.Errorf("%q may be passed through", bad)
		}
	}
}

// TestPOP_89_OnlyServersOfTheList: users choose among the servers of the list alone; all else is a name at the usual
// server, also with AUTH behind a name that has chosen.
func TestPOP_89_OnlyServersOfTheList(t *testing.T) {
	var usual, other seen
	url := backendAt(t, capable(&other, "UTF8", ""))
	host := strings.TrimPrefix(url, "pop3://")
	r := start(t, backendAt(t, capable(&usual, "UTF8", "")), "--user-upstream", url, "--sasl", "X-OWN", "--max-errors", "99", "--max-login-tries", "99")
	login := func(name, wantUsual, wantOther string) {
		t.Helper()
		usual.reset()
		other.reset()
		p := r.client(t)
		p.ask("UTF8", "+OK")
		p.ask("USER "+name, "+OK")
		p.ask("PASS secret", "+OK")
		p.ask("QUIT", "+OK")
		p.ended()
		if a, b := usual.all(), other.all(); a != wantUsual || b != wantOther {
			t.Errorf("%s: the usual server saw %q, the other %q, want %q and %q", name, a, b, wantUsual, wantOther)
		}
	}
	login("bob@"+host, "UTF8", "UTF8|USER bob|PASS secret|QUIT")
	if line := strings.Fields(r.stampLine(t)); len(line) != 4 || line[2] != "bob@"+host || line[3] != host {
		t.Errorf("stamp %q", line)
	}
	login("a@b@127.0.0.1", "UTF8", "UTF8|USER a@b|PASS secret|QUIT")
	for _, name := range []string{"bob@example.org", "bob@" + host + ":1", "@" + host, "bob", "bob%" + host, "bob@[" + host + "]"} {
		login(name, "UTF8|USER "+name+"|PASS secret|QUIT", "")
	}
	usual.reset()
	other.reset()
	p := r.client(t)
	p.ask("USER bob@"+host, "+OK")
	p.ask("AUTH X-OWN", "+OK")
	p.ask("QUIT", "+OK")
	if a, b := usual.all(), other.all(); a != "AUTH X-OWN|QUIT" || b != "" {
		t.Errorf("AUTH: the usual server saw %q, the other %q", a, b)
	}
	r = start(t, backendAt(t, capable(&usual, "", "")))
	login("bob@"+host, "UTF8|USER bob@"+host+"|PASS secret|QUIT", "")
}

// TestOtherServerRefuses: a server of the list that knows neither UTF8 nor LANG lets its users log in all the same; what it says
// of them is read without their names; and nobody goes to and fro without end.
func TestOtherServerRefuses(t *testing.T) {
	var usual seen
	url := backendAt(t, func(p *peer) {
		p.send("+OK ready\r\n")
		for line := p.line(); line != ""; line = p.line() {
			switch verb, _, _ := strings.Cut(line, " "); {
			case line == "PASS secret", verb == "USER":
				p.send("+OK\r\n")
			case verb == "PASS":
				p.send("-ERR no user Locke\r\n")
			default:
				p.send("-ERR unknown\r\n")
			}
		}
	})
	at := "@" + strings.TrimPrefix(url, "pop3://")
	r := start(t, backendAt(t, capable(&usual, "UTF8", "")), "--user-upstream", url, "--max-errors", "3", "--sasl", "PLAIN")
	p := r.client(t)
	p.ask("UTF8", "+OK")
	p.ask("USER Locke"+at, "+OK")
	p.ask("PASS wrong", "-ERR [AUTH] no user Locke")
	p.ask("USER Locke"+at, "+OK")
	p.ask("PASS secret", "+OK")

	p = r.client(t)
	p.ask("LANG en", "+OK")
	p.ask("USER a"+at, "+OK")
	p.ask("LANG", "-ERR unknown")
	p.ask("USER a", "+OK")
	p.want("-ERR too many errors")
	p.ended()
}

// TestStampOfUsualServer: a login by AUTH at the usual server leaves no stamp of a user at another one.
func TestStampOfUsualServer(t *testing.T) {
	r := start(t, backendAt(t, func(p *peer) {
		p.send("+OK ready <1.2@x>\r\n")
		for p.line() != "" {
			p.send("+OK\r\n")
		}
	}), "--user-upstream", "pop3://h2.example", "--sasl", "PLAIN", "--apop=yes")
	p := r.client(t)
	p.ask("APOP bob@h2.example "+strings.Repeat("0", 32), "-ERR APOP is not available at that server")
	p.ask("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00bob@h2.example\x00secret")), "+OK")
	if line := strings.Fields(r.stampLine(t)); len(line) != 4 || line[2] != "-" {
		t.Errorf("stamp %q, want one without a user", line)
	}
}

func TestChoosable(t *testing.T) {
	list, err := parseChoosable([]string{"pop3s://Mail.example.org", "pop3://mail.example.org:1110", "pop3://[2001:db8::1]"})
	if err != nil {
		t.Fatal(err)
	}
	s := &settings{choosable: list, UserUpstreamDelimiter: "#"}
	for name, want := range map[string]string{
		"bob#MAIL.example.org": "bob mail.example.org:995 true", "bob#mail.example.org:1110": "bob mail.example.org:1110 false",
		"bob#2001:db8::1": "bob [2001:db8::1]:110 false", "bob#[2001:db8::1]:110": "bob [2001:db8::1]:110 false",
		"bob@x#mail.example.org": "bob@x mail.example.org:995 true", "bob#mail.example.org:110": "bob#mail.example.org:110 - false", "bob": "bob - false", "#mail.example.org": "#mail.example.org - false",
	} {
		user, server := s.choose(name)
		got := user + " - false"
		if server != nil {
			got = fmt.Sprint(user, " ", strings.ToLower(server.name), " ", server.tls)
		}
		if got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for _, bad := range []string{"", "@@", "a", ":", " ", "\n"} {
		if checkDelimiter(bad) == nil {
			t.Errorf("delimiter %q is taken", bad)
		}
	}
}
