package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/testenv"
)

func TestPoison(t *testing.T) {
	b := newBench(t, func(l *limits) { l.PoisonLimit = 2 })
	var kept []string
	b.p.keepPoison = func(dir string) { kept = append(kept, dir) }
	for range 2 {
		a := b.ask("scan Q1 /spool/bad%20one")
		for i, w := range b.p.workers {
			if w.state == busy {
				b.finish(i, exit{Status: 1})
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
	b := newBench(t, func(l *limits) { l.PoisonLimit = 2 })
	var r request
	for i := range poisonMost + 10 {
		r.set([]byte("scan q /d/"+strings.Repeat("x", i%7)+string(rune('a'+i%26))+time.Duration(i).String()), fromClient, nil)
		b.p.noteDeath(&r)
	}
	if n := len(b.p.poison.deaths); n > poisonMost {
		t.Errorf("%d directories remembered, want at most %d", n, poisonMost)
	}
}

func TestPoisonKeeper(t *testing.T) {
	spool, keep := t.TempDir(), t.TempDir()
	dir := filepath.Join(spool, "mdefang-x")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "INPUTMSG"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 1)
	keeper := poisonKeeper(spool, keep, func(text string, err error) {
		if err != nil {
			text = "error: " + err.Error()
		}
		said <- text
	})
	keeper(dir)
	if got := testenv.Receive(t, "the word of the keeper", said); !strings.Contains(got, " kept as "+keep) {
		t.Fatal(got)
	}
	copies, _ := filepath.Glob(filepath.Join(keep, "mdefang-x-*", "INPUTMSG"))
	if len(copies) != 1 {
		t.Fatalf("copies %v", copies)
	}
	if text, err := os.ReadFile(copies[0]); err != nil || string(text) != "text" {
		t.Errorf("copy %q, %v", text, err)
	}
	link := filepath.Join(spool, "link")
	if err := os.Symlink("/etc", link); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"/etc", spool + "/../etc", spool, link, ""} {
		keeper(bad)
		if got := testenv.Receive(t, "the word of the keeper", said); !strings.Contains(got, "not kept") {
			t.Errorf("%s: %s", bad, got)
		}
	}
}

func TestMemoryLimit(t *testing.T) {
	b := newBench(t, func(l *limits) { l.MaxResident = 100 << 20 })
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
