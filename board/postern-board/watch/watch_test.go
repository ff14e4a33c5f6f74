package watch

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/notify"
	"postern/internal/notify/hub"
	"postern/internal/notify/listener"
	"postern/internal/sockspec"
	"postern/internal/testenv"
)

// discard is a log that nobody reads.
var discard = slog.New(slog.DiscardHandler)

// newHub is a daemon's side of its notification socket.
func newHub(t testing.TB, path string) *hub.Hub {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	h := hub.New(hub.Options{Letters: "ABCDEFGHIJKLMNOPQRSTUVWXYZ", MaxListeners: 10, Log: discard})
	served := testenv.Go(t, "the hub, which is closed", func() error { return h.Serve(l) })
	t.Cleanup(func() {
		h.Close()
		served.Wait()
	})
	return h
}

// running starts a board and ends it with the test.
func running(t testing.TB, targets []Target, history int) *Board {
	t.Helper()
	b := New(targets, Options{Interval: testenv.Patience, History: history, Log: discard})
	ctx, cancel := context.WithCancel(context.Background())
	ran := testenv.Go(t, "Run, whose context has ended", func() error { b.Run(ctx); return nil })
	t.Cleanup(func() {
		cancel()
		ran.Wait()
	})
	return b
}

func unix(path string) sockspec.Spec { return sockspec.Spec{Network: "unix", Address: path} }

func publish(h *hub.Hub, lines ...string) {
	for _, line := range lines {
		h.Publish(notify.Message{Letter: line[0], Text: strings.TrimPrefix(line[1:], " ")})
	}
}

func TestParseTargets(t *testing.T) {
	got, err := ParseTargets([]string{
		"gw1 smtp-proxy notify=/run/a.sock metrics=tcp:gw1:9101", "gw1 multiplexor status=inet:4711", "gw2 pop3-stamp notify=/b",
	})
	want := []Target{
		{Gateway: "gw1", Kind: Proxy, Notify: unix("/run/a.sock"), Metrics: sockspec.Spec{Network: "tcp", Address: "gw1:9101"}},
		{Gateway: "gw1", Kind: Multiplexor, Status: sockspec.Spec{Network: "tcp4", Address: "127.0.0.1:4711"}},
		{Gateway: "gw2", Kind: POP3, Notify: unix("/b")},
	}
	if err != nil || len(got) != len(want) {
		t.Fatalf("%v, %v", got, err)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
	for text, part := range map[string]string{
		"":                                   "GATEWAY KIND",
		"gw1 smtp-proxy":                     "at least one",
		"gw/1 smtp-proxy notify=/a":          "gateway",
		".. smtp-proxy notify=/a":            "gateway",
		"gw1 postfix notify=/a":              "kind",
		"gw1 smtp-proxy status=/a":           "no such socket",
		"gw1 smtp-proxy notify":              "empty socket",
		"gw1 smtp-proxy /a":                  "no such socket",
		"gw1 pop3-stamp notify=/a notify=/b": "given twice",
		strings.Repeat("g", 65) + " smtp-proxy notify=/a": "gateway",
	} {
		if _, err := ParseTarget(text); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q: %v, want %q in it", text, err, part)
		}
	}
	if _, err := ParseTargets([]string{"a smtp-proxy notify=/a", "a smtp-proxy notify=/b"}); err == nil {
		t.Error("two daemons of one name are taken")
	}
}

// What a session and an address went through is found by either, in the words of postern-notify(7).
func TestFind(t *testing.T) {
	dir := testenv.ShortDir(t)
	h := newHub(t, filepath.Join(dir, "n"))
	b := running(t, []Target{{Gateway: "gw1", Kind: Proxy, Notify: unix(filepath.Join(dir, "n"))}}, 1000)
	testenv.Eventually(t, "the link", func() bool { return b.Views()[0].Reachable })
	publish(h, "G - 192.0.2.9 sessions 421", "C s1 192.0.2.1", "C s2 192.0.2.2", "A s2 q7 100 1", "J s1 554", "W s2 192.0.2.2 PLAIN ann", "D s1 192.0.2.1 3", "F 7")
	testenv.Eventually(t, "the last event", func() bool { return b.Views()[0].Free == 7 })
	texts := func(lines []Line) (all []string) {
		for _, l := range lines {
			all = append(all, string(l.Message.Letter)+" "+l.Session+" "+l.Address)
		}
		return all
	}
	for query, want := range map[string]string{
		"s1":        "D s1 192.0.2.1|J s1 192.0.2.1|C s1 192.0.2.1",
		"192.0.2.2": "W s2 192.0.2.2|A s2 192.0.2.2|C s2 192.0.2.2",
		"192.0.2.9": "G  192.0.2.9",
		"-":         "",
		"s3":        "",
		"":          "",
	} {
		if got := strings.Join(texts(b.Find(query, 10)), "|"); got != want {
			t.Errorf("find %q: %s, want %s", query, got, want)
		}
	}
	if got := strings.Join(texts(b.Refusals(10)), "|"); got != "W s2 192.0.2.2|J s1 192.0.2.1|G  192.0.2.9" {
		t.Errorf("refusals: %s", got)
	}
	if got := b.Find("s1", 2); len(got) != 2 {
		t.Errorf("%d lines, want 2", len(got))
	}
	if words := b.Find("s1", 10)[1].Words(); words != "session s1: refused for good with 554" {
		t.Errorf("words: %s", words)
	}
}

// However much is said, no more is kept than the settings allow; refusals are kept for longer than the rest.
func TestBRD_06_WhatIsKept(t *testing.T) {
	d := newDaemon(Target{Gateway: "gw1", Kind: Proxy})
	h := &history{most: 100}
	take := func(text string) {
		e := listener.Event{Kind: listener.Happened, Message: notify.Message{Letter: text[0], Text: text[2:]}}
		if l, keep := d.take(&e, time.Unix(1, 0)); keep {
			h.add(l)
		}
	}
	take("C bad 192.0.2.66")
	take("J bad 550")
	for i := range 3 * maxSessions {
		take(fmt.Sprintf("C s%d 192.0.2.1", i))
	}
	take("C long " + strings.Repeat("x", 4000))
	for i := range 2 * maxWorkers {
		take(fmt.Sprintf("S %d scan %s", i, strings.Repeat("y", 300)))
	}
	if len(h.all.lines) != 100 || len(d.clients) > maxSessions || len(d.workers) != maxWorkers {
		t.Errorf("%d lines, %d sessions, %d workers", len(h.all.lines), len(d.clients), len(d.workers))
	}
	if got := h.find("bad", 10); len(got) != 1 || got[0].Address != "192.0.2.66" {
		t.Errorf("the refusal: %+v", got)
	}
	newest := h.newest(&h.all, 1, func(*Line) bool { return true })
	if len(newest) != 1 || newest[0].Session != "long" || len(newest[0].Message.Text) != maxText {
		t.Errorf("the last line: %+v", newest)
	}
	if tag := d.workers[7].Tag; len(tag) != maxTag {
		t.Errorf("a tag of %d bytes", len(tag))
	}
}

func TestRates(t *testing.T) {
	var r rates
	for second := int64(1000); second < 1100; second++ {
		for range second - 1000 {
			r.add('A', second)
		}
		r.add('J', second)
	}
	for _, tt := range []struct {
		letters   string
		now, back int64
		want      uint64
	}{
		{"A", 1100, 1, 99}, {"A", 1100, 2, 99 + 98}, {"AJ", 1100, 1, 100}, {"J", 1100, 10, 10}, {"J", 1105, 10, 5}, {"J", 1200, 10, 0},
		{"J", 1099, 10, 10}, {"J", 1100, 60, 60}, {"", 1100, 60, 0},
	} {
		if got := r.sum(tt.letters, tt.now, tt.back); got != tt.want {
			t.Errorf("sum(%q, %d, %d) = %d, want %d", tt.letters, tt.now, tt.back, got, tt.want)
		}
	}
}

// What stands wrong is said, and is not said any more when it is over.
func TestProblems(t *testing.T) {
	dir := testenv.ShortDir(t)
	h := newHub(t, filepath.Join(dir, "n"))
	b := running(t, []Target{{Gateway: "gw1", Kind: Multiplexor, Notify: unix(filepath.Join(dir, "n"))}}, 1000)
	problem := func() string {
		var all []string
		for _, p := range b.Views()[0].Problems {
			all = append(all, p.Text)
		}
		return strings.Join(all, "; ")
	}
	for _, step := range []struct{ line, want string }{
		{"N 0", ""},
		{"E exit status 3: no such \x1b[31mfile", `workers come to nothing: exit status 3: no such \x1b[31mfile`},
		{"Z", `workers come to nothing: exit status 3: no such \x1b[31mfile; no worker is free`},
		{"E", "no worker is free"},
		{"Y", ""},
		{"R failed no worker has answered", "the last reload has failed: no worker has answered"},
		{"R", ""},
		{"L 1", "the load is too high: clients are told to come later"},
		{"L 0", ""},
		{"F 3", ""},
		{"S 0 StateChange Idle -> Busy", ""},
		{"R restart spool", "not in force before a restart: spool"},
	} {
		publish(h, step.line)
		want := strings.ReplaceAll(step.want, `\x1b`, " ") // the hub lets no control character through
		testenv.Eventually(t, step.line+" makes "+step.want, func() bool {
			got := problem()
			return b.Views()[0].Reachable && (got == step.want || got == want)
		})
	}
	h.Close()
	testenv.Eventually(t, "a lost link", func() bool {
		return !b.Views()[0].Reachable && strings.HasPrefix(problem(), "events cannot be read: ")
	})
	newHub(t, filepath.Join(dir, "n"))
	testenv.Eventually(t, "nothing of what the daemon said before it was started anew", func() bool {
		v := b.Views()[0]
		return v.Reachable && len(v.Problems) == 0 && v.Free == -1 && len(v.Workers) == 0
	})
}

// The original multiplexor, whose events have no numbers and which tells its status alone, can be watched as well.
func TestOriginalMultiplexor(t *testing.T) {
	dir := testenv.ShortDir(t)
	serve := func(name string, answer func(r *bufio.Reader, w io.Writer)) sockspec.Spec {
		l, err := net.Listen("unix", filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		testenv.Go(t, name, func() error {
			for {
				c, err := l.Accept()
				if err != nil {
					return nil
				}
				go func() {
					defer c.Close()
					testenv.Patient(c)
					answer(bufio.NewReader(c), c)
				}()
			}
		})
		t.Cleanup(func() { l.Close() })
		return unix(l.Addr().String())
	}
	events := serve("n", func(r *bufio.Reader, w io.Writer) {
		io.WriteString(w, "*OK\n")
		r.ReadString('\n')
		io.WriteString(w, "F 1\nS 0 StateChange Idle -> Busy\nS 0 scan\n")
		r.ReadString('\n')
	})
	var asked atomic.Int32
	status := serve("s", func(r *bufio.Reader, w io.Writer) {
		line, _ := r.ReadString('\n')
		switch line {
		case "status\n":
			io.WriteString(w, "BIS 10 5 0 0 100\n")
		case "workers\n":
			io.WriteString(w, "0 B 17 scan last=scan ago=2 (x)\n1 I 18 last=scan ago=5\n2 S ago=9\n")
		case "version\n":
			io.WriteString(w, "3.4\n")
		default:
			asked.Add(1) // what would go to a worker
		}
	})
	b := running(t, []Target{{Gateway: "old", Kind: Multiplexor, Notify: events, Status: status}}, 1000)
	testenv.Eventually(t, "status and events", func() bool {
		v := b.View("old", Multiplexor)
		return v.Reachable && len(v.Workers) == 3 && v.Workers[0].Tag == "scan" && v.Busy == 1 && v.Free == 2
	})
	if asked.Load() != 0 {
		t.Error("a worker was asked")
	}
	if v := b.View("old", Multiplexor); len(v.Problems) > 0 || v.Workers[1].State != "idle" {
		t.Errorf("%+v", v)
	}
}

func TestMetrics(t *testing.T) {
	r := newReader(&Target{Kind: Proxy}, time.Second)
	read := func(text string) *scrape {
		t.Helper()
		s, err := r.parse(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	const text = `# HELP postern_smtp_proxy_refused_total What a gate <refused>.
# TYPE postern_smtp_proxy_refused_total counter
postern_smtp_proxy_refused_total{gate="load"} %d
# TYPE postern_smtp_proxy_held_messages gauge
postern_smtp_proxy_held_messages 4
# TYPE postern_smtp_proxy_sessions gauge
postern_smtp_proxy_sessions 12
# TYPE postern_smtp_proxy_store_up gauge
postern_smtp_proxy_store_up 0
# TYPE go_goroutines gauge
go_goroutines 9
# TYPE postern_smtp_proxy_phase_seconds histogram
postern_smtp_proxy_phase_seconds_bucket{le="+Inf"} 3
postern_smtp_proxy_phase_seconds_sum 1.5
postern_smtp_proxy_phase_seconds_count 3
`
	d := newDaemon(Target{Gateway: "gw1", Kind: Proxy, Metrics: unix("/m")})
	d.note(&d.metrics, nil)
	start := time.Unix(1000, 0)
	for i := range 30 { // a refusal a second
		d.keep(read(fmt.Sprintf(text, 100+5*i)), start.Add(time.Duration(5*i)*time.Second))
	}
	v := d.view(start)
	if v.Busy != 12 || v.Held != 4 || len(v.Problems) != 1 || !strings.Contains(v.Problems[0].Text, "store") {
		t.Errorf("%+v", v)
	}
	got := Reasons([]*View{v, v})
	if len(got) != 1 || got[0].Name != "load" || got[0].Total != 490 || got[0].Rate != 2 {
		t.Errorf("reasons: %+v", got)
	}
	if len(d.scrapes) > 14 {
		t.Errorf("%d readings are kept", len(d.scrapes))
	}
	if len(v.Figures) != 6 {
		t.Errorf("figures: %+v", v.Figures)
	}
	d.keep(read(fmt.Sprintf(text, 3)), start.Add(time.Hour)) // it was started anew
	if got := Reasons([]*View{d.view(start)}); got[0].Rate != 0 || got[0].Total != 3 {
		t.Errorf("reasons after a restart: %+v", got)
	}
	for _, bad := range []string{"postern_x{", "\x00\xff"} {
		if _, err := r.parse(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// A daemon that answers without end, or not at all, costs no more than its bounds.
func TestBRD_06_EndlessMetrics(t *testing.T) {
	for what, answer := range map[string]http.HandlerFunc{
		"endless": func(w http.ResponseWriter, r *http.Request) {
			for err := error(nil); err == nil; {
				_, err = io.WriteString(w, "# "+strings.Repeat("x", 1000)+"\n")
			}
		},
		"redirected": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/metrics", http.StatusFound) },
		"status 503": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
	} {
		path := filepath.Join(testenv.ShortDir(t), "m")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: answer}
		testenv.Go(t, what, func() error { server.Serve(l); return nil })
		r := newReader(&Target{Kind: Proxy, Metrics: unix(path)}, testenv.Patience)
		_, err = r.read(context.Background())
		if err == nil {
			t.Errorf("%s: no error", what)
		}
		r.client.CloseIdleConnections()
		server.Close()
	}
	var text strings.Builder
	text.WriteString("# TYPE postern_smtp_proxy_x gauge\n")
	for i := range 2 * maxFigures {
		fmt.Fprintf(&text, "postern_smtp_proxy_x{l=\"%d\"} 1\n", i)
	}
	s, err := newReader(&Target{Kind: Proxy}, time.Second).parse(strings.NewReader(text.String()))
	if err != nil || len(s.figures) != maxFigures {
		t.Errorf("%v, %d figures", err, len(s.figures))
	}
}
