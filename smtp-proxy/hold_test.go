package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// TestHold: what the filter wants held is in the Maildir, changed as the filter wants it, and the next hop has
// nothing of it.
func TestHold(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Extend("PIPELINING", "AUTH PLAIN")
	results := "Qlook%20at%0Ait\nHX-Example yes\nRthree@server.example\nf<new@x.example>\nF\n"
	pass := scanWith(t, results)
	release := scanWith(t, "F\n")
	hold := true
	m := startMultiplexor(t, func(words []string) string {
		if !hold {
			return release(words)
		}
		return pass(words)
	})
	dir := filepath.Join(t.TempDir(), "held")
	p := startProxyWith(t, listenSMTP, jsonLog, m.args(behind(b), "--hold=maildir:"+dir, "--auth-requires-tls=no")...)
	events := listenTo(t, p)
	c := greeted(t, p.addr)
	c.cmd("AUTH PLAIN AGZyZWQAeA==", "235")
	c.envelope()
	c.cmd("DATA", "354")
	c.send(smallMessage)
	c.expect("250 2.0.0")
	files, err := os.ReadDir(filepath.Join(dir, "new"))
	must(t, err)
	if len(files) != 1 {
		t.Fatalf("%d messages are held", len(files))
	}
	text := readFile(t, filepath.Join(dir, "new", files[0].Name()))
	for _, want := range []string{
		"Return-Path: <new@x.example>\nDelivered-To: to@server.example\nDelivered-To: three@server.example\nX-Postern-Hold: look at it\nReceived: from client.example ", " with ESMTPA id ",
		"\nSubject: test\nX-Example: yes\n\nHello\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("held is\n%s\nwithout %q", text, want)
		}
	}
	if n := len(b.Messages()); n != 0 {
		t.Errorf("%d messages reached the server", n)
	}
	checkRecord(t, logged(t, p, "message", 1)[0], map[string]any{"outcome": "held", "server": "maildir:" + dir, "queue": files[0].Name(), "reason": "look at it", "gate": ""})
	events.expect("F .*")
	events.expect("C .*")
	events.expect(`H \S+ \S+ look at it`)
	events.expect("A .*")
	figures := map[string]float64{}
	p.readMetrics(func(name, label string, v float64) { figures[name+label] = v })
	if figures["held_messages"] != 1 || figures["held_bytes"] != float64(len(text)) || figures["messages_totalheld"] != 1 {
		t.Errorf("metrics %v", figures)
	}
	// The session goes on, authenticated as it was.
	hold = false
	c.envelope()
	c.cmd("DATA", "354")
	c.send(smallMessage)
	c.expect("250")
	if got := b.Messages(); len(got) != 1 || got[0].Conn != 1 && fmt.Sprint(got[0].To) != "[<to@server.example>]" {
		t.Errorf("delivered %+v", got)
	}
}

// TestHoldFails: what cannot be held is neither lost nor let through.
func TestHoldFails(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	m := startMultiplexor(t, scanWith(t, "Qlook\nF\n"))
	dir := filepath.Join(t.TempDir(), "held")
	p := startProxy(t, m.args(behind(b), "--hold=maildir:"+dir)...)
	must(t, os.RemoveAll(dir))
	for range 2 {
		c := greeted(t, p.addr)
		c.envelope()
		c.cmd("DATA", "354")
		c.send(smallMessage)
		c.expect("451")
		c.cmd("QUIT", "221")
	}
	if n := len(b.Messages()); n != 0 {
		t.Errorf("%d messages reached the server", n)
	}
}

// TestHoldIsNotTheNextHop: where messages are held is lost before the envelope. They are held by another connection to
// it, or not at all; the next hop gets none.
func TestHoldIsNotTheNextHop(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{"close", "450 4.3.0 Not now"} {
		b, held := testenv.StartBackend(t), testenv.StartBackend(t)
		held.Answer(func(a testenv.Asked) string {
			if a.Verb == "RSET" {
				return answer
			}
			return ""
		})
		m := startMultiplexor(t, scanWith(t, "Qlook\nF\n"))
		p := startProxy(t, m.args(behind(b), "--hold=smtp://"+held.Addr)...)
		c := greeted(t, p.addr)
		c.envelope()
		c.cmd("DATA", "354")
		c.send(smallMessage)
		r := c.expect("")
		if n := len(held.Messages()); r.Code != 250 && r.Code != 451 || (r.Code == 250) != (n == 1) {
			t.Errorf("%s: %q, and %d messages are held", answer, r, n)
		}
		if n := len(b.Messages()); n != 0 {
			t.Errorf("%s: %d messages reached the next hop", answer, n)
		}
	}
}

// TestHoldFaultNamesThePlace: what goes wrong where messages are held is not said of the next hop.
func TestHoldFaultNamesThePlace(t *testing.T) {
	t.Parallel()
	b, held := testenv.StartBackend(t), testenv.StartBackend(t)
	b.Extend("PIPELINING", "8BITMIME")
	held.Extend("PIPELINING")
	m := startMultiplexor(t, scanWith(t, "Qlook\nF\n"))
	p := startProxyWith(t, listenSMTP, jsonLog, m.args(behind(b), "--hold=smtp://"+held.Addr, "--upstream-idle=0")...)
	for i, test := range []struct{ verb, act string }{{"MAIL", "envelope"}, {"DATA", "data"}, {"none", "content"}, {".", "end of data"}} {
		held.Answer(func(a testenv.Asked) string {
			if a.Verb == test.verb {
				return "close"
			}
			return ""
		})
		text := smallMessage
		if test.act == "content" {
			text = "Subject: x\r\n\r\n\xc3\xbc\r\n.\r\n" // which the place does not take
		}
		c := greeted(t, p.addr)
		c.cmd("MAIL FROM:<a@b.example> BODY=8BITMIME", "250")
		c.cmd("RCPT TO:<c@d.example>", "250")
		c.cmd("DATA", "354")
		c.send(text)
		c.expect("451")
		c.cmd("QUIT", "221")
		checkRecord(t, logged(t, p, "next hop failed", i+1)[i], map[string]any{"act": test.act, "server": "smtp://" + held.Addr})
	}
	held.Close()
	c := greeted(t, p.addr)
	c.envelope()
	c.cmd("DATA", "354")
	c.send(smallMessage)
	c.expect("451")
	checkRecord(t, logged(t, p, "next hop failed", 5)[4], map[string]any{"act": "hold", "server": ""})
}
