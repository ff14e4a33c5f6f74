package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postern/internal/mxproto"
)

const workersReply = `0 B 6786 scan last=scan ago=0 (scan QQ)
1 B 6787 relayok last=relayok ago=75 (relayok 1.2.3.4)
2 I 6788 last=recipok ago=3600
3 S ago=0
4 K 17714 ago=200000
`

// topFake answers the three requests of top.
func topFake(t *testing.T, workers func() string) *fake {
	return answer(t, topReplies(workers))
}

// topReplies answers the requests of top as the original does.
func topReplies(workers func() string) func(request string) string {
	return func(request string) string {
		switch request {
		case "status\n":
			return "BBISK 1234 5 3 2 93784\n"
		case "workers\n":
			return workers()
		case "load1 10\n":
			return "12 2.500000 142.250000 3 1.000000 0.400000 0 0.000000 0.000000 4 3.000000 1.000000 " +
				"2 1 1 1 1234 5 3 2 93784 10 1 1 0 0\n"
		}
		return "Worker 1\nState Busy\nPID 6787\nNumRequests 1\nNumScans 1\nAge 1\nFirstReqAge 1\nLastStateChangeAge 0\nStatusTag \n"
	}
}

const topPlain = `Up 1d02h, 1234 scans done, 5 workers started
Workers 5: 2 busy, 1 idle, 1 killed, 1 stopped
Busy          2/5  [##...]
Queue         2/3  [##.]

Last 10 s          scan    relayok   senderok    recipok
Number               12          3          0          4
Per second          1.2        0.3        0.0        0.4
Average ms        142.2        0.4        0.0        1.0
Busy then           2.5        1.0        0.0        3.0
Running now           1          1          0          0

SLOT STATE       PID    FOR NOW      LAST     DOING
   1 busy       6787  1m15s relayok  relayok  relayok 1.2.3.4
   0 busy       6786     0s scan     scan     scan QQ
   4 killed    17714  2d07h
   2 idle       6788  1h00m          recipok
   3 stopped             0s
`

func TestTopWithoutTerminal(t *testing.T) {
	f := topFake(t, func() string { return workersReply })
	got := runAs(own, "", "-s", f.socket, "top")
	head, rest, _ := strings.Cut(got.stdout, "\n")
	title, clock, _ := strings.Cut(head, f.socket+"  ")
	if _, err := time.Parse(time.TimeOnly, clock); title != "mx-ctrl top  " || err != nil {
		t.Errorf("title %q: %v", head, err)
	}
	if d := cmp.Diff(topPlain, rest); d != "" || got.stderr != "" || got.status != 0 {
		t.Errorf("%v, differs (-want +got):\n%s", got, d)
	}
	// The multiplexor does not know its workers' usage: it is asked for one only.
	if sent := f.requests(); !slices.Equal(sent, []string{"status\n", "workers\n", "load1 10\n", "workerinfo 1\n"}) {
		t.Errorf("sent %q", sent)
	}
}

// TestTopShowsUsage: memory and processor time of workers, where the multiplexor tells
// them and the process is still the same.
func TestTopShowsUsage(t *testing.T) {
	const info = "Worker %d\nState Busy\nPID %s\nNumRequests 1\nNumScans 1\nAge 1\nFirstReqAge 1\nLastStateChangeAge 0\nStatusTag ResidentKB 1\nResidentKB %d\nCPUMilliseconds %d\n"
	plain := topReplies(func() string { return workersReply })
	f := answer(t, func(request string) string {
		switch request {
		case "workerinfo 0\n":
			return fmt.Sprintf(info, 0, "6786", 512, 1234)
		case "workerinfo 1\n":
			return fmt.Sprintf(info, 1, "6787", 25<<10, 75000)
		case "workerinfo 2\n":
			return fmt.Sprintf(info, 2, "9999", 1, 1) // another process by now
		case "workerinfo 4\n":
			return "Worker 4\nState Killed\nPID 17714\n"
		}
		return plain(request)
	})
	got := runAs(own, "", "-s", f.socket, "top")
	want := `SLOT STATE       PID    FOR MEMORY    CPU NOW      LAST     DOING
   1 busy       6787  1m15s  25.0M  1m15s relayok  relayok  relayok 1.2.3.4
   0 busy       6786     0s   512K  1.23s scan     scan     scan QQ
   4 killed    17714  2d07h
   2 idle       6788  1h00m                        recipok
   3 stopped             0s
`
	if _, table, _ := strings.Cut(got.stdout, "\n\nSLOT"); "SLOT"+table != want || got.status != 0 {
		t.Errorf("%v", got)
	}
}

// TestTopAsJSON: all workers, with what they use, safe to be shown.
func TestTopAsJSON(t *testing.T) {
	plain := topReplies(func() string { return strings.Replace(workersReply, "scan QQ", "scan \x1b[2J\"", 1) })
	f := answer(t, func(request string) string {
		if request == "workerinfo 1\n" {
			return "Worker 1\nPID 6787\nResidentKB 2\nCPUMilliseconds 1500\n"
		}
		return plain(request)
	})
	got := runAs(own, "", "-s", f.socket, "top", "--json")
	head, rest, _ := strings.Cut(got.stdout, `","uptime_seconds"`)
	if _, err := time.Parse(time.RFC3339, strings.TrimPrefix(head, `{"time":"`)); err != nil {
		t.Errorf("%q: %v", head, err)
	}
	want := `:93784,"messages":1234,"activations":5,"queue_size":3,"queued_requests":2,"workers":[` +
		`{"slot":0,"state":"busy","pid":"6786","state_seconds":0,"now":"scan","last":"scan","doing":"scan \u001b[2J\""},` +
		`{"slot":1,"state":"busy","pid":"6787","state_seconds":75,"now":"relayok","last":"relayok","doing":"relayok 1.2.3.4","resident_bytes":2048,"cpu_seconds":1.5},` +
		`{"slot":2,"state":"idle","pid":"6788","state_seconds":3600,"last":"recipok"},{"slot":3,"state":"stopped","state_seconds":0},{"slot":4,"state":"killed","pid":"17714","state_seconds":200000}]}` + "\n"
	if rest != want || got.status != 0 || got.stderr != "" {
		t.Errorf("%v\nwant %s", got, want)
	}
}

func TestSizes(t *testing.T) {
	for kib, want := range map[int64]string{0: "0K", 999: "999K", 1000: "0.9M", 1023999: "999.9M", 1024000: "0.9G", 1 << 40: ">999G"} {
		if got := size(kib); got != want {
			t.Errorf("size(%d) = %q, want %q", kib, got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "0.00s", 59999 * time.Millisecond: "59.99s", time.Hour: "1h00m"} {
		if got := cpuTime(d); got != want {
			t.Errorf("cpuTime(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestTopRefusedAnswers(t *testing.T) {
	good := map[string]string{"status": statusReply, "workers": "0 S ago=0\n", "load1 10": load1Reply}
	for _, tt := range []struct{ request, reply, want string }{
		{"status", "", "status: connection closed without an answer"},
		{"workers", "", "workers: connection closed without an answer"},
		{"status", "error: x\n", "status: answer not understood: error: x"},
		{"workers", "\x1b[2J\n", "workers: answer not understood: ?[2J"},
		{"load1 10", "1 2 3\n", "load1 10: answer not understood: 1 2 3"},
	} {
		f := answer(t, func(request string) string {
			if request == tt.request+"\n" {
				return tt.reply
			}
			return good[strings.TrimSuffix(request, "\n")]
		})
		got := runAs(own, "", "-s", f.socket, "top")
		if want := (result{"", "ERROR MXCommand: " + tt.want + "\n", 1}); got != want {
			t.Errorf("%s, %q: got %v, want %v", tt.request, tt.reply, got, want)
		}
	}
}

// testView is a view of workersReply at noon.
func testView(t *testing.T) *view {
	t.Helper()
	s := new(snapshot)
	var ok [3]bool
	s.status, ok[0] = mxproto.ParseStatus("BBISK 1234 5 3 2 93784\n")
	s.workers, ok[1] = mxproto.ParseWorkers(workersReply)
	s.load, ok[2] = mxproto.ParseRecentLoad(load1Reply)
	if ok != [3]bool{true, true, true} {
		t.Fatal("sample replies are not understood")
	}
	s.at = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	return &view{socket: "/s", current: s, now: s.at}
}

func texts(lines []line) (texts, headings []string) {
	for _, l := range lines {
		texts = append(texts, l.text)
		if l.heading {
			headings = append(headings, l.text)
		}
	}
	return texts, headings
}

func TestViewFitsTheScreen(t *testing.T) {
	v := testView(t)
	for columns := 1; columns < 100; columns += 7 {
		for rows := 1; rows < 30; rows++ {
			lines := v.lines(columns, rows)
			if len(lines) > rows {
				t.Fatalf("%d lines on %d rows", len(lines), rows)
			}
			for _, l := range lines {
				if len(l.text) > columns {
					t.Fatalf("%d columns on %d: %q", len(l.text), columns, l.text)
				}
			}
		}
	}
	const used = 14 // lines above the workers
	for rows, last := range map[int]string{
		used + 5: "   3 stopped             0s",
		used + 4: "... and 1 idle, 1 stopped",
		used + 3: "... and 1 idle, 1 killed, 1 stopped",
		used + 1: "... and 2 busy, 1 idle, 1 killed, 1 stopped",
	} {
		got, _ := texts(v.lines(80, rows))
		if len(got) != rows || got[rows-1] != last {
			t.Errorf("%d rows: %d lines, the last %q, want %q", rows, len(got), got[len(got)-1], last)
		}
	}
}

func TestViewHead(t *testing.T) {
	v := testView(t)
	_, got := texts(v.lines(40, 24))
	want := []string{"mx-ctrl top  /s                 12:00:00", v.tableHead()[:40]}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	v.paused, v.failure, v.now = true, errors.New("gone\x1b[2J"), v.now.Add(90*time.Second)
	_, got = texts(v.lines(40, 24))
	want = []string{"mx-ctrl top  /s         PAUSED  12:01:30", "No answer for 1m30s: gone?[2J", v.tableHead()[:40]}
	if !slices.Equal(got, want) {
		t.Errorf("paused and failed: got %q, want %q", got, want)
	}
	_, got = texts(v.lines(20, 24))
	if got[0] != "mx  PAUSED  12:01:30" {
		t.Errorf("narrow: got %q", got[0])
	}
}

func TestSafe(t *testing.T) {
	for in, want := range map[string]string{
		"plain text ~": "plain text ~", "a\x1b]0;x\x07b": "a?]0;x?b", "tab\tnl\ncr\r": "tab?nl?cr?", "\x9b2J": "?2J", "é": "??", "\x00\x7f": "??",
	} {
		if got := safeLine(in); got != want {
			t.Errorf("safeLine(%q) = %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{
		"tab\tnl\n": "tab\tnl\n", "a\x1b[2J\r": "a?[2J?", "\x9b2J": "?2J", "é€": "é€", "\u009b2J": "?2J", "\x00\x7f": "??",
	} {
		if got := safeText(in); got != want {
			t.Errorf("safeText(%q) = %q, want %q", in, got, want)
		}
	}
}

// FuzzTop holds that whatever the replies are, the view has only printable ASCII
// and fits the screen, and the other forms do not fail.
func FuzzTop(f *testing.F) {
	f.Add("BIKS 7 8 9 1 100\n", workersReply, load1Reply, 80, 24)
	f.Add("B", "0 B 1 ago=0 (a\x1b[2J\n\n", load1Reply, 20, 3)
	f.Add("B 1 2 99999999999 5 6", "0 B x=y ago=9223372036854775807 z (", "1e400 2", 1, 1)
	f.Fuzz(func(t *testing.T, status, workers, load string, columns, rows int) {
		columns, rows = 1+columns&0xff, 1+rows&0xff
		for _, c := range exact {
			c.show(status)
			c.show(load)
		}
		var s snapshot
		var ok1, ok2, ok3 bool
		s.status, ok1 = mxproto.ParseStatus(status)
		s.workers, ok2 = mxproto.ParseWorkers(workers)
		s.load, ok3 = mxproto.ParseRecentLoad(load)
		if !ok1 || !ok2 || !ok3 {
			return
		}
		v := view{socket: workers, current: &s, failure: &badReply{status, workers}}
		lines := v.lines(columns, rows)
		if len(lines) > rows {
			t.Errorf("%d lines on %d rows", len(lines), rows)
		}
		for _, l := range append(lines, v.lines(0, 0)...) {
			if l.text != safeLine(l.text) {
				t.Errorf("not safe: %q", l.text)
			}
		}
		for _, l := range lines {
			if len(l.text) > columns {
				t.Errorf("%d columns on %d: %q", len(l.text), columns, l.text)
			}
		}
	})
}
