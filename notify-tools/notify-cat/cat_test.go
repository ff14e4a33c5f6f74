package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/notify"
	"postern/internal/notify/hub"
	"postern/internal/testenv"
)

// daemon is a hub on a socket of its own.
func daemon(t *testing.T, file string) (h *hub.Hub, socket string) {
	t.Helper()
	socket = filepath.Join(testenv.ShortDir(t), file)
	return daemonAt(t, socket), socket
}

func daemonAt(t *testing.T, socket string) *hub.Hub {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	h := hub.New(hub.Options{})
	go h.Serve(l)
	t.Cleanup(h.Close)
	return h
}

// scripted is a server that writes what it is told and then reads on.
func scripted(t *testing.T, script string, hold bool) (socket string) {
	t.Helper()
	socket = filepath.Join(testenv.ShortDir(t), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan bool)
	t.Cleanup(func() { close(done); l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for s := script; len(s) > 0; {
					n := min(len(s), 4096)
					if _, err := c.Write([]byte(s[:n])); err != nil {
						return
					}
					s = s[n:]
				}
				if hold {
					<-done
				}
			}()
		}
	}()
	return socket
}

// cutTimes puts T where a line begins with a time.
func cutTimes(s string) string {
	lines := strings.SplitAfter(s, "\n")
	for i, l := range lines {
		if len(l) > 26 && l[4] == '-' {
			lines[i] = "T" + l[26:]
		}
	}
	return strings.Join(lines, "")
}

// EVT-02.
func TestFormats(t *testing.T) {
	h, socket := daemon(t, "mx-notify.sock")
	h.Seed(notify.Message{Letter: 'F', Text: "2"}, notify.Message{Letter: 'Y'})
	publish := func() {
		h.Publish(
			notify.Message{Letter: 'S', Text: "0 StateChange Idle -> Busy"},
			notify.Message{Letter: 'F', Text: "1"},
			notify.Message{Letter: 'S', Text: "0 scan q1 \xff\u202e"},
			notify.Message{Letter: 'Z'},
			notify.Message{Letter: 'S', Text: "0 StateChange Busy -> Idle"},
		)
	}
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"line", nil, "T mx =F 2 free\nT mx =Y some are free\n" +
			"T mx  S worker 0: Busy, was Idle\nT mx  F 1 free\nT mx  S worker 0: scan q1 \\xff\\u202e\nT mx  Z none is free\nT mx  S worker 0: Idle, was Busy\n"},
		{"raw", []string{"--raw"}, "F 2\nY\nS 0 StateChange Idle -> Busy\nF 1\nS 0 scan q1 \xff\u202e\nZ\nS 0 StateChange Busy -> Idle\n"},
		{"types", []string{"-t", "ZY", "--format=raw"}, "Y\nZ\n"},
		{"no snapshot", []string{"--types=FZ", "-f", "raw", "--no-snapshot"}, "F 1\nZ\n"},
		{"template", []string{"-t", "ZY", "--template", "{{.Type}} {{.Free}} {{.Event}}"}, "Y 2 Y\nZ 0 Z\n"},
		{"template as format", []string{"-t", "S", "-f", "{{.Worker}}|{{.Text}}|{{.Source}}"},
			"0|0 StateChange Idle -> Busy|mx\n0|0 scan q1 \\xff\\u202e|mx\n0|0 StateChange Busy -> Idle|mx\n"},
		{"color", []string{"-t", "Z", "--color=always"}, "\x1b[2mTIME\x1b[0m \x1b[36mmx\x1b[0m \x1b[31m Z\x1b[0m none is free\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h.Seed(notify.Message{Letter: 'F', Text: "2"}, notify.Message{Letter: 'Y'})
			var out, log testenv.Buffer
			n := strings.Count(tt.want, "\n")
			before := h.Stats().Subscriptions
			done := make(chan int, 1)
			go func() {
				done <- run(append(tt.args, socket, "--timeout=3m", "-n", fmt.Sprint(n)), &out, &log)
			}()
			testenv.Eventually(t, "a listener", func() bool { return h.Stats().Subscriptions > before })
			publish()
			if status := testenv.Receive(t, "the end of the tool", done); status != 0 {
				t.Errorf("status %d, %s", status, log.String())
			}
			got := cutTimes(out.String())
			if tt.name == "color" {
				got = got[:4] + "TIME" + got[4+26:]
			}
			if got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
			testenv.Eventually(t, "no listener", func() bool { return h.Stats().Listeners == 0 })
		})
	}
}

// subscribed says whether a listener's interest is in effect.
func subscribed(h *hub.Hub) bool { return h.Stats().Subscriptions > 0 }

// EVT-03.
func TestJSONIsAlwaysValid(t *testing.T) {
	h, socket := daemon(t, "x.sock")
	texts := []string{"", "0 plain", "1 \xff\xfe\x9b", "2 \u202eright\u2069", "3 \"quoted\\ </script>", "4 \U0001f4e8", "5 \u2028 \U000e0041"}
	var out, log testenv.Buffer
	done := make(chan int, 1)
	go func() {
		done <- run([]string{"-f", "json", "--timeout=3m", "-n", fmt.Sprint(len(texts)), socket}, &out, &log)
	}()
	testenv.Eventually(t, "a listener", func() bool { return subscribed(h) })
	for _, text := range texts {
		h.Publish(notify.Message{Letter: 'S', Text: text})
	}
	if status := testenv.Receive(t, "the end of the tool", done); status != 0 {
		t.Fatalf("status %d: %s", status, log.String())
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != len(texts) {
		t.Fatalf("%d lines: %q", len(lines), lines)
	}
	for i, line := range lines {
		var o struct {
			Kind, Source, Type, Text, Text_hex string
			Seq                                int
			Worker                             *int
			Time                               time.Time
		}
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		if want := strings.ToValidUTF8(texts[i], "\ufffd"); strings.Trim(o.Text, "\ufffd") != strings.Trim(want, "\ufffd") || o.Seq != i+1 || o.Type != "S" || o.Source != "x" || o.Kind != "event" {
			t.Errorf("%s: got %+v", line, o)
		}
		if i == 2 && o.Text_hex != "3120fffe9b" {
			t.Errorf("text_hex %q", o.Text_hex)
		}
		if i > 0 && (o.Worker == nil || *o.Worker != i-1) {
			t.Errorf("%s: no worker", line)
		}
		for _, r := range line {
			if r == '\u202e' || r == '\u2028' || r == '\U000e0041' || r == '\u2069' {
				t.Errorf("%q stands unescaped in %s", r, line)
			}
		}
	}
}

// EVT-04, EVT-05.
func TestExitStatuses(t *testing.T) {
	h, live := daemon(t, "n")
	h.Seed(notify.Message{Letter: 'F', Text: "3"})
	missing := filepath.Join(testenv.ShortDir(t), "none")
	tests := []struct {
		name   string
		args   []string
		status int
		stderr string
	}{
		{"no such flag", []string{"--bogus"}, 64, "unknown flag"},
		{"bad types", []string{"-t", "yz", live}, 64, "no upper-case letter"},
		{"bad format", []string{"-f", "xml", live}, 64, "not raw, line, json"},
		{"bad template", []string{"--template", "{{.Nothing}}", live}, 64, "Nothing"},
		{"bad since", []string{"--since", "x", live}, 64, "not N"},
		{"bad socket", []string{"inet:port"}, 64, "inet:port"},
		{"once", []string{"--once", live}, 0, ""},
		{"count", []string{"-n", "1", live}, 0, ""},
		{"time is up while connected", []string{"--timeout=500ms", live}, 124, "time is up"},
		{"time is up without a daemon", []string{"--timeout=50ms", missing}, 124, "waiting for none"},
		{"no daemon", []string{"--no-reconnect", missing}, 1, "no such file"},
		{"closed at once", []string{"--no-reconnect", scripted(t, "", false)}, 1, "EOF"},
		{"closed at once, again and again", []string{"--timeout=300ms", scripted(t, "", false)}, 124, "waiting for s"},
		{"silent", []string{"--timeout=100ms", scripted(t, "", true)}, 124, "time is up"},
		{"refused", []string{scripted(t, "*ERR No free listening slots\n", false)}, 2, "No free listening slots"},
		{"refused later", []string{scripted(t, "*OK\nF 3\n*ERR out\n", true)}, 2, "*ERR out"},
		{"too slow", []string{"--no-reconnect", scripted(t, "*OK\nF 3\n*ERR too slow\n", true)}, 2, "too slow"},
		{"too slow comes back", []string{"-n", "2", scripted(t, "*OK\nF 3\n*ERR too slow\n", true)}, 0, "lost s"},
		{"another greeting", []string{scripted(t, "220 mail ESMTP\r\n", true)}, 76, "220 mail ESMTP"},
		{"ten megabytes", []string{scripted(t, "*OK\n"+strings.Repeat("S", 10<<20), true)}, 76, "more than 4096 bytes"},
		{"ten megabytes for a greeting", []string{scripted(t, strings.Repeat("\x00", 10<<20), true)}, 76, "more than 4096 bytes"},
		{"once, no daemon", []string{"--once", missing}, 1, "none: connection lost: connect to "},
		{"once, closed at once", []string{"--once", scripted(t, "", false)}, 1, "EOF"},
		{"once, lost within the state", []string{"--once", scripted(t, "*OK\n*EXT 1 7\n=F 3\n", false)}, 1, "s: connection lost"},
		{"once, one of two", []string{"--once", missing, live}, 1, "none: connection lost"},
		{"once, time is up", []string{"--once", "--timeout=100ms", scripted(t, "", true)}, 124, "time is up"},
		{"once, original", []string{"--once", scripted(t, "*OK\nF 3\n", true)}, 76, "no snapshots"},
		{"original", []string{"-n", "2", scripted(t, "*OK\nF 3\noops\x00\nY\n", true)}, 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out, log testenv.Buffer
			var status int
			testenv.Go(t, "the tool", func() error { status = run(tt.args, &out, &log); return nil }).Wait()
			if status != tt.status || !strings.Contains(log.String(), tt.stderr) || tt.stderr == "" && log.String() != "" {
				t.Errorf("status %d, want %d; standard error %q", status, tt.status, log.String())
			}
			if n := strings.Count(log.String(), "\n"); n > 20 {
				t.Errorf("%d lines on standard error: a busy loop?", n)
			}
		})
	}
}

// EVT-05.
func TestReconnect(t *testing.T) {
	socket := filepath.Join(testenv.ShortDir(t), "mx-notify.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	first := hub.New(hub.Options{})
	go first.Serve(l)
	var out, log testenv.Buffer
	done := make(chan int, 1)
	go func() { done <- run([]string{"--raw", "-t", "YZ", "--timeout=3m", "-n", "4", socket}, &out, &log) }()
	testenv.Eventually(t, "a listener", func() bool { return subscribed(first) })
	first.Publish(notify.Message{Letter: 'Z'})
	testenv.Eventually(t, "Z", func() bool { return out.String() == "Z\n" })
	first.Close()
	testenv.Eventually(t, "the loss is told", func() bool {
		return strings.Contains(log.String(), "notify-cat: lost mx: ")
	})
	os.Remove(socket)
	// What the next run of the daemon says before we are back is not missed.
	second := hub.New(hub.Options{})
	second.Publish(notify.Message{Letter: 'Y'}, notify.Message{Letter: 'Z'})
	if l, err = net.Listen("unix", socket); err != nil {
		t.Fatal(err)
	}
	go second.Serve(l)
	defer second.Close()
	if status := testenv.Receive(t, "the end of the tool", done); status != 0 {
		t.Errorf("status %d", status)
	}
	if got := out.String(); got != "Z\nY\nZ\nZ\n" {
		t.Errorf("got %q", got)
	}
	if !strings.Contains(log.String(), "notify-cat: regained mx\n") {
		t.Errorf("standard error %q", log.String())
	}
}

func TestSeveralSockets(t *testing.T) {
	a, socketA := daemon(t, "a-notify.sock")
	b, socketB := daemon(t, "b.sock")
	a.Seed(notify.Message{Letter: 'F', Text: "1"})
	b.Seed(notify.Message{Letter: 'L', Text: "1"})
	var out, log testenv.Buffer
	if status := run([]string{"--once", "--raw", "--timeout=3m", socketA, "gate=" + socketB}, &out, &log); status != 0 {
		t.Errorf("status %d: %s", status, log.String())
	}
	if got := out.String(); got != "a F 1\na Y\ngate L 1\n" {
		t.Errorf("got %q", got)
	}
	out.Reset()
	if status := run([]string{"--once", "--raw", "gone=/nonexistent", "b=" + socketB, "away=/nonexistent"}, &out, &log); status != 1 {
		t.Errorf("status %d: %s", status, log.String())
	}
	if got := out.String(); got != "b L 1\n" || !strings.Contains(log.String(), "error: gone: ") || !strings.Contains(log.String(), "error: away: ") {
		t.Errorf("got %q, standard error %q", got, log.String())
	}
	out.Reset()
	tool := testenv.Go(t, "the tool", func() error {
		if status := run([]string{"--show-connection", "-f", "json", "-n", "3", socketA, "gone=/nonexistent"}, &out, &log); status != 0 {
			return fmt.Errorf("status %d", status)
		}
		return nil
	})
	testenv.Eventually(t, "both states", func() bool {
		return strings.Contains(out.String(), `"kind":"down","source":"gone"`) && strings.Contains(out.String(), `"kind":"up","source":"a"`)
	})
	a.Publish(notify.Message{Letter: 'Z'}) // the third, behind the state
	tool.Wait()
}
