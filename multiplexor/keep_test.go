package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// lineTo is a writer of lines into a channel.
type lineTo chan<- string

func (c lineTo) Write(p []byte) (int, error) {
	c <- string(p)
	return len(p), nil
}

func TestPoisonKeeper(t *testing.T) {
	t.Parallel()
	spool, keep := t.TempDir(), t.TempDir()
	dir := filepath.Join(spool, "mdefang-x")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "INPUTMSG"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 1)
	keeper := poisonKeeper(spool, keep, slog.New(slog.NewTextHandler(lineTo(said), nil)))
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
