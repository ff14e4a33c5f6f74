package gate

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"postern/internal/connlimit"
	"postern/internal/netlist"
	"postern/internal/smtp"
	"postern/internal/stamp"
)

// fakeStore has stamps for some addresses.
type fakeStore struct {
	fresh []netip.Addr
	user  string
	err   error
}

func (s *fakeStore) Look(_ context.Context, addr netip.Addr) (stamp.Stamp, bool, error) {
	return stamp.Stamp{User: s.user}, s.err == nil && slices.Contains(s.fresh, addr), s.err
}

func newGates(c Config) *Gates {
	c.Log = slog.New(slog.DiscardHandler)
	c.Slots, c.LoadChanged, c.LoadFault = func(int, int) {}, func(bool) {}, func() {}
	return New(c)
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var (
	stranger = netip.MustParseAddr("192.0.2.1")
	stamped  = netip.MustParseAddr("192.0.2.2")
	exempt   = netip.MustParseAddr("10.0.0.1")
)

// TestGates has gates that are shut by turns: the first one in the order of the page tells, and Each tells of all.
func TestGates(t *testing.T) {
	full := func(_ context.Context, request string) (string, error) {
		if request == "free" {
			return "0\n", nil
		}
		return "ssss 0 4 2 2 100\n", nil
	}
	names := []string{NameRefuseFile, NameLoad, NamePressure, NameWorkers, NameStamp}
	for first := range len(names) + 1 {
		// All behind the first are shut, too.
		s := Settings{Load: LoadLimits{1}, LoadFile: write(t, "loadavg", "0 0 0 1/1 1\n"), Pressure: []PressureLimit{{"io", 10}}, PressureDir: t.TempDir()}
		c := Config{Stamps: &fakeStore{}}
		if first > 4 {
			c.Stamps = nil
		}
		if first <= 3 {
			c.Ask = full
		}
		if first <= 2 {
			s.PressureDir = filepath.Dir(write(t, "io", "some avg10=12.00 avg60=0\n"))
		}
		if first <= 1 {
			s.LoadFile = write(t, "loadavg", "2 2 2 1/1 1\n")
		}
		if first == 0 {
			s.RefuseFile = write(t, "refuse", "Back at noon\nor later\n")
		}
		c.Settings = s
		g := newGates(c)
		r := g.Check(context.Background(), Client{Addr: stranger})
		switch {
		case first == len(names):
			if r != nil {
				t.Errorf("all open: %+v", r)
			}
		case r == nil || r.Gate != names[first] || r.Reply.Code != 421:
			t.Errorf("%s is the first that is shut: %+v", names[first], r)
		case first == 0 && r.Reply.Lines[0] != "Back at noon":
			t.Errorf("reply %q", r.Reply.String())
		}
		var asked []string
		g.Each(context.Background(), Client{Addr: stranger}, func(name string, r *smtp.Reply) {
			asked = append(asked, name)
			if (r != nil) != (len(asked) > first) {
				t.Errorf("%s is the first that is shut; %s: %v", names[min(first, 4)], name, r)
			}
		})
		if !slices.Equal(asked, names) {
			t.Errorf("asked %q, want %q", asked, names)
		}
	}
}

func TestRefuseFile(t *testing.T) {
	for text, want := range map[string]string{
		"Back at noon\nsecond line\n": "Back at noon", " \n": "Service is down for maintenance, try again later", "": "Service is down for maintenance, try again later",
	} {
		g := newGates(Config{Settings: Settings{RefuseFile: write(t, "refuse", text)}})
		if r := g.Check(context.Background(), Client{}); r == nil || r.Reply.Lines[0] != want {
			t.Errorf("%q: %+v, want %q", text, r, want)
		}
		g.Set(Settings{RefuseFile: filepath.Join(t.TempDir(), "none")})
		if r := g.Check(context.Background(), Client{}); r != nil {
			t.Errorf("without the file: %+v", r)
		}
	}
}

func TestLimits(t *testing.T) {
	limits := LimitSettings{SessionLimits: connlimit.SessionLimits{Total: 2, PerOrigin: 1}, Exempt: netlist.List{netip.MustParsePrefix("10.0.0.0/8")}}
	g := newGates(Config{Settings: Settings{Limits: limits}}).Limits
	for i, want := range []string{"", "", NameSessions} {
		r := g.Enter()
		if got := name(r); got != want {
			t.Errorf("session %d: %q, want %q", i+1, got, want)
		}
	}
	for i, tt := range []struct {
		addr netip.Addr
		want string
	}{{stranger, ""}, {stranger, NameAddress}, {exempt, ""}, {exempt, ""}, {stamped, ""}} {
		leave, r := g.EnterAddress(t.Context(), tt.addr)
		if got := name(r); got != tt.want {
			t.Errorf("%d: %v: %q, want %q", i, tt.addr, got, tt.want)
		}
		if i == 0 {
			defer leave()
		}
	}
	limits.Rate = 1
	g.set(limits)
	for i, want := range []string{"", NameRate} {
		leave, r := g.EnterAddress(t.Context(), stamped.Next())
		if got := name(r); got != want {
			t.Errorf("session %d of a second: %q, want %q", i+1, got, want)
		}
		if leave != nil {
			leave()
		}
	}
}

func name(r *Refusal) string {
	if r == nil {
		return ""
	}
	return r.Gate
}

// TestRelay shows who may name recipients that are not ours.
func TestRelay(t *testing.T) {
	ours, err := ParseLocalDomains([]string{"y.test"})
	if err != nil {
		t.Fatal(err)
	}
	trusted := netlist.List{netip.MustParsePrefix("10.0.0.0/8")}
	stamps := &fakeStore{fresh: []netip.Addr{stamped}}
	for _, tt := range []struct {
		name   string
		client Client
		stamps *fakeStore
		s      Settings
		to     string
		gate   string // that is shut
		code   int
	}{
		{"no rule", Client{Addr: stranger}, nil, Settings{}, "a@out.test", "", 0},
		{"ours", Client{Addr: stranger}, nil, Settings{RefuseRelay: true, Local: ours}, "a@y.test", "", 0},
		{"outside", Client{Addr: stranger}, nil, Settings{RefuseRelay: true, Local: ours}, "a@out.test", NameRelay, 554},
		{"nothing is ours", Client{Addr: stranger}, nil, Settings{RefuseRelay: true}, "a@out.test", NameRelay, 454},
		{"logged in", Client{Addr: stranger, LoggedIn: true}, nil, Settings{RefuseRelay: true, Local: ours}, "a@out.test", "", 0},
		{"trusted network", Client{Addr: exempt}, nil, Settings{RefuseRelay: true, RelayClients: trusted}, "a@out.test", "", 0},
		{"local socket", Client{}, stamps, Settings{RefuseRelay: true, Local: ours}, "a@out.test", NameRelay, 554},
		{"stamp to connect, fresh", Client{Addr: stamped}, stamps, Settings{RefuseRelay: true, Local: ours}, "a@out.test", "", 0},
		{"stamp to connect, exempt from it", Client{Addr: exempt}, stamps, Settings{RefuseRelay: true, StampExempt: trusted, Local: ours}, "a@out.test", NameRelay, 554},
		{"stamp to relay, none", Client{Addr: stranger}, stamps, Settings{StampToRelay: true, Local: ours}, "a@out.test", NameStamp, 550},
		{"stamp to relay, ours", Client{Addr: stranger}, stamps, Settings{StampToRelay: true, Local: ours}, "a@y.test", "", 0},
		{"stamp to relay, fresh", Client{Addr: stamped}, stamps, Settings{StampToRelay: true, Local: ours}, "a@out.test", "", 0},
		{"stamp to relay, exempt", Client{Addr: exempt}, stamps, Settings{StampToRelay: true, StampExempt: trusted, Local: ours}, "a@out.test", "", 0},
		{"store away", Client{Addr: stamped}, &fakeStore{fresh: stamps.fresh, err: errors.New("away")}, Settings{StampToRelay: true, Local: ours}, "a@out.test", NameStamp, 451},
		{"store away, open to connect", Client{Addr: stamped}, &fakeStore{fresh: stamps.fresh, err: errors.New("away")},
			Settings{RefuseRelay: true, StoreDownOpen: true, Local: ours}, "a@out.test", NameStamp, 451},
		{"store away, ours", Client{Addr: stranger}, &fakeStore{err: errors.New("away")}, Settings{StampToRelay: true, Local: ours}, "a@y.test", "", 0},
		{"stamps wanted, but no store", Client{Addr: stranger}, nil, Settings{StampToRelay: true, Local: ours}, "a@out.test", "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Config{Settings: tt.s}
			if tt.stamps != nil {
				c.Stamps = tt.stamps
			}
			to, _, err := smtp.ParsePath("<"+tt.to+">", smtp.CheckRFC)
			if err != nil {
				t.Fatal(err)
			}
			r := newGates(c).Relay(context.Background(), tt.client, smtp.Path{}, to)
			if name(r) != tt.gate || r != nil && r.Reply.Code != tt.code {
				t.Errorf("%+v, want %q %d", r, tt.gate, tt.code)
			}
		})
	}
}

// TestPOP_85_StoreAway: while stamps cannot be looked up nobody comes in, unless the settings say so; nobody relays
// by that.
func TestPOP_85_StoreAway(t *testing.T) {
	for _, open := range []bool{false, true} {
		g := newGates(Config{Stamps: &fakeStore{err: errors.New("away")}, Settings: Settings{StoreDownOpen: open}})
		r := g.Check(context.Background(), Client{Addr: stamped})
		if (r == nil) != open || r != nil && r.Reply.Code != 421 {
			t.Errorf("open %v: %+v", open, r)
		}
	}
	g := newGates(Config{Stamps: &fakeStore{}, Settings: Settings{StoreDownOpen: true}})
	if g.Check(context.Background(), Client{Addr: stranger}) == nil {
		t.Error("a store that answers lets in who has no stamp")
	}
}

// TestPOP_86_SenderOfTheStamp: who was let in by a stamp sends as the user who has fetched mail, and as nobody else.
func TestPOP_86_SenderOfTheStamp(t *testing.T) {
	file := write(t, "senders", "# user and senders\n\nAnn@x.test  ann@x.test @ann.test\nann@x.test a.n.n@x.test\nbob\tbob@x.test\n* guest@x.test\n")
	senders, err := ReadSenders(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		user, from string
		code       int
	}{
		{"ann@x.test", "ANN@X.test", 0}, {"ANN@x.test", "a.n.n@x.test", 0}, {"ann@x.test", "any@ann.test", 0}, {"bob", "bob@x.test", 0}, {"bob", "", 0},
		{"ann@x.test", "bob@x.test", 553}, {"ann@x.test", "any@sub.ann.test", 553}, {"ann@x.test", "x@notann.test", 553}, {"bob", "ann@x.test", 553},
		{"bob", "guest@x.test", 553}, {"eve", "guest@x.test", 0}, {"", "guest@x.test", 0}, {"*", "guest@x.test", 0}, {"eve", "bob@x.test", 553}, {"", "bob@x.test", 553},
	} {
		g := newGates(Config{Stamps: &fakeStore{fresh: []netip.Addr{stamped}, user: tt.user}, Settings: Settings{Senders: senders, StampExempt: netlist.List{netip.PrefixFrom(exempt, 32)}}})
		from, _, err := smtp.ParsePath("<"+tt.from+">", smtp.CheckRFC)
		if err != nil {
			t.Fatal(err)
		}
		code := 0
		if r := g.Sender(context.Background(), Client{Addr: stamped}, from); r != nil {
			code = r.Reply.Code
		}
		if code != tt.code {
			t.Errorf("%q as %q: %d, want %d", tt.user, tt.from, code, tt.code)
		}
		for _, c := range []Client{{Addr: exempt}, {Addr: stranger, LoggedIn: true}} {
			if r := g.Sender(context.Background(), c, from); r != nil {
				t.Errorf("%+v: %+v", c, r)
			}
		}
	}
	from, _, _ := smtp.ParsePath("<bob@x.test>", smtp.CheckRFC)
	for _, tt := range []struct {
		s    *fakeStore
		code int
	}{{&fakeStore{}, 450}, {&fakeStore{err: errors.New("away")}, 451}} {
		if r := newGates(Config{Stamps: tt.s, Settings: Settings{Senders: senders}}).Sender(context.Background(), Client{Addr: stamped}, from); r == nil || r.Reply.Code != tt.code {
			t.Errorf("%+v: %+v, want %d", tt.s, r, tt.code)
		}
	}
	// A stamp that came after MAIL is for its user's mail alone.
	late := &fakeStore{user: "ann@x.test"}
	g := newGates(Config{Stamps: late, Settings: Settings{Senders: senders, StampToRelay: true}})
	if r := g.Sender(context.Background(), Client{Addr: stamped}, from); r != nil {
		t.Fatalf("without a stamp: %+v", r)
	}
	late.fresh = []netip.Addr{stamped}
	ours, _, _ := smtp.ParsePath("<ann@x.test>", smtp.CheckRFC)
	to, _, _ := smtp.ParsePath("<eve@outside.test>", smtp.CheckRFC)
	if r := g.Relay(context.Background(), Client{Addr: stamped}, from, to); r == nil || r.Reply.Code != 553 {
		t.Errorf("somebody else's sender: %+v, want 553", r)
	}
	if r := g.Relay(context.Background(), Client{Addr: stamped}, ours, to); r != nil {
		t.Errorf("the user's own sender: %+v", r)
	}
	for _, bad := range []string{"ann\n", "ann x.test\n", "ann x@\n", "ann @\n"} {
		if s, err := ReadSenders(write(t, "bad", bad)); err == nil {
			t.Errorf("%q: %v", bad, s)
		}
	}
}

// TestPressure reads what the kernel may write, and what it does not.
func TestPressure(t *testing.T) {
	for _, tt := range []struct {
		limits, file string
		shut         bool
	}{
		{"io=10", "some avg10=12.00 avg60=0 avg300=0 total=1\nfull avg10=0\n", true},
		{"io=12", "some avg10=12.00 avg60=0\n", true},
		{"io=12.01", "some avg10=12.00 avg60=0\n", false},
		{"cpu=1", "some avg10=12.00 avg60=0\n", false}, // there is no such file
		{"cpu=1 io=10", "some avg10=12.00 avg60=0\n", true},
		{"io=1", "full avg10=99\n", false},
		{"io=1", "some avg10=NaN\n", false},
		{"io=1", "", false},
	} {
		limits, err := ParsePressureLimits(tt.limits)
		if err != nil {
			t.Fatal(err)
		}
		g := newGates(Config{Settings: Settings{Pressure: limits, PressureDir: filepath.Dir(write(t, "io", tt.file))}})
		if r := g.Check(context.Background(), Client{}); (name(r) == NamePressure) != tt.shut {
			t.Errorf("%q, %q: %+v, want shut %v", tt.limits, tt.file, r, tt.shut)
		}
	}
	for _, bad := range []string{"disk=1", "io", "io=0", "io=101", "io=x", "io=NaN"} {
		if _, err := ParsePressureLimits(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
