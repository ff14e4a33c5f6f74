package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/testenv"
)

// heldBox is a Maildir of messages, put there by the proxy.
type heldBox struct {
	dir  string
	args []string
}

// holdMessages has a proxy hold messages, whose contents are given.
func holdMessages(t *testing.T, contents ...string) *heldBox {
	t.Helper()
	h := &heldBox{dir: filepath.Join(t.TempDir(), "held")}
	h.args = []string{"--hold=maildir:" + h.dir}
	m := startMultiplexor(t, scanWith(t, "Qlook%20at%0Ait\nF\n"))
	p := startProxy(t, m.args(behind(testenv.StartBackend(t)), h.args[0])...)
	c := greeted(t, p.addr)
	for _, content := range contents {
		c.cmd("MAIL FROM:<from@client.example>", "250")
		c.cmd("RCPT TO:<one@server.example>", "250")
		c.cmd("RCPT TO:<two@server.example>", "250")
		c.cmd("DATA", "354")
		c.send(content)
		c.expect("250")
	}
	return h
}

// run runs a command about what is held.
func (h *heldBox) run(t *testing.T, b *testenv.Backend, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	p := new(program)
	p.settings = *parseSettings(t, slices.Concat(h.args, []string{behind(b), "held"}, args)...)
	var out, errs strings.Builder
	status = p.commands()["held "+args[0]](&out, &errs)
	return status, out.String(), errs.String()
}

// ids returns what list shows.
func (h *heldBox) ids(t *testing.T) (ids []string) {
	t.Helper()
	_, out, _ := h.run(t, testenv.StartBackend(t), "list", "--format=json")
	for d := json.NewDecoder(strings.NewReader(out)); ; {
		var m struct{ ID string }
		err := d.Decode(&m)
		if err == io.EOF {
			return ids
		}
		must(t, err)
		ids = append(ids, m.ID)
	}
}

// TestHeldRelease: what is released goes on as it would have gone, with its envelope, and only what the next hop has taken
// is removed.
func TestHeldRelease(t *testing.T) {
	const text = "Subject: test\r\n\r\n.dot\r\n..two\r\nH\xc3\xbc\r\n"
	h := holdMessages(t, strings.ReplaceAll(text, "\r\n.", "\r\n..")+".\r\n")
	ids := h.ids(t)
	if len(ids) != 1 {
		t.Fatalf("held are %q", ids)
	}
	b := testenv.StartBackend(t)
	b.Extend("8BITMIME", "PIPELINING")
	answer := func(text string) {
		b.Answer(func(a testenv.Asked) string { return onLine(a, "RCPT TO:<two@", text) })
	}
	for _, tt := range []struct {
		answer string
		status int
	}{{"450 4.2.0 Not now", 75}, {"550 5.1.1 Nobody", 1}} {
		answer(tt.answer)
		if status, out, errs := h.run(t, b, "release", ids[0]); status != tt.status || out != "" || !strings.Contains(errs, tt.answer) {
			t.Errorf("status %d, want %d; %s%s", status, tt.status, out, errs)
		}
	}
	if got := h.ids(t); !slices.Equal(got, ids) || len(b.Messages()) != 0 {
		t.Fatalf("held are %q, and the next hop has %v", got, b.Messages())
	}
	answer("")
	if status, out, errs := h.run(t, b, "release", ids[0]); status != 0 || !strings.HasPrefix(out, ids[0]+" released: 250 ") || errs != "" {
		t.Errorf("status %d; %s%s", status, out, errs)
	}
	all := b.Messages()
	if len(all) != 1 || fmt.Sprint(all[0].From, all[0].To) != "<from@client.example> BODY=8BITMIME[<one@server.example> <two@server.example>]" {
		t.Fatalf("delivered %+v", all)
	}
	if !strings.HasSuffix(strings.ReplaceAll(all[0].Data, "\r\n", "\n"), "\n"+strings.ReplaceAll(text, "\r\n", "\n")) || strings.Contains(all[0].Data, "X-Postern-Hold") || !strings.HasPrefix(all[0].Data, "Received:") {
		t.Errorf("delivered %q", all[0].Data)
	}
	if got := h.ids(t); len(got) != 0 {
		t.Errorf("held are %q", got)
	}
	if status, _, errs := h.run(t, b, "release", ids[0]); status != 1 || !strings.Contains(errs, "no such message") {
		t.Errorf("status %d; %s", status, errs)
	}
}

// TestHeldReleaseTwice: two commands at a time send each message once.
func TestHeldReleaseTwice(t *testing.T) {
	h := holdMessages(t, smallMessage, smallMessage, smallMessage, smallMessage)
	b := testenv.StartBackend(t)
	ids := h.ids(t)
	var wg sync.WaitGroup
	for range 3 {
		p := new(program)
		p.settings = *parseSettings(t, slices.Concat(h.args, []string{behind(b), "held", "release"}, ids)...)
		wg.Go(func() { p.commands()["held release"](io.Discard, io.Discard) })
	}
	wg.Wait()
	if n := len(b.Messages()); n != len(ids) {
		t.Errorf("%d messages were released as %d", len(ids), n)
	}
	if got := h.ids(t); len(got) != 0 {
		t.Errorf("held are %q", got)
	}
}

// TestHeldList: list, show and drop, also by age; and nothing that a sender wrote moves a terminal.
func TestHeldList(t *testing.T) {
	h := holdMessages(t, "Subject: =?utf-8?q?old_=1B]0;x=07=E2=80=AE?=\r\n\r\nT\x1b[2J\tab\x9b\r\n.\r\n", smallMessage, smallMessage)
	b := testenv.StartBackend(t)
	ids := h.ids(t)
	old := slices.IndexFunc(ids, func(id string) bool { return strings.Contains(readFile(t, filepath.Join(h.dir, "new", id)), "old_") })
	must(t, os.Chtimes(filepath.Join(h.dir, "new", ids[old]), time.Time{}, time.Now().Add(-40*24*time.Hour)))
	status, out, _ := h.run(t, b, "list", "--older-than=30d")
	if lines := strings.Split(out, "\n"); status != 0 || len(lines) != 3 || !strings.HasPrefix(lines[1], ids[old]) ||
		!strings.Contains(lines[1], `<from@client.example>  one@server.example +1  look at it  old \x1b]0;x\x07\u202e`) {
		t.Errorf("status %d, listed\n%s", status, out)
	}
	status, out, _ = h.run(t, b, "show", ids[old])
	for _, want := range []string{"Reason: look at it\nFrom:   <from@client.example>\nTo:     <one@server.example>\nTo:     <two@server.example>\n\nReceived: ", "\n\n" + `T\x1b[2J` + "\tab" + `\x9b` + "\n"} {
		if status != 0 || !strings.Contains(out, want) {
			t.Errorf("status %d, no %q in\n%s", status, want, out)
		}
	}
	if status, out, _ = h.run(t, b, "show", "--raw", ids[old]); status != 0 || !strings.HasSuffix(out, "\n\nT\x1b[2J\tab\x9b\n") {
		t.Errorf("status %d, raw is %q", status, out)
	}
	if status, out, errs := h.run(t, b, "drop"); status != 64 || out != "" {
		t.Errorf("status %d; %s%s", status, out, errs)
	}
	if status, out, errs := h.run(t, b, "drop", "--older-than=30d"); status != 0 || out != ids[old]+" dropped\n" {
		t.Errorf("status %d; %s%s", status, out, errs)
	}
	rest := slices.Delete(ids, old, old+1)
	status, out, errs := h.run(t, b, "drop", "../x\x1b", rest[0])
	if status != 1 || out != rest[0]+" dropped\n" || !strings.Contains(errs, `../x\x1b: no such message`) {
		t.Errorf("status %d; %s%s", status, out, errs)
	}
	if status, out, errs := h.run(t, b, "drop", "--older-than=0s"); status != 0 || out != rest[1]+" dropped\n" {
		t.Errorf("status %d; %s%s", status, out, errs)
	}
	if status, out, _ := h.run(t, b, "list"); status != 1 || out != "" {
		t.Errorf("status %d; %s", status, out)
	}
	h.args = nil
	if status, _, errs := h.run(t, b, "list"); status != 78 || !strings.Contains(errs, "hold is not set") {
		t.Errorf("status %d; %s", status, errs)
	}
	if n := len(b.Messages()); n != 0 {
		t.Errorf("%d messages reached the next hop", n)
	}
}

func TestAge(t *testing.T) {
	for text, want := range map[string]time.Duration{"30d": 720 * time.Hour, "12h": 12 * time.Hour, "0.5d": 12 * time.Hour, "1h30m": 90 * time.Minute, "-1d": -1, "": -1, "d": -1, "99999999d": -1, "3": -1} {
		var a age
		if err := a.UnmarshalText([]byte(text)); (err == nil) != (want >= 0) || err == nil && time.Duration(a) != want {
			t.Errorf("%q is %v, %v; want %v", text, time.Duration(a), err, want)
		}
	}
}
