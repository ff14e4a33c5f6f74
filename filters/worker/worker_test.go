package worker

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postern/internal/testenv"
)

// serve returns the answers, and the status lines, to the requests.
func serve(t *testing.T, f *Filter, requests string) (answers []string, status string) {
	t.Helper()
	var out, st bytes.Buffer
	if f.ErrorLog == nil {
		f.ErrorLog = io.Discard
	}
	if err := f.Serve(strings.NewReader(requests), &out, &st); err != nil {
		t.Fatal(err)
	}
	if out.Len() == 0 {
		return nil, st.String()
	}
	return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n"), st.String()
}

// parity are the requests that our worker must answer as mimedefang.pl does, without and with the callbacks below.
var parity = []string{
	"ping", "PING", "ping x", "", "  ", "nonsense", "Foo a%20b  c", "BAR x",
	"map m k%20k", "map n k", "map x y", "map m", "map",
	"tick 3", "tick",
	"relayok 192.0.2.7 h 5 192.0.2.25 25 Q",
	"helook 192.0.2.7 h CONTINUE 5 192.0.2.25 25 Q",
	"helook 192.0.2.7 h TEMPFAIL 5 192.0.2.25 25 Q",
	"helook 192.0.2.7 h DISCARD 5 192.0.2.25 25 Q",
	"helook 192.0.2.7 h REJECT 5 192.0.2.25 25 Q",
	"helook 192.0.2.7 h ACCEPT_AND_NO_MORE_FILTERING 5 192.0.2.25 25 Q",
	"senderok <a%22b@x> 192.0.2.7 h helo DIR Q SIZE=812 BODY=8BITMIME",
	"recipok <b@x> <> 192.0.2.7 h <a@x> helo DIR Q smtp ? addr NOTIFY=NEVER",
	"scan Q /nonexistent/dir", "scan Q", "ping",
}

var parityFilter = `sub filter_map { my ($map, $key) = @_; return ('OK', "v $key") if $map eq 'm';
    return ('NOTFOUND', '') if $map eq 'n'; return ('BOGUS', 'x'); }
sub filter_tick { }
sub filter_unknown_cmd { my ($c, @a) = @_; return ('ok', $c, @a) if $c eq 'foo'; return ('nope', 'a b'); }
sub filter_relay { return ('REJECT', "no way \x{e9}", 550, '5.1.1', 3); }
sub filter_helo { my ($ip, $name, $helo, @rest) = @_; return ($helo, join('|', $ip, $name, @rest), 450, '5.0.0'); }
sub filter_sender { my ($sender, $ip, $name, $helo) = @_; return ('TEMPFAIL', join('|', $sender, $ip, $name, $helo, @ESMTPArgs), 421, '4.7.0'); }
sub filter_recipient { return ('CONTINUE', join('|', @_, @ESMTPArgs)); }
1;
`

func parityCallbacks() *Filter {
	actions := map[string]Action{"CONTINUE": Continue, "TEMPFAIL": TempFail, "DISCARD": Discard, "REJECT": Reject, "ACCEPT_AND_NO_MORE_FILTERING": Accept}
	join := func(args ...any) string {
		return strings.TrimSuffix(strings.ReplaceAll(fmt.Sprintln(args...), " ", "|"), "\n")
	}
	return &Filter{
		Map: func(name, key string) (MapStatus, string) {
			switch name {
			case "m":
				return MapOK, "v " + key
			case "n":
				return MapNotFound, ""
			}
			return "BOGUS", "x"
		},
		Tick: func(int) {},
		Unknown: func(verb string, args []string) (string, []string) {
			if verb == "foo" {
				return "ok", append([]string{verb}, args...)
			}
			return "nope", []string{"a b"}
		},
		Relay: func(*RelayRequest) Verdict {
			return Verdict{Action: Reject, Text: "no way \xe9", Code: "550", DSN: "5.1.1", Delay: 3 * time.Second}
		},
		Helo: func(r *HeloRequest) Verdict {
			return Verdict{Action: actions[r.Helo], Text: join(r.IP, r.Name, r.Port, r.MyIP, r.MyPort, r.QueueID), Code: "450", DSN: "5.0.0"}
		},
		Sender: func(r *SenderRequest) Verdict {
			return Verdict{Action: TempFail, Text: strings.Join(append([]string{r.Sender, r.IP, r.Name, r.Helo}, r.Args...), "|"), Code: "421", DSN: "4.7.0"}
		},
		Recipient: func(r *RecipientRequest) Verdict {
			return Verdict{Action: Continue, Text: strings.Join(append([]string{r.Recipient, r.Sender, r.IP, r.Name, r.FirstRecipient, r.Helo, r.Mailer, r.Host, r.Addr}, r.Args...), "|")}
		},
	}
}

// TestParity asks the real mimedefang.pl and ours the same.
func TestParity(t *testing.T) {
	program := testenv.Path(t, "answers compared with mimedefang.pl", "mimedefang.pl")
	filterFile := filepath.Join(t.TempDir(), "filter.pl")
	if err := os.WriteFile(filterFile, []byte(parityFilter), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	requests := slices.Clone(parity)
	for i := range requests {
		requests[i] = strings.ReplaceAll(requests[i], "DIR", dir)
	}
	for _, tt := range []struct {
		name, file string
		ours       *Filter
	}{{"no callbacks", "/dev/null", &Filter{}}, {"callbacks", filterFile, parityCallbacks()}} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.Command(program, "-f", tt.file, "-server")
			cmd.Stdin = strings.NewReader(strings.Join(requests, "\n") + "\n")
			cmd.Env = append(os.Environ(), "HOME="+dir, "LC_ALL=C")
			real, stderr, status := testenv.RunCmd(t, cmd)
			if status != 0 {
				t.Fatalf("status %d: %s", status, stderr)
			}
			want := strings.Split(strings.TrimSuffix(real, "\n"), "\n")
			got, _ := serve(t, tt.ours, strings.Join(requests, "\n")+"\n")
			if len(got) != len(requests) || len(want) != len(requests) {
				t.Fatalf("%d answers, mimedefang.pl gives %d to %d requests", len(got), len(want), len(requests))
			}
			for i, r := range requests {
				if !strings.EqualFold(got[i], want[i]) {
					t.Errorf("%s\n got %q\nwant %q", r, got[i], want[i])
				}
			}
		})
	}
}

func TestVerdict(t *testing.T) {
	long := strings.Repeat("é", 3000)
	tests := []struct {
		verdict Verdict
		want    string
	}{
		{Verdict{}, "ok 0 ? 554 5.7.1 0"},
		{Verdict{Action: Continue}, "ok 1 ? 250 2.1.0 0"},
		{Verdict{Action: Accept, Text: "fine"}, "ok 2 fine 250 2.1.0 0"},
		{Verdict{Action: Discard}, "ok 3 ? 250 2.1.0 0"},
		{Verdict{Action: TempFail, Text: "a b", Code: "421", DSN: "4.7.0", Delay: 2500 * time.Millisecond}, "ok -1 a%20b 421 4.7.0 2"},
		{Verdict{Action: TempFail, Code: "550", DSN: "5.1.1"}, "ok -1 ? 451 4.3.0 0"},
		{Verdict{Action: Reject, Code: "5x0", DSN: "5.1"}, "ok 0 ? 554 5.7.1 0"},
		{Verdict{Action: Reject, Text: "x\nok 1", Delay: -1}, "ok 0 x%0Aok%201 554 5.7.1 0"},
		{Verdict{Action: 17, Text: "x"}, "ok 0 x 554 5.7.1 0"},
	}
	for _, tt := range tests {
		if got := tt.verdict.String(); got != tt.want {
			t.Errorf("%+v: got %q, want %q", tt.verdict, got, tt.want)
		}
	}
	got := Verdict{Action: Reject, Text: long}.String()
	if len(got) > maxAnswer || !strings.HasSuffix(got, " 554 5.7.1 0") || strings.Contains(got, "% ") {
		t.Errorf("long text: %d bytes, ends %q", len(got), got[len(got)-40:])
	}
}

func TestServe(t *testing.T) {
	t.Run("panic", func(t *testing.T) {
		f := &Filter{
			Relay:   func(*RelayRequest) Verdict { panic("x") },
			Unknown: func(string, []string) (string, []string) { panic("x") },
		}
		got, _ := serve(t, f, "relayok a\nfoo\nping\n")
		want := []string{internalError.String(), "error: filter failed", "PONG"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("one line each", func(t *testing.T) {
		f := &Filter{Unknown: func(v string, a []string) (string, []string) {
			return "ok", []string{strings.Repeat("é", 5000), "\nok"}
		}}
		got, _ := serve(t, f, "a\nb\r\nping")
		if len(got) != 3 || len(got[0]) > maxAnswer || got[2] != "PONG" {
			t.Errorf("answers %.80q", got)
		}
	})
	t.Run("long request", func(t *testing.T) {
		got, _ := serve(t, &Filter{}, "ping "+strings.Repeat("x", 2*maxRequest)+"\nping\n")
		if diff := cmp.Diff([]string{"error: Request too long", "PONG"}, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("end of input", func(t *testing.T) {
		if got, _ := serve(t, &Filter{}, ""); got != nil {
			t.Errorf("answers %q to nothing", got)
		}
	})
	t.Run("other side gone", func(t *testing.T) {
		if err := (&Filter{}).Serve(strings.NewReader("ping\n"), brokenPipe{}, nil); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("error %v", err)
		}
		if err := (&Filter{}).Serve(brokenPipe{}, io.Discard, nil); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("error %v", err)
		}
	})
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
func (brokenPipe) Read([]byte) (int, error)  { return 0, io.ErrClosedPipe }

func TestParseArgs(t *testing.T) {
	tests := []struct {
		args []string
		want Args
		err  bool
	}{
		{[]string{"-server"}, Args{Mode: Server}, false},
		{[]string{"-f", "/a/b", "-serveru"}, Args{Mode: StatusServer, Filter: "/a/b"}, false},
		{[]string{"--x", "y", "-server"}, Args{Mode: Server, Rest: []string{"--x", "y"}}, false},
		{[]string{"/spool/mdefang-x"}, Args{Mode: Once, Dir: "/spool/mdefang-x", Rest: []string{}}, false},
		{[]string{"-test", "-f", "x"}, Args{Mode: Test, Filter: "x"}, false},
		{[]string{"--help"}, Args{Rest: []string{"--help"}}, false},
		{[]string{"-server", "-serveru"}, Args{}, true},
		{[]string{"-f"}, Args{}, true},
	}
	for _, tt := range tests {
		got, err := ParseArgs(tt.args)
		if (err != nil) != tt.err {
			t.Errorf("%q: error %v", tt.args, err)
		}
		if diff := cmp.Diff(tt.want, got); err == nil && diff != "" {
			t.Errorf("%q: -want +got\n%s", tt.args, diff)
		}
	}
}

func FuzzServe(f *testing.F) {
	for _, r := range parity {
		f.Add(r)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, request string) {
		if strings.ContainsAny(request, "\n/") {
			return
		}
		filter := parityCallbacks()
		filter.ErrorLog = io.Discard
		filter.Scan = func(*Message) error { return nil }
		var out bytes.Buffer
		if err := filter.Serve(strings.NewReader(strings.ReplaceAll(request, "DIR", dir)+"\nping\n"), &out, nil); err != nil {
			t.Fatal(err)
		}
		answers := strings.Split(out.String(), "\n")
		if len(answers) != 3 || answers[1] != "PONG" || len(answers[0]) > maxAnswer {
			t.Errorf("%q is answered %q", request, answers)
		}
	})
}

func BenchmarkRelayok(b *testing.B) {
	in := strings.Repeat("relayok 192.0.2.7 mail.client.example 41234 192.0.2.25 25 NOQUEUE\n", 100)
	f := &Filter{Relay: func(*RelayRequest) Verdict { return Verdict{Action: Continue, Text: "ok"} }}
	b.ReportAllocs()
	for b.Loop() {
		if err := f.Serve(strings.NewReader(in), io.Discard, nil); err != nil {
			b.Fatal(err)
		}
	}
}
