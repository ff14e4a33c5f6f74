package filter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/smtp"
	"postern/internal/testenv"
	"postern/internal/workdir"
)

// multiplexor answers in the process: a scan by writing RESULTS.
type multiplexor struct {
	verdict string // of every question but scan
	results string
	newBody string
	spoil   bool  // the scan changes the message itself
	err     error // of every request
	asked   []string
	until   []time.Time // each answer is waited for
	told    string      // COMMANDS at the scan
}

func (m *multiplexor) Ask(ctx context.Context, request string) (string, error) {
	m.asked = append(m.asked, request)
	until, _ := ctx.Deadline()
	m.until = append(m.until, until)
	words := strings.Fields(request)
	if m.err != nil || words[0] != "scan" {
		return m.verdict, m.err
	}
	commands, err := os.ReadFile(filepath.Join(words[2], "COMMANDS"))
	if err != nil {
		return "", err
	}
	m.told = string(commands)
	files := map[string]string{"RESULTS": m.results}
	if m.newBody != "" {
		files["NEWBODY"] = m.newBody
	}
	if m.spoil {
		files["INPUTMSG"] = "Subject: other\n\nother\n"
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(words[2], name), []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	return "ok\n", nil
}

func (m *multiplexor) AskOurs(ctx context.Context, request string) (string, error) {
	return m.Ask(ctx, request)
}

func newFilter(t *testing.T, m *multiplexor) *Filter {
	t.Helper()
	spool := &workdir.Spool{Dir: testenv.ShortDir(t), Insecure: true}
	t.Cleanup(func() { _ = spool.Close() })
	return &Filter{
		Multiplexor: m, Spool: spool, Stages: Stages{Relayok: true, Helook: true, Senderok: true, Recipok: true, Scan: true},
		Timeout: time.Minute, MaxDelay: time.Second, Mailer: "esmtp", Host: "next.example",
	}
}

func path(t *testing.T, address string) smtp.Path {
	t.Helper()
	p, _, err := smtp.ParsePath(address, smtp.CheckRFC)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var someone = Client{Session: "ID1", IP: "192.0.2.1", Helo: "client.example", HasHelo: true}

const text = "Received: by earlier\r\nSubject: test\r\nX-A: one\r\nX-A: two\r\n\r\nBody\r\n"

// put puts a message to the filter, as any caller does that has the whole of it.
func put(t *testing.T, f *Filter, content string) (*Message, *Result) {
	t.Helper()
	from := path(t, "<from@client.example>")
	m, err := f.Begin(someone, workdir.NewQueueID(), from, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Remove(); err != nil {
			t.Error(err)
		}
	})
	env := Envelope{From: from, Rcpts: []Recipient{{Path: path(t, "<one@server.example>")}, {Path: path(t, "<two@server.example>")}}}
	for _, r := range env.Rcpts {
		if err := m.Took(r); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := m.Finish(); err != nil {
		t.Fatal(err)
	}
	if hops, err := m.Open(); err != nil || hops != 1 {
		t.Fatalf("%d hops, %v", hops, err)
	}
	r := m.Scan(context.Background(), env)
	t.Cleanup(r.Close)
	return m, r
}

func addresses(env Envelope) string {
	words := []string{env.From.String()}
	for _, r := range env.Rcpts {
		words = append(words, r.Path.String())
	}
	return strings.Join(words, " ")
}

// TestScan shows what each letter of RESULTS does to a message.
func TestScan(t *testing.T) {
	const before, ours = "<from@client.example> <one@server.example> <two@server.example>", "Received: ours\r\n"
	same := ours + strings.ReplaceAll(text, "Body\r\n", "Body\n")
	for _, tt := range []struct {
		name, results string
		verdict       string // the refusal, "discard", "hold ..." or "" for deliver
		envelope      string // "" for unchanged
		content       string
	}{
		{"F", "F\n", "", "", same},
		{"B", "B550 5.7.1 No%20way\nF\n", "550 5.7.1 No way", "", ""},
		{"T", "T451 4.3.0 Later\nF\n", "451 4.3.0 Later", "", ""},
		{"code that does not fit", "B250 2.0.0 Fine\nF\n", "554 5.7.1 Fine", "", ""},
		{"D", "D\nF\n", "discard", "", ""},
		{"H", "HX-B three\nF\n", "", "", strings.Replace(same, "two\r\n", "two\r\nX-B: three\r\n", 1)},
		{"N on top", "NX-B 0 three\nF\n", "", "", "X-B: three\r\n" + same},
		{"I", "IX-A 2 three\nF\n", "", "", strings.Replace(same, "two", "three", 1)},
		{"J", "JX-A 1\nF\n", "", "", strings.Replace(same, "X-A: one\r\n", "", 1)},
		{"J leaves ours alone", "JReceived 1\nF\n", "", "", strings.Replace(same, "Received: by earlier\r\n", "", 1)},
		{"M", "Mtext/html\nF\n", "", "", strings.Replace(same, "two\r\n", "two\r\nContent-Type: text/html\r\nMIME-Version: 1.0\r\n", 1)},
		{"C", "C\nF\n", "", "", strings.Replace(same, "Body\n", "New\n", 1)},
		{"R", "Rthree@r.example\nRone@SERVER.example\nF\n", "", before + " <three@r.example>", same},
		{"S", "Sone@server.example\nSnobody@r.example\nF\n", "", "<from@client.example> <two@server.example>", same},
		{"all deleted", "Sone@server.example\nStwo@server.example\nF\n", "discard", "<from@client.example>", ""},
		{"f", "f<>\nF\n", "", "<> <one@server.example> <two@server.example>", same},
		{"Q", "Qlook%20at%20it\nHX-B three\nF\n", "hold look at it", "", "X-Postern-Hold: look at it\r\n" + strings.Replace(same, "two\r\n", "two\r\nX-B: three\r\n", 1)},
		{"unknown letter", "zx\nF\n", "", "", same},
		{"bad address", "Ra%20b\nF\n", "451 4.3.0 Message cannot be checked now, try again later (ID1)", "", ""},
		{"no end", "HX-B three\n", "451 4.3.0 Message cannot be checked now, try again later (ID1)", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFilter(t, &multiplexor{results: tt.results, newBody: "New\n"})
			_, r := put(t, f, text)
			verdict := ""
			switch {
			case r.Refusal != nil:
				verdict = r.Refusal.String()
			case r.Discard:
				verdict = "discard"
			case r.Hold != "":
				verdict = "hold " + r.Hold
			}
			if verdict != tt.verdict {
				t.Fatalf("verdict %q (%v), want %q", verdict, r.Err, tt.verdict)
			}
			if failed := strings.Contains(tt.verdict, "ID1"); (r.Err != nil) != failed {
				t.Errorf("error %v", r.Err)
			}
			if r.Refusal != nil {
				return
			}
			want := tt.envelope
			if want == "" {
				want = before
			}
			if got := addresses(r.Envelope); got != want || r.Envelope.Changed != (tt.envelope != "") {
				t.Errorf("envelope %s, changed %v; want %s", got, r.Envelope.Changed, want)
			}
			if (len(r.Unknown) > 0) != (tt.name == "unknown letter") || (len(r.Ignored) > 0) != strings.Contains(tt.results, "nobody") {
				t.Errorf("not understood %q, ignored %q", r.Unknown, r.Ignored)
			}
			if r.Discard {
				return
			}
			var out strings.Builder
			if err := r.WriteContent(&out, []byte(strings.TrimSpace(ours)), false); err != nil || out.String() != tt.content {
				t.Errorf("content %q, %v\nwant    %q", out.String(), err, tt.content)
			}
		})
	}
}

// TestContentWithoutPath has the Received fields dropped, the proxy's and the filter's too.
func TestContentWithoutPath(t *testing.T) {
	f := newFilter(t, &multiplexor{results: "HReceived by%20the%20filter\nF\n"})
	f.ScannedBy = "us"
	_, r := put(t, f, text)
	var out strings.Builder
	if err := r.WriteContent(&out, nil, true); err != nil || out.String() != "Subject: test\r\nX-A: one\r\nX-A: two\r\nX-Scanned-By: us\r\n\r\nBody\n" {
		t.Errorf("content %q, %v", out.String(), err)
	}
}

// TestFailure has a filter that does not answer: the policy decides about every question and about the message.
func TestFailure(t *testing.T) {
	for policy, want := range map[string]string{
		"tempfail": "451 4.3.0 Message cannot be checked now, try again later (ID1)", "accept": "", "reject": "554 5.3.0 Message cannot be checked (ID1)",
	} {
		t.Run(policy, func(t *testing.T) {
			mx := &multiplexor{err: errors.New("away")}
			f := newFilter(t, mx)
			var err error
			if f.OnFailure, err = ParseOnFailure(policy); err != nil {
				t.Fatal(err)
			}
			m, r := put(t, f, text)
			verdicts := []Verdict{
				f.Relayok(context.Background(), someone), f.Helook(context.Background(), someone, "a"), m.AskSender(context.Background()),
				m.AskRecipient(context.Background(), Recipient{Path: path(t, "<a@b.example>")}, "<a@b.example>"), {Refusal: r.Refusal, Err: r.Err},
			}
			for i, v := range verdicts {
				got := ""
				if v.Refusal != nil {
					got = v.Refusal.String()
				}
				if got != want || v.Err == nil || v.Accept || v.Discard {
					t.Errorf("question %d: %+v, want %q", i, v, want)
				}
			}
			if want != "" {
				return
			}
			var out strings.Builder
			if err := r.WriteContent(&out, nil, false); err != nil || !strings.HasPrefix(out.String(), "Received: by earlier\r\nSubject: test\r\n") || r.Envelope.Changed {
				t.Errorf("goes on as %q, %v", out.String(), err)
			}
		})
	}
}

// TestDeadline has the filter told until when its scan is waited for, as the last line before F, and questions get no
// longer than a client waits.
func TestDeadline(t *testing.T) {
	mx := &multiplexor{verdict: "ok 1 ok 250 2.1.0 0\n", results: "F\n"}
	f := newFilter(t, mx)
	f.Timeout = time.Hour
	put(t, f, text)
	if want := fmt.Sprintf("\n=deadline %d\nF\n", mx.until[0].Unix()); !strings.HasSuffix(mx.told, want) || time.Until(mx.until[0]) > time.Hour {
		t.Errorf("waited for until %v; COMMANDS\n%s", mx.until[0], mx.told)
	}
	f.Relayok(context.Background(), someone)
	if left := time.Until(mx.until[1]); left > 4*time.Minute {
		t.Errorf("a question may take %v", left)
	}
}

// TestHalfOfTheChanges are not delivered, even if the policy is to accept what cannot be filtered.
func TestHalfOfTheChanges(t *testing.T) {
	f := newFilter(t, &multiplexor{results: "HX-B three\nRa%20b\nF\n"})
	f.OnFailure.Scan = Accept
	if _, r := put(t, f, text); r.Refusal == nil || !r.Refusal.Temporary() || r.Err == nil {
		t.Errorf("%+v", r)
	}
}

// TestMessageIsNotTheWorkers: what a worker writes over the message does not go on.
func TestMessageIsNotTheWorkers(t *testing.T) {
	f := newFilter(t, &multiplexor{results: "F\n", spoil: true})
	_, r := put(t, f, text)
	var out strings.Builder
	if err := r.WriteContent(&out, nil, false); !errors.Is(err, workdir.ErrChanged) {
		t.Errorf("%v; content %q", err, out.String())
	}
}

// TestVerdicts shows what the answers to questions mean.
func TestVerdicts(t *testing.T) {
	for _, tt := range []struct {
		answer string
		want   string
	}{
		{"ok 1 ok 250 2.1.0 0\n", "{false false <nil> 0s <nil>}"},
		{"ok 2 ok 250 2.1.0 0\n", "{true false <nil> 0s <nil>}"},
		{"ok 3 ok 250 2.1.0 0\n", "{false true <nil> 0s <nil>}"},
		{"ok 0 No%20way 550 5.7.1 0\n", "{false false 550 5.7.1 No way 0s <nil>}"},
		{"ok -1 Later 451 4.7.1 60\n", "{false false 451 4.7.1 Later 1s <nil>}"}, // the delay is bounded
		{"ok 0 Fine 250 2.0.0 0\n", ""},
	} {
		f := newFilter(t, &multiplexor{verdict: tt.answer})
		v := f.Relayok(context.Background(), someone)
		refusal := "<nil>"
		if v.Refusal != nil {
			refusal = v.Refusal.String()
		}
		got := fmt.Sprintf("{%v %v %s %v %v}", v.Accept, v.Discard, refusal, v.Delay, v.Err)
		if tt.want == "" && v.Refusal != nil && v.Refusal.Code >= 400 {
			continue
		}
		if got != tt.want {
			t.Errorf("%q: %s, want %s", tt.answer, got, tt.want)
		}
	}
}

// TestQuestions shows what is asked, and that a stage that is off asks nothing.
func TestQuestions(t *testing.T) {
	ask := func(stages Stages) []string {
		mx := &multiplexor{verdict: "ok 1 ok 250 2.1.0 0\n", results: "F\n"}
		f := newFilter(t, mx)
		f.Stages = stages
		c := someone
		c.MyIP, c.MyPort, c.Port = "192.0.2.25", 25, 1025
		ctx := context.Background()
		f.Relayok(ctx, c)
		f.Helook(ctx, c, "client.example")
		m, _ := put(t, f, text)
		m.AskSender(ctx)
		m.AskRecipient(ctx, Recipient{Path: path(t, "<TWO@server.example>")}, "<one@server.example>")
		return mx.asked
	}
	if got := ask(Stages{}); len(got) != 0 {
		t.Errorf("with all stages off: %q", got)
	}
	got := ask(Stages{true, true, true, true, true})
	for i, want := range []string{
		"relayok 192.0.2.1 [192.0.2.1] 1025 192.0.2.25 25", "helook 192.0.2.1 [192.0.2.1] client.example 1025 192.0.2.25 25", "scan ",
		"senderok <from@client.example> 192.0.2.1 [192.0.2.1] client.example ",
		"recipok <TWO@server.example> <from@client.example> 192.0.2.1 [192.0.2.1] <one@server.example> client.example ",
	} {
		if i >= len(got) || !strings.HasPrefix(got[i], want) {
			t.Errorf("asked %q, want %q at %d", got, want, i)
		}
	}
	if len(got) != 5 || !strings.HasSuffix(strings.TrimSpace(got[4]), " esmtp next.example two@server.example") {
		t.Errorf("asked %q", got)
	}
}
