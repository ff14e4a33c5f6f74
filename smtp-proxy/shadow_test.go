package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"postern/internal/testenv"
)

// shadowCounts returns the counts in their order: same, differs, failed, dropped.
func shadowCounts(p *proxy) string {
	var all []string
	for _, outcome := range shadowOutcomes {
		all = append(all, fmt.Sprint(p.shadow.counts[outcome].Load()))
	}
	return strings.Join(all, " ")
}

// TestShadow: the second filter sees a copy of the message, its verdict is compared and logged, and only the first one's
// counts.
func TestShadow(t *testing.T) {
	const results = "HX-A one\nRx@a.example\nF\n"
	for _, tt := range []struct {
		name, results, counts, logged string
		args                          []string
	}{
		{"same", "Rx@A.example\nHX-A one\nF\n", "1 0 0 0", "", nil},
		{"another verdict", "B554 5.7.1 No\nF\n", "0 1 0 0",
			`"field x-a: nothing, not H0 one; recipients: nothing, not +x@a.example; verdict: reject 554 5.7.1 No, not deliver"`, nil},
		{"another field", "HX-A two\nRx@a.example\nF\n", "0 1 0 0", `"field x-a: H0 two, not H0 one"`, nil},
		{"another field that may differ", "HX-a two\nRx@a.example\nF\n", "1 0 0 0", "", []string{"--shadow-ignore=x-A"}},
		{"no verdict", "nonsense", "0 0 1 0", "shadow filter failed", nil},
		{"none", "", "0 0 0 0", "", []string{"--shadow-share=0%"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := testenv.StartBackend(t)
			m := startMultiplexor(t, scanWith(t, results))
			var mu sync.Mutex
			var seen []string
			second := startMultiplexor(t, func(words []string) string {
				mu.Lock()
				defer mu.Unlock()
				for _, name := range []string{"INPUTMSG", "HEADERS"} {
					text, err := os.ReadFile(filepath.Join(words[2], name))
					if err != nil {
						t.Error(err)
					}
					seen = append(seen, string(text))
				}
				// What it does to its copy nobody else sees.
				if err := os.WriteFile(filepath.Join(words[2], "INPUTMSG"), []byte("changed"), 0o600); err != nil {
					t.Error(err)
				}
				return scanWith(t, tt.results)(words)
			})
			p := startProxy(t, m.args(append(tt.args, behind(b), "--shadow-multiplexor", second.spec)...)...)
			c := greeted(t, p.addr)
			c.envelope()
			c.cmd("DATA", "354")
			c.send(smallMessage)
			c.expect("250")
			testenv.Eventually(t, "counts of the shadow filter are "+tt.counts, func() bool { return shadowCounts(p) == tt.counts })
			if got := b.Messages(); len(got) != 1 || !strings.Contains(got[0].Data, "X-A: one") || len(got[0].To) != 2 {
				t.Errorf("delivered %+v", got)
			}
			if !strings.Contains(p.log.String(), tt.logged) || tt.logged == "" && strings.Contains(p.log.String(), "shadow") {
				t.Errorf("log has no %q\n%s", tt.logged, p.log)
			}
			mu.Lock()
			defer mu.Unlock()
			if tt.counts != "0 0 0 0" && (len(seen) != 2 || seen[0] != "Subject: test\n\nHello\n" || seen[1] != "Subject: test\n") {
				t.Errorf("it saw %q", seen)
			}
			testenv.Eventually(t, "the working directories are removed", func() bool {
				left, err := os.ReadDir(m.spool)
				return err == nil && len(left) == 0
			})
		})
	}
}

// TestShadowSlowsNothing: a second filter that never answers costs the client no time; what finds no room is counted, and
// the proxy ends nevertheless.
func TestShadowSlowsNothing(t *testing.T) {
	b := testenv.StartBackend(t)
	m := startMultiplexor(t, scanWith(t, "F\n"))
	stuck, asked := make(chan struct{}), make(chan struct{}, 100)
	second := startMultiplexor(t, func([]string) string {
		asked <- struct{}{}
		<-stuck
		return "ok\n"
	})
	t.Cleanup(func() { close(stuck) })
	p := startProxy(t, m.args(behind(b), "--shadow-multiplexor", second.spec)...)
	const messages = shadowAtOnce + shadowWaiting + 5
	send := func(n int) {
		c := greeted(t, p.addr)
		for range n {
			c.envelope()
			c.cmd("DATA", "354")
			c.send(smallMessage)
			c.expect("250")
		}
		c.cmd("QUIT", "221")
	}
	send(shadowAtOnce)
	for range shadowAtOnce {
		testenv.Receive(t, "a scan of the second filter", asked)
	}
	send(messages - shadowAtOnce)
	if got := shadowCounts(p); got != "0 0 0 5" || len(b.Messages()) != messages {
		t.Errorf("counts are %q, delivered %d", got, len(b.Messages()))
	}
}

// TestShadowIsDown: so is one that is not there.
func TestShadowIsDown(t *testing.T) {
	b := testenv.StartBackend(t)
	m := startMultiplexor(t, scanWith(t, "F\n"))
	p := startProxy(t, m.args(behind(b), "--shadow-multiplexor", filepath.Join(t.TempDir(), "none"))...)
	c := greeted(t, p.addr)
	for range 2 {
		c.envelope()
		c.cmd("DATA", "354")
		c.send(smallMessage)
		c.expect("250")
	}
	testenv.Eventually(t, "the failures are counted", func() bool { return shadowCounts(p) == "0 0 2 0" })
	if n := strings.Count(p.log.String(), "shadow filter failed"); n != 1 {
		t.Errorf("logged %d times\n%s", n, p.log)
	}
	if left, err := os.ReadDir(m.spool); err != nil || len(left) != 0 {
		t.Errorf("copies were made: %v, %v", left, err)
	}
	if n := p.shadow.waiting.Bytes.Load(); n != 0 {
		t.Errorf("%d bytes wait", n)
	}
	p.shadow.waiting.Bytes.Store(shadowBytes)
	c.envelope()
	c.cmd("DATA", "354")
	c.send(smallMessage)
	c.expect("250")
	testenv.Eventually(t, "what has no room is dropped", func() bool { return shadowCounts(p) == "0 0 2 1" })
}
