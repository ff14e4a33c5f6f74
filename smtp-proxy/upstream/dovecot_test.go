package upstream

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// dovecotSettings make of Dovecot an LMTP server with mail in Maildirs, and a quota that one user has used up.
const dovecotSettings = `
base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/log
protocols = lmtp
ssl = no
first_valid_uid = 1
mail_location = maildir:%[1]s/mail/%%n
mail_plugins = quota
default_internal_user = %[2]s
default_internal_group = %[3]s
default_login_user = %[2]s
passdb {
  driver = static
}
userdb {
  driver = passwd-file
  args = %[1]s/users
}
plugin {
  quota = maildir:User quota
  quota_rule = *:storage=100M
}
service lmtp {
  unix_listener %[1]s/lmtp {
    mode = 0600
  }
}
service anvil {
  chroot =
}
service stats {
  chroot =
}
`

// startDovecot starts a Dovecot that speaks LMTP on the socket it gives, with users ann, bob and full.
func startDovecot(t *testing.T) (dir string) {
	t.Helper()
	testenv.Need(t, "Dovecot as LMTP server", "dovecot")
	testenv.NeedRoot(t)
	dir = testenv.ShortDir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	account, err := user.Lookup("dovecot")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(account.Uid)
	gid, _ := strconv.Atoi(account.Gid)
	group, err := user.LookupGroupId(account.Gid)
	if err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"run", "state", "mail"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(dir, sub), uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	line := fmt.Sprintf("%%s:{PLAIN}x:%d:%d::%s/mail/%%[1]s::%%s\n", uid, gid, dir)
	users := fmt.Sprintf(line, "ann", "") + fmt.Sprintf(line, "bob", "") + fmt.Sprintf(line, "full", "userdb_quota_rule=*:bytes=1")
	for name, text := range map[string]string{"users": users, "conf": fmt.Sprintf(dovecotSettings, dir, account.Username, group.Name)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("log of Dovecot:\n%s", text)
		}
	})
	p := testenv.Start(t, exec.Command(testenv.Path(t, "Dovecot as LMTP server", "dovecot"), "-F", "-c", filepath.Join(dir, "conf")))
	testenv.Eventually(t, 30*second, "Dovecot to answer", func() bool {
		if !p.Running() {
			t.Fatalf("Dovecot has ended: %s", p.Output())
		}
		nc, err := net.Dial("unix", filepath.Join(dir, "lmtp"))
		if err == nil {
			_ = nc.Close()
		}
		return err == nil
	})
	return dir
}

// A message for three at Dovecot: one recipient each time, nobody gets it twice, whoever is full is told.
func TestDovecotLMTP(t *testing.T) {
	dir := startDovecot(t)
	set := newSet(t, Config{URLs: []string{"lmtp:" + filepath.Join(dir, "lmtp")}, Helo: "proxy.test"})
	todo := []string{"ann", "nobody", "full", "bob"}
	outcome := map[string]int{}
	for len(todo) > 0 { // as a client does with what it got 452 4.5.3 for
		c := get(t, set, Client{})
		c.Command("MAIL FROM:<x@a.test>")
		for _, r := range todo {
			c.Command("RCPT TO:<" + r + ">")
		}
		if r, err := c.Reply(10 * second); err != nil || r.Code != 250 {
			t.Fatalf("MAIL: %v, %v", r, err)
		}
		var rest []string
		taken := ""
		for _, name := range todo {
			r, err := c.Reply(10 * second)
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
		r, err := c.Reply(10 * second)
		if err != nil {
			t.Fatal(err)
		}
		if outcome[taken] = r.Code; r.Code == 250 && QueueID(r) == "" {
			t.Errorf("no queue id in %v", r)
		}
		c.Release()
	}
	want := map[string]int{"ann": 250, "bob": 250, "full": 552, "nobody": 550}
	for name, code := range want {
		if outcome[name] != code {
			t.Errorf("%s: %d, want %d", name, outcome[name], code)
		}
		files, err := filepath.Glob(filepath.Join(dir, "mail", name, "new", "*"))
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
