package main

import (
	"errors"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"postern/internal/smtp"
	"postern/smtp-proxy/filter"
	"postern/smtp-proxy/upstream"
)

// fakeHop answers commands from memory, and notes them and how it was let go.
type fakeHop struct {
	caps    upstream.Capabilities
	replies map[string]string // by the beginning of the command; 250 without one
	dies    bool              // the connection is lost behind left replies
	left    int
	heard   []string
	due     []string
}

func (h *fakeHop) Server() string                      { return "fake" }
func (h *fakeHop) Capabilities() upstream.Capabilities { return h.caps }
func (h *fakeHop) Flush() error                        { return nil }
func (h *fakeHop) AllowRecipients(int)                 {}
func (h *fakeHop) Content() io.Writer                  { return io.Discard }
func (h *fakeHop) EndContent() error                   { h.Command("."); return nil }
func (h *fakeHop) Release()                            { h.heard = append(h.heard, "(release)") }
func (h *fakeHop) Return()                             { h.heard = append(h.heard, "(return)") }
func (h *fakeHop) Abort()                              { h.heard = append(h.heard, "(abort)") }

func (h *fakeHop) Command(line string) {
	h.heard = append(h.heard, line)
	h.due = append(h.due, line)
}

func (h *fakeHop) Reply(time.Duration) (smtp.Reply, error) {
	line := h.due[0]
	h.due = h.due[1:]
	if h.left--; h.dies && h.left < 0 {
		return smtp.Reply{}, errors.New("connection is lost")
	}
	for begin, text := range h.replies {
		if strings.HasPrefix(line, begin) {
			code, err := strconv.Atoi(text)
			return reply(code, "", "said the next hop"), err
		}
	}
	return reply(250, "", "Ok"), nil
}

// fakeOwner is a session that only takes notes.
type fakeOwner struct {
	hops   []*fakeHop // those that there are
	told   []string   // to the client
	events []string
	tx     *transaction
}

func (o *fakeOwner) dial() (nextHop, error) {
	if len(o.hops) == 0 {
		return nil, errors.New("nobody is there")
	}
	h := o.hops[0]
	o.hops = o.hops[1:]
	return h, nil
}

func (o *fakeOwner) lost(string, nextHop, error) smtp.Reply {
	o.events = append(o.events, "lost")
	return reply(451, "4.4.2", "Lost")
}

func (o *fakeOwner) loggedOut() { o.events = append(o.events, "logged out") }

func (o *fakeOwner) accept(rcpt filter.Recipient) *smtp.Reply {
	o.tx.accepted = append(o.tx.accepted, rcpt)
	return nil
}

func (o *fakeOwner) tell(r smtp.Reply, to string, verdict bool) {
	o.told = append(o.told, strings.TrimSpace(strconv.Itoa(r.Code)+" "+to))
}

func (o *fakeOwner) note(slog.Level, string, ...any) {}

// to makes a recipient.
func to(t *testing.T, address string) filter.Recipient {
	t.Helper()
	path, _, err := smtp.ParsePath("<"+address+">", smtp.CheckRFC)
	if err != nil {
		t.Fatal(err)
	}
	return filter.Recipient{Path: path}
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// TestRelayPipelined: a transaction in one go, with what the next hop may make of it. The client's replies are in the order of
// its commands; a connection that is lost before it said anything is replaced, once.
func TestRelayPipelined(t *testing.T) {
	t.Parallel()
	pipelining := upstream.Capabilities{Pipelining: true}
	all := []string{"MAIL FROM:<>", "RCPT TO:<a@b.example>", "RCPT TO:<c@d.example>"}
	for _, tt := range []struct {
		name   string
		hops   []*fakeHop
		bound  bool
		told   []string // behind MAIL
		events []string
		heard  [][]string // by hop
		void   bool
	}{
		{
			"taken", []*fakeHop{{}}, false,
			[]string{"250", "250 a@b.example", "250 c@d.example", "250"}, nil, [][]string{all}, false,
		},
		{
			"one recipient refused", []*fakeHop{{replies: map[string]string{"RCPT TO:<a": "550"}}}, false,
			[]string{"250", "550 a@b.example", "250 c@d.example", "250"}, nil, [][]string{all}, false,
		},
		{
			"sender refused", []*fakeHop{{replies: map[string]string{"MAIL": "552", "RCPT": "503"}}}, false,
			[]string{"552", "552 a@b.example", "552 c@d.example", "250"}, nil, [][]string{all}, true,
		},
		{
			"lost at once, and begun anew", []*fakeHop{{dies: true}, {}}, false,
			[]string{"250", "250 a@b.example", "250 c@d.example", "250"}, nil, [][]string{append(slices.Clone(all), "(abort)"), all}, false,
		},
		{
			"lost at once twice", []*fakeHop{{dies: true}, {dies: true}, {}}, false,
			[]string{"451", "451 a@b.example", "451 c@d.example", "250"}, []string{"lost"},
			[][]string{append(slices.Clone(all), "(abort)"), append(slices.Clone(all), "(abort)"), nil}, false,
		},
		{
			"lost at once, and no other there", []*fakeHop{{dies: true}}, false,
			[]string{"451", "451 a@b.example", "451 c@d.example", "250"}, []string{"lost"}, [][]string{append(slices.Clone(all), "(abort)")}, false,
		},
		{
			"lost behind the first reply", []*fakeHop{{dies: true, left: 1}, {}}, false,
			[]string{"250", "451 a@b.example", "451 c@d.example", "250"}, []string{"lost"}, [][]string{append(slices.Clone(all), "(abort)"), nil}, false,
		},
		{
			"lost with the login", []*fakeHop{{dies: true}, {}}, true,
			[]string{"451", "451 a@b.example", "451 c@d.example", "250"}, []string{"lost", "logged out"}, [][]string{append(slices.Clone(all), "(abort)"), nil}, false,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tx := &transaction{}
			owner := &fakeOwner{hops: slices.Clone(tt.hops), tx: tx}
			r := relay{owner: owner}
			for _, h := range tt.hops {
				h.caps = pipelining
			}
			r.begin(tx)
			if err := r.connect(); err != nil {
				t.Fatal(err)
			}
			r.bound = tt.bound
			r.sendMail()
			r.sendRecipient(to(t, "a@b.example"))
			r.sendRecipient(to(t, "c@d.example"))
			if !r.say(reply(250, "", "Ok")) {
				t.Error("a reply of ours went in front of the next hop's")
			}
			r.collect()
			same(t, "client", owner.told, tt.told)
			same(t, "session", owner.events, tt.events)
			for i, h := range tt.hops {
				same(t, "next hop "+strconv.Itoa(i), h.heard, tt.heard[i])
			}
			if lost := slices.Contains(tt.events, "lost"); r.void != tt.void || (r.broken != nil) != lost {
				t.Errorf("void %v, broken %v", r.void, r.broken)
			}
			if r.say(reply(250, "", "Ok")) {
				t.Error("replies are pending behind collect")
			}
		})
	}
}

// TestRelayLetsGo: what becomes of a connection, and of a login on it.
func TestRelayLetsGo(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		how    parting
		bound  bool
		rset   string
		heard  []string
		events []string
		kept   bool
	}{
		{"in order", inOrder, false, "250", []string{"(release)"}, nil, false},
		{"in order, with a login", inOrder, true, "250", []string{"RSET"}, nil, true},
		{"out of step, with a login", inOrder, true, "354", []string{"RSET", "(abort)"}, []string{"logged out"}, false},
		{"idle", whenIdle, false, "250", []string{"(return)"}, nil, false},
		{"broken", broken, false, "250", []string{"(abort)"}, nil, false},
		{"broken, with a login", broken, true, "250", []string{"(abort)"}, []string{"logged out"}, false},
		{"another client", forgotten, true, "250", []string{"(abort)"}, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			owner, hop := &fakeOwner{}, &fakeHop{replies: map[string]string{"RSET": tt.rset}}
			r := relay{owner: owner, hop: hop, bound: tt.bound, asked: true}
			r.letGo(tt.how)
			same(t, "next hop", hop.heard, tt.heard)
			same(t, "session", owner.events, tt.events)
			if (r.hop != nil) != tt.kept || r.bound != tt.kept || r.asked {
				t.Errorf("%+v", r)
			}
			r.hop = nil
			r.letGo(tt.how) // there is nothing to let go
		})
	}
}

// TestRelayResumes: an envelope whose connection was let go is issued anew on the next one, or the message is refused for now.
func TestRelayResumes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		said  map[string]string
		heard []string
		code  int // 0: it is as if nothing had happened
	}{
		{"taken again", nil, []string{"MAIL FROM:<>", "RCPT TO:<a@b.example>"}, 0},
		{"not taken again", map[string]string{"RCPT": "550"}, []string{"MAIL FROM:<>", "RCPT TO:<a@b.example>"}, 451},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tx := &transaction{accepted: []filter.Recipient{to(t, "a@b.example")}}
			first, second := &fakeHop{}, &fakeHop{replies: tt.said}
			r := relay{owner: &fakeOwner{hops: []*fakeHop{second}, tx: tx}, hop: first, tx: tx, asked: true}
			if no := r.resume(); no != nil || len(first.heard) > 0 {
				t.Errorf("resumed what goes on: %v, %q", no, first.heard)
			}
			r.letGo(whenIdle)
			code := 0
			if no := r.resume(); no != nil {
				code = no.Code
			}
			if same(t, "next hop", second.heard, tt.heard); code != tt.code || r.asked != (code == 0) {
				t.Errorf("code %d, asked %v", code, r.asked)
			}
		})
	}
}

// TestRelayDoesNotChangeTheUser: a message of a client whose login is lost goes to nobody else.
func TestRelayDoesNotChangeTheUser(t *testing.T) {
	t.Parallel()
	tx := &transaction{accepted: []filter.Recipient{to(t, "a@b.example")}}
	other := &fakeHop{}
	owner := &fakeOwner{hops: []*fakeHop{other}, tx: tx}
	r := relay{owner: owner, hop: &fakeHop{dies: true}, tx: tx, asked: true, bound: true}
	env := tx.envelope()
	if no := r.openContent(&env); no == nil || no.Code != 451 {
		t.Errorf("reply %v", no)
	}
	same(t, "session", owner.events, []string{"logged out", "lost"})
	same(t, "another connection", other.heard, nil)
}
