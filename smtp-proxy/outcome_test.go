package main

import (
	"net"
	"net/netip"
	"testing"

	"postern/internal/smtp"
)

// TestOutcomesOfLines: what the order rules make of a line, for a session that has no client at its other end.
func TestOutcomesOfLines(t *testing.T) {
	t.Parallel()
	p := startProxy(t, "--upstream=smtp://127.0.0.1:1")
	greeted := func(s *session) { s.client.greet(smtp.Ehlo, "client.example") }
	within := func(s *session) {
		greeted(s)
		s.tx = &transaction{}
		s.relay.begin(s.tx)
	}
	barred := func(s *session) { s.closing.bar() }
	for _, tt := range []struct {
		name   string
		before func(*session)
		line   string
		class  class
		code   int
		last   bool
	}{
		{"no greeting", nil, "MAIL FROM:<a@b.example>", classError, 503, false},
		{"no sender", greeted, "RCPT TO:<a@b.example>", classError, 503, false},
		{"second sender", within, "MAIL FROM:<a@b.example>", classError, 503, false},
		{"first sender", greeted, "MAIL FROM:<a@b.example>", classPending, 0, false},
		{"malformed sender", greeted, "MAIL FROM:<a@>", classError, 501, false},
		{"content without sender", greeted, "DATA", classError, 503, false},
		{"content without recipients", within, "DATA", classError, 554, false},
		{"chunk that cannot be read", within, "BDAT x", classClosed, 501, false},
		{"chunk without EHLO", nil, "BDAT 1", classClosed, 503, false},
		{"nothing to do", greeted, "NOOP", classJunk, 250, false},
		{"second greeting", greeted, "HELO again", classJunk, 250, false},
		{"another protocol", nil, "GET / HTTP/1.1", classClosed, 554, false},
		{"not even a word", nil, "\x16\x03\x01", classClosed, 554, false},
		{"unknown", greeted, "FOO", classError, 500, false},
		{"never relayed", greeted, "ETRN x", classError, 502, false},
		{"no TLS", greeted, "STARTTLS", classError, 502, false},
		{"stranger speaks for others", greeted, "XCLIENT ADDR=192.0.2.1", classError, 550, false},
		{"the end", greeted, "QUIT", classDone, 221, true},
		{"barred", barred, "EHLO x", classError, 503, false},
		{"barred, with octets to come", barred, "BDAT 3", classError, 503, true},
		{"barred may leave", barred, "QUIT", classDone, 221, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := offline(t, p.server)
			if tt.before != nil {
				tt.before(s)
			}
			o := s.line([]byte(tt.line), false, nil)
			if o.class != tt.class || o.reply.Code != tt.code || o.last != tt.last {
				t.Errorf("%+v, want %+v", o, tt)
			}
		})
	}
}

// TestAnswerOfOutcomes: what each class of outcome says to the client, counts and ends.
func TestAnswerOfOutcomes(t *testing.T) {
	t.Parallel()
	p := startProxy(t, "--upstream=smtp://127.0.0.1:1", "--max-errors=2", "--max-refusals=2", "--max-junk=2")
	yes, no, later := reply(250, "2.0.0", "Yes"), reply(550, "5.7.1", "No"), reply(450, "4.7.1", "Later")
	bye := reply(421, "4.3.2", "Bye")
	for _, tt := range []struct {
		name  string
		do    []outcome
		state state
		gate  string
	}{
		{"done", []outcome{done(yes), done(yes), pending}, stateOpen, ""},
		{"error", []outcome{failed(no)}, stateOpen, ""},
		{"errors", []outcome{failed(no), failed(no)}, stateSilent, gateErrors},
		{"errors between messages", []outcome{failed(no), {class: classAccepted, reply: yes}, failed(no)}, stateOpen, ""},
		{"refusals for now are not counted", []outcome{refused(later), refused(later), refused(later)}, stateOpen, ""},
		{"refusals for good are", []outcome{refused(no), refused(no)}, stateSilent, gateRefusals},
		{"questions put for nothing are junk", []outcome{deferred(later), deferred(later)}, stateSilent, gateJunk},
		{"junk", []outcome{junk(yes), junk(yes)}, stateSilent, gateJunk},
		{"421 of the filter", []outcome{refused(bye)}, stateSilent, gateFilter},
		{"barred", []outcome{{class: classBarred, reply: no}, failed(no)}, stateBarred, gateFilter},
		{"closed", []outcome{closed(gateSync, no), closed(gateJunk, no)}, stateSilent, gateSync},
		{"gone", []outcome{gone}, stateClosing, ""},
		{"dropped", []outcome{dropped(gateProxy)}, stateClosing, gateProxy},
		{"last", []outcome{done(yes).closing()}, stateClosing, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := offline(t, p.server)
			for _, o := range tt.do {
				s.answer(o)
			}
			if s.closing != (closing{tt.state, tt.gate}) {
				t.Errorf("state %d, gate %q; want %d, %q", s.closing.state, s.closing.gate, tt.state, tt.gate)
			}
		})
	}
}

// offline makes a session that nobody is connected to.
func offline(t *testing.T, srv *server) *session {
	t.Helper()
	near, far := net.Pipe()
	t.Cleanup(func() {
		near.Close()
		far.Close()
	})
	return srv.newSession(near, listenSMTP, netip.MustParseAddrPort("192.0.2.1:1025"), netip.AddrPort{})
}
