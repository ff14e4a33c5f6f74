package upstream

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// A message for three at Dovecot: one recipient each time, nobody gets it twice, whoever is full is told.
func TestDovecotLMTP(t *testing.T) {
	t.Parallel()
	server := testenv.StartLMTP(t)
	set := newSet(t, Config{URLs: []string{"lmtp:" + server.Socket}, Helo: "proxy.test"})
	todo := []string{"eve", "nobody", "full", "bob"}
	outcome := map[string]int{}
	for len(todo) > 0 { // as a client does with what it got 452 4.5.3 for
		c := get(t, set, Client{})
		c.Command("MAIL FROM:<x@a.test>")
		for _, r := range todo {
			c.Command("RCPT TO:<" + r + "@example.net>")
		}
		if r, err := c.Reply(testenv.Patience); err != nil || r.Code != 250 {
			t.Fatalf("MAIL: %v, %v", r, err)
		}
		var rest []string
		taken := ""
		for _, name := range todo {
			r, err := c.Reply(testenv.Patience)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case r.Code == 250:
				taken = name
			case r.Enhanced == "4.5.3":
				rest = append(rest, name)
			default:
				outcome[name] = r.Code
			}
		}
		todo = rest
		if taken == "" {
			c.Release()
			continue
		}
		say(t, c, []string{"DATA"}, 354)
		if _, err := c.Content().Write([]byte("Subject: x\r\n\r\n.dot\r\n")); err != nil {
			t.Fatal(err)
		}
		if err := c.EndContent(); err != nil {
			t.Fatal(err)
		}
		r, err := c.Reply(testenv.Patience)
		if err != nil {
			t.Fatal(err)
		}
		if outcome[taken] = r.Code; r.Code == 250 && QueueID(r) == "" {
			t.Errorf("no queue id in %v", r)
		}
		c.Release()
	}
	want := map[string]int{"eve": 250, "bob": 250, "full": 552, "nobody": 550}
	for name, code := range want {
		if outcome[name] != code {
			t.Errorf("%s: %d, want %d", name, outcome[name], code)
		}
		files, err := filepath.Glob(filepath.Join(server.Dir, "mail", name, "new", "*"))
		if err != nil {
			t.Fatal(err)
		}
		if want := code == 250; (len(files) == 1) != want || len(files) > 1 {
			t.Errorf("%s has %d messages", name, len(files))
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil || !strings.Contains(string(text), "\n.dot") {
				t.Errorf("%s: %v\n%s", name, err, text)
			}
		}
	}
	if s := set.Stats()[0]; s.Dialed != 1 {
		t.Errorf("%+v", s)
	}
}
