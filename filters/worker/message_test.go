package worker

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postern/internal/workdir"
)

const commands = `iivED000
S<alice@client.example>
sSIZE=812
=j mx.test.invalid
=mail_addr 
=client_port 41234
Hmail.client.example
I192.0.2.7
Email.client.example
R<bob@example.org> smtp [127.0.0.1]:22525 bob@example.org
rNOTIFY=SUCCESS,FAILURE
Q678F499C6BD
R<a%20b@example.org>
UQuarterly%20caf%E9
X<1@client.example>
Usecond
!
?
F
Sforged
`

// newDir makes a working directory with the given COMMANDS.
func newDir(t *testing.T, commands string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "d")
	err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "COMMANDS"), []byte(commands), 0o600),
		os.WriteFile(filepath.Join(dir, "HEADERS"), []byte("Subject: x\nX-Twice: 1\nx-twice: 2\nX-Twice-Not: 3\n"), 0o600),
		os.WriteFile(filepath.Join(dir, "INPUTMSG"), []byte("Subject: x\n\nbody\n"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func results(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "RESULTS"))
	if errors.Is(err, os.ErrNotExist) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestEnvelope(t *testing.T) {
	want := &Envelope{
		ID: "ivED000", QueueID: "678F499C6BD", Sender: "<alice@client.example>", SenderArgs: []string{"SIZE=812"},
		Recipients: []Recipient{{"<bob@example.org>", "smtp", "[127.0.0.1]:22525", "bob@example.org", []string{"NOTIFY=SUCCESS,FAILURE"}},
			{"<a b@example.org>", "?", "?", "?", nil}},
		Macros:     map[string]string{"j": "mx.test.invalid", "mail_addr": "", "client_port": "41234"},
		ClientName: "mail.client.example", ClientIP: "192.0.2.7", ConnectedIP: "192.0.2.7", Helo: "mail.client.example",
		Subject: "Quarterly caf\xe9", Subjects: 2, MessageID: "<1@client.example>", SuspiciousHead: true, SuspiciousBody: true,
	}
	got, err := parseEnvelope(commands)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	early, err := ReadEnvelope(newDir(t, "iA\nS<>\nI192.0.2.1\nJ198.51.100.9\nZ?\n\nQ\n=\nR\nrx\n"))
	if err != nil || early.ClientIP != "198.51.100.9" || early.ConnectedIP != "192.0.2.1" || early.QueueID != "NOQUEUE" || early.Sender != "<>" {
		t.Errorf("before the end: %+v, %v", early, err)
	}
}

// TestDeadline has the time until which the front end waits as the end of the context, which ends with the scan anyway.
func TestDeadline(t *testing.T) {
	var ctx context.Context
	scan := func(commands string) (time.Time, bool) {
		f := Filter{Scan: func(m *Message) error {
			ctx = m.Context()
			if at, ok := ctx.Deadline(); at != m.Deadline || ok == m.Deadline.IsZero() {
				t.Errorf("the context ends at %v, and the deadline is %v", at, m.Deadline)
			}
			return ctx.Err()
		}}
		answer := (&server{Filter: &f}).answer("scan NOQUEUE " + newDir(t, commands))
		if ctx.Err() == nil {
			t.Error("the context goes on behind the scan")
		}
		at, _ := ctx.Deadline()
		return at, answer == "ok"
	}
	for commands, want := range map[string]int64{
		"=deadline 4000000000\nF\n": 4000000000, "=deadline 1\n=deadline 4000000000\nF\n": 4000000000,
		"F\n": 0, "=deadline \nF\n": 0, "=deadline soon\nF\n": 0, "=deadline -5\nF\n": 0, "F\n=deadline 4000000000\n": 0,
	} {
		if at, ok := scan(commands); !ok || want == 0 && !at.IsZero() || want != 0 && at.Unix() != want {
			t.Errorf("%q: %v, %v", commands, at, ok)
		}
	}
	if _, ok := scan("=deadline 1700000000\nF\n"); ok {
		t.Error("past the deadline the context goes on")
	}
}

func TestScan(t *testing.T) {
	var none string
	tests := []struct {
		name    string
		scan    func(*Message) error
		answer  string
		results string
	}{
		{"no callback", nil, "ok", "F\n"},
		{"nothing to do", func(*Message) error { return nil }, "ok", "F\n"},
		{"changes", func(m *Message) error {
			m.AddHeader("X-A", "b c%\nd")
			m.InsertHeader("X-B", "", 0)
			m.ChangeHeader("Subject", "[x] "+m.Subject, 1)
			m.DeleteAllHeaders("x-TWICE")
			m.AddRecipient("<c@d>")
			m.DeleteRecipient(m.Recipients[0].Address)
			m.ChangeSender("<>")
			m.SetContentType("text/plain;\n charset=utf-8")
			m.Hold("look at it")
			return nil
		}, "ok", "HX-A b%20c%25%0Ad\nNX-B 0 \nISubject 1 [x]%20Quarterly%20caf%E9\nJx-TWICE 2\nJx-TWICE 1\nR<c@d>\nS<bob@example.org>\n" +
			"f<>\nMtext/plain;%0A%20charset=utf-8\nQlook%20at%20it\nF\n"},
		{"reject", func(m *Message) error { m.Reject("no\nway", "550", "5.7.9"); m.TempFail("later", "", ""); return nil }, "ok", "B550 5.7.9 no%0Away\nF\n"},
		{"reject defaults", func(m *Message) error { m.Reject("no", "250", "2.0.0"); return nil }, "ok", "B554 5.7.1 no\nF\n"},
		{"tempfail", func(m *Message) error { m.TempFail("later", "", ""); return nil }, "ok", "T451 4.3.0 later\nF\n"},
		{"discard", func(m *Message) error { m.Discard(); m.Reject("x", "", ""); return nil }, "ok", "D\nF\n"},
		{"body", func(m *Message) error { return m.ReplaceBody(strings.NewReader("new\n")) }, "ok", "C\nF\n"},
		{"body twice", func(m *Message) error {
			_ = m.ReplaceBody(strings.NewReader("new\n"))
			_ = m.ReplaceBody(strings.NewReader("newer\n"))
			return nil
		}, "error: write NEWBODY: openat NEWBODY: file exists", none},
		{"error", func(m *Message) error { m.AddHeader("X-A", "b"); return errors.New("scanner\nis down") }, "error: scanner is down", none},
		{"panic", func(m *Message) error { m.AddHeader("X-A", "b"); panic("x") }, "error: filter failed", none},
		{"bad name", func(m *Message) error { m.AddHeader("X A", "b"); return nil }, `error: change H: invalid field name "X A"`, none},
		{"empty address", func(m *Message) error { m.AddRecipient(""); return nil }, "error: change R: empty address", none},
		{"long value", func(m *Message) error { m.AddHeader("X-A", strings.Repeat("x", 17000)); return nil },
			"error: change H: 17005 bytes in one line, more than 16382", none},
		{"too many changes", func(m *Message) error {
			for range 5000 {
				m.AddHeader("X-A", "0123456789")
			}
			return nil
		}, "error: more than 65535 bytes of changes", none},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := newDir(t, commands)
			got, _ := serve(t, &Filter{Scan: tt.scan}, "scan Q "+dir+"\n")
			if len(got) != 1 || got[0] != tt.answer {
				t.Errorf("answer %q, want %q", got, tt.answer)
			}
			r := results(t, dir)
			if r != tt.results {
				t.Errorf("RESULTS %q, want %q", r, tt.results)
			}
			if r == "" {
				return
			}
			if _, err := workdir.ParseResults([]byte(r)); err != nil {
				t.Errorf("the front end does not understand it: %v", err)
			}
		})
	}
}

func TestScanErrors(t *testing.T) {
	dir := newDir(t, "iA\n")
	twice := newDir(t, commands)
	empty := t.TempDir()
	got, _ := serve(t, &Filter{}, strings.Join([]string{"scan Q " + dir, "scan Q " + twice, "scan Q " + twice, "scan Q " + empty}, "\n"))
	want := []string{"error: COMMANDS file did not end with F", "ok", "error: Cannot mkdir(Work): file exists", "error: open COMMANDS: "}
	for i, w := range want {
		if len(got) != len(want) || !strings.HasPrefix(got[i], w) {
			t.Fatalf("answers %q, want %q", got, want)
		}
	}
}

func TestInput(t *testing.T) {
	var text string
	f := &Filter{Scan: func(m *Message) error {
		in, err := m.Input()
		if err != nil {
			return err
		}
		defer in.Close()
		b, err := io.ReadAll(in)
		text = string(b)
		return err
	}}
	dir := newDir(t, commands)
	if got, _ := serve(t, f, "scan Q "+dir); got[0] != "ok" || text != "Subject: x\n\nbody\n" {
		t.Errorf("answer %q, message %q", got, text)
	}
	dir = newDir(t, commands)
	if err := errors.Join(os.Remove(filepath.Join(dir, "INPUTMSG")), os.Symlink("/etc/passwd", filepath.Join(dir, "INPUTMSG"))); err != nil {
		t.Fatal(err)
	}
	if got, _ := serve(t, f, "scan Q "+dir); !strings.HasPrefix(got[0], "error: open INPUTMSG") {
		t.Errorf("a link was read: %q", got)
	}
}

// TestChangesBeforeScan has sender and recipient ask for changes; the scan appends to them.
func TestChangesBeforeScan(t *testing.T) {
	dir := newDir(t, commands)
	f := &Filter{
		Sender: func(r *SenderRequest) Verdict {
			e, err := r.Envelope()
			if err != nil {
				t.Error(err)
				return Verdict{}
			}
			r.AddHeader("X-Macro", e.Macros["j"])
			return Verdict{Action: Continue}
		},
		Recipient: func(r *RecipientRequest) Verdict {
			if e, err := r.Envelope(); err != nil || len(e.Recipients) != 2 {
				t.Errorf("envelope %+v, %v", e, err)
			}
			r.AddRecipient("<copy@x>")
			return Verdict{Action: Reject}
		},
		Scan: func(m *Message) error { m.AddHeader("X-C", "d"); return nil },
	}
	got, _ := serve(t, f, strings.ReplaceAll("senderok <a> 1 h h DIR Q\nrecipok <b> <a> 1 h <b> h DIR Q ? ? ?\nscan Q DIR\n", "DIR", dir))
	if len(got) != 3 || got[0] != "ok 1 ? 250 2.1.0 0" || got[1] != "ok 0 ? 554 5.7.1 0" || got[2] != "ok" {
		t.Errorf("answers %q", got)
	}
	if r := results(t, dir); r != "HX-Macro mx.test.invalid\nR<copy@x>\nHX-C d\nF\n" {
		t.Errorf("RESULTS %q", r)
	}
}

func TestChangesWithoutDirectory(t *testing.T) {
	f := &Filter{Sender: func(r *SenderRequest) Verdict { r.AddHeader("A", "b"); return Verdict{Action: Continue} }}
	if got, _ := serve(t, f, "senderok <a> 1 h h /nonexistent Q"); got[0] != internalError.String() {
		t.Errorf("answer %q, want %q", got, internalError)
	}
	dir := newDir(t, commands)
	if err := os.Symlink("COMMANDS", filepath.Join(dir, "RESULTS")); err != nil {
		t.Fatal(err)
	}
	if got, _ := serve(t, f, "senderok <a> 1 h h "+dir+" Q"); got[0] != internalError.String() {
		t.Errorf("answer over a link %q, want %q", got, internalError)
	}
}

func TestStatus(t *testing.T) {
	f := &Filter{Scan: func(m *Message) error { m.Status("unpacking\n100%"); return nil }}
	_, status := serve(t, f, "ping\nscan Q "+newDir(t, commands))
	want := "1:%20>%20Reading%20COMMANDS\n0:%20<%20no_tag\n1:%20>%20In%20filter%20ivED000\n2:%20>%20unpacking%0A100%25%20ivED000\n0:%20<%20no_tag%20ivED000\n"
	if status != want {
		t.Errorf("status\n got %q\nwant %q", status, want)
	}
}

func FuzzEnvelope(f *testing.F) {
	f.Add(commands)
	f.Add("R\n=\n=%20\nr\nU\n\nF")
	f.Fuzz(func(t *testing.T, text string) {
		e, err := parseEnvelope(text)
		if err != nil && err != errNoF {
			t.Fatal(err)
		}
		if e == nil || e.Macros == nil {
			t.Fatal("no envelope")
		}
	})
}
