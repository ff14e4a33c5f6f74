package pool

import (
	"strings"
	"testing"
	"time"
)

func TestPoison(t *testing.T) {
	b := newBench(t, func(l *Limits) { l.PoisonLimit = 2 })
	var kept []string
	b.p.KeepPoison = func(dir string) { kept = append(kept, dir) }
	for range 2 {
		a := b.ask("scan Q1 /spool/bad%20one")
		for i, w := range b.p.workers {
			if w.state == busy {
				b.finish(i, Exit{Status: 1})
			}
		}
		b.wantAnswer(a, "ERR No response from worker\n")
		b.pass(time.Minute)
	}
	activations := b.p.activations
	b.wantAnswer(b.ask("scan Q2 /spool/bad%20one"), "ERR This message has ended too many workers\n")
	if b.p.activations != activations || b.p.count[busy] > 0 {
		t.Error("a third worker was asked")
	}
	if len(kept) != 1 || kept[0] != "/spool/bad one" {
		t.Errorf("kept %q", kept)
	}
	if !strings.Contains(b.logged(), "Q2: not scanned: its working directory /spool/bad%20one has ended 2 workers") {
		t.Errorf("log:\n%s", b.logged())
	}
	a := b.ask("scan Q1 /spool/good") // others are not affected
	b.reply(0, "ok\n")
	b.wantAnswer(a, "ok\n")
	b.pass(2 * time.Hour) // it gets another chance
	b.wantAnswer(b.ask("scan Q2 /spool/bad%20one"), "")
}

func TestPoisonForgets(t *testing.T) {
	b := newBench(t, func(l *Limits) { l.PoisonLimit = 2 })
	var r Request
	for i := range poisonMost + 10 {
		r.Set([]byte("scan q /d/"+strings.Repeat("x", i%7)+string(rune('a'+i%26))+time.Duration(i).String()), FromClient, nil)
		b.p.noteDeath(&r)
	}
	if n := len(b.p.poison.deaths); n > poisonMost {
		t.Errorf("%d directories remembered, want at most %d", n, poisonMost)
	}
}

func TestMemoryLimit(t *testing.T) {
	b := newBench(t, func(l *Limits) { l.MaxResident = 100 << 20 })
	b.warm(1)
	b.pass(2 * time.Second)
	b.child(0).rss = 101 << 20
	a := b.ask("x")
	b.reply(0, "ok\n")
	b.wantAnswer(a, "ok\n")
	b.wantStates("KS")
	if !strings.Contains(b.logged(), "Worker uses too much memory") {
		t.Errorf("log:\n%s", b.logged())
	}
}
