package upstream

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/testenv"
)

const second = time.Second

// newSet makes a Set that is closed at the end of the test.
func newSet(t *testing.T, conf Config) *Set {
	t.Helper()
	if conf.HurryTime == 0 {
		conf.HurryTime = testenv.Patience
	}
	set, err := New(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(set.Close)
	return set
}

// get gives a connection, or ends the test.
func get(t *testing.T, set *Set, client Client) *Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience)
	defer cancel()
	c, err := set.Get(ctx, client)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// say sends commands in one flush, and checks the codes of the replies.
func say(t *testing.T, c *Conn, commands []string, codes ...int) {
	t.Helper()
	for _, line := range commands {
		c.Command(line)
	}
	for i, want := range codes {
		r, err := c.Reply(testenv.Patience)
		if err != nil {
			t.Fatalf("reply to %q: %v", commands[i], err)
		}
		if r.Code != want {
			t.Fatalf("reply to %q is %v, want %d", commands[i], r, want)
		}
	}
}

// send sends a message and gives the code of the final reply.
func send(t *testing.T, c *Conn, from, to, content string) (code int, text string) {
	t.Helper()
	say(t, c, []string{"MAIL FROM:<" + from + ">", "RCPT TO:<" + to + ">", "DATA"}, 250, 250, 354)
	if _, err := c.Content().Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := c.EndContent(); err != nil {
		t.Fatal(err)
	}
	r, err := c.Reply(testenv.Patience)
	if err != nil {
		t.Fatal(err)
	}
	return r.Code, QueueID(r)
}

func TestMaildir(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "mail")
	set := newSet(t, Config{URLs: []string{"maildir:" + dir}, Helo: "proxy.test"})
	long := strings.Repeat("x", 64<<10)
	var names []string
	for _, content := range []string{"Subject: a\r\n\r\n.\r\n..b\r\nlast", "", "Subject: b\r\n\r\n" + long + "\r\n" + long + "\r\n"} {
		c := get(t, set, Client{})
		code, name := send(t, c, "a@a.test", "b@b.test", content)
		if code != 250 || name == "" {
			t.Fatalf("code %d, name %q", code, name)
		}
		c.Release()
		names = append(names, name)
		got, err := os.ReadFile(filepath.Join(dir, "new", name))
		if err != nil {
			t.Fatal(err)
		}
		want := "Return-Path: <a@a.test>\nDelivered-To: b@b.test\n" + strings.ReplaceAll(content, "\r\n", "\n")
		if content != "" && !strings.HasSuffix(want, "\n") {
			want += "\n"
		}
		if string(got) != want {
			t.Errorf("file is %.200q, want %.200q", got, want)
		}
	}
	if stats := set.Stats()[0]; stats.Dialed != 1 || stats.Reused != 2 || stats.Idle != 1 {
		t.Errorf("one connection must do for all: %+v", stats)
	}
	for _, sub := range []string{"tmp", "new"} {
		files, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil {
			t.Fatal(err)
		}
		if want := map[string]int{"tmp": 0, "new": len(names)}[sub]; len(files) != want {
			t.Errorf("%d files in %s, want %d", len(files), sub, want)
		}
	}
}

func TestMaildirFailure(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "mail")
	set := newSet(t, Config{URLs: []string{"maildir:" + dir}})
	if err := os.Remove(filepath.Join(dir, "tmp")); err != nil {
		t.Fatal(err)
	}
	c := get(t, set, Client{})
	defer c.Release()
	if code, _ := send(t, c, "a@a.test", "b@b.test", "x\r\n"); code != 451 {
		t.Errorf("code %d, want 451", code)
	}
}

// A message whose end never came is nowhere.
func TestMaildirAbort(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "mail")
	set := newSet(t, Config{URLs: []string{"maildir:" + dir}})
	c := get(t, set, Client{})
	say(t, c, []string{"MAIL FROM:<a@a.test>", "RCPT TO:<b@b.test>", "DATA"}, 250, 250, 354)
	if _, err := c.Content().Write([]byte(strings.Repeat("half a message\r\n", 10000))); err != nil {
		t.Fatal(err)
	}
	files := func(sub string) int {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	testenv.Eventually(t, "delivery begins", func() bool { return files("tmp") == 1 })
	c.Abort()
	testenv.Eventually(t, "delivery is given up", func() bool { return files("tmp") == 0 })
	if n := files("new"); n != 0 {
		t.Errorf("%d files in new", n)
	}
}

// Replies that clients hear are in our own words.
func TestMaildirReplies(t *testing.T) {
	t.Parallel()
	set := newSet(t, Config{URLs: []string{"maildir:" + filepath.Join(testenv.ShortDir(t), "Maildir")}})
	c := get(t, set, Client{})
	defer c.Release()
	for _, line := range envelope {
		c.Command(line)
	}
	for i, want := range []string{"250 2.1.0 Ok", "250 2.1.5 Ok"} {
		if r, err := c.Reply(testenv.Patience); err != nil || r.String() != want {
			t.Errorf("reply to %q is %q, %v; want %q", envelope[i], r.String(), err, want)
		}
	}
}

// TestMaildirPostmaster: RFC 5321, 4.1.1.3, has an address without domain, which the server half does not know.
func TestMaildirPostmaster(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(testenv.ShortDir(t), "Maildir")
	set := newSet(t, Config{URLs: []string{"maildir:" + dir}, Helo: "here.example"})
	c := get(t, set, Client{})
	defer c.Release()
	if code, _ := send(t, c, "root", "Postmaster", "Subject: x\r\n\r\n"); code != 250 {
		t.Fatalf("code %d", code)
	}
	files, err := filepath.Glob(filepath.Join(dir, "new", "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("files %q, %v", files, err)
	}
	text, err := os.ReadFile(files[0])
	if want := "Return-Path: <root@here.example>\nDelivered-To: Postmaster@here.example\n"; err != nil || !strings.HasPrefix(string(text), want) {
		t.Errorf("delivered %q, %v; want %q", text, err, want)
	}
}
