package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// pageBlocks gives the literal blocks behind a text of a manual page.
func pageBlocks(t *testing.T, page, behind string) []string {
	t.Helper()
	_, text, found := strings.Cut(readTree(t, page), behind)
	if !found {
		t.Fatalf("%s has no %q", page, behind)
	}
	var blocks []string
	for {
		_, rest, found := strings.Cut(text, "\n.Bd -literal -offset indent\n")
		if !found {
			return blocks
		}
		block, after, _ := strings.Cut(rest, ".Ed\n")
		blocks, text = append(blocks, block), after
	}
}

// TestStampByDovecot has a real Dovecot run the script of the manual page, with the settings there and an account that alone may
// write stamps: who has logged in has one, and who could not be stamped reads mail all the same.
func TestStampByDovecot(t *testing.T) {
	testenv.NeedRoot(t)
	const account = "nobody" // there is no postern here
	blocks := pageBlocks(t, "man/pop3-stamp.8", "Let users send who read their mail with Dovecot")
	dir := testenv.ShortDir(t)
	stamps := testenv.DaemonDir(t, filepath.Join(dir, "stamps"))
	conf, script := filepath.Join(dir, "conf"), filepath.Join(dir, "stamp-login")
	if err := os.WriteFile(conf, []byte("clientip-dir "+stamps+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(blocks[0], "/usr/sbin/pop3-stamp touch", testenv.Binary(t, "pop3-stamp")+" touch --config "+conf, 1)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	settings := strings.NewReplacer("/usr/local/bin/stamp-login", script, "user = postern", "user = "+account).Replace(blocks[1])
	dovecot := testenv.StartDovecot(t, settings)
	login := func(from string) {
		t.Helper()
		d := dialPOP3(t, dovecot.Port, "")
		d.ask(fmt.Sprintf("XCLIENT ADDR=%s PORT=1", from), "+OK")
		d.ask("USER "+testenv.POP3User, "+OK")
		d.ask("PASS "+testenv.POP3Password, "+OK")
		d.ask("STAT", "+OK")
		d.ask("QUIT", "+OK")
	}
	for _, from := range []string{"192.0.2.7", "2001:db8::7"} {
		login(from)
		line, err := os.ReadFile(filepath.Join(stamps, from))
		if err != nil || !strings.Contains(string(line), " "+from+" "+testenv.POP3User) {
			t.Fatalf("stamp of %s: %q, %v\n%s", from, line, err, dovecot.Process.Output())
		}
	}
	if err := os.RemoveAll(stamps); err != nil {
		t.Fatal(err)
	}
	login("192.0.2.8")
	dovecot.Process.WaitOutput("no such file or directory")
}
