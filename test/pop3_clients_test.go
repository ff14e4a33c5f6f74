package test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postern/internal/testenv"
)

const pop3Text = "Subject: x\n\nhello\n.dot\n"

// pop3Clients fetch the first message through a port as programs of users do; each returns what it has fetched.
var pop3Clients = map[string]func(t *testing.T, port int) string{
	"curl": func(t *testing.T, port int) string {
		out, _, _ := testenv.Run(t, testenv.Path(t, "curl as POP3 client", "curl"), "-s", "-u", testenv.POP3User+":"+testenv.POP3Password,
			fmt.Sprintf("pop3://127.0.0.1:%d/1", port))
		return out
	},
	"poplib": func(t *testing.T, port int) string {
		out, stderr, _ := testenv.Run(t, testenv.Path(t, "Python's poplib as a client", "python3"), "-c", `
import poplib, sys
p = poplib.POP3("127.0.0.1", int(sys.argv[1]))
assert "TOP" in p.capa(), p.capa()
p.user("bob")
p.pass_("secret word")
assert "TOP" in p.capa(), p.capa()
print("\n".join(line.decode() for line in p.retr(1)[1]))
p.quit()`, fmt.Sprint(port))
		return out + stderr
	},
	"fetchmail": func(t *testing.T, port int) string {
		dir := testenv.ShortDir(t)
		settings, got := filepath.Join(dir, "fetchmailrc"), filepath.Join(dir, "got")
		text := fmt.Sprintf("poll 127.0.0.1 service %d protocol pop3 username %s password %q sslproto '' keep fetchall mda \"cat >%s\"\n",
			port, testenv.POP3User, testenv.POP3Password, got)
		if err := os.WriteFile(settings, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(testenv.Path(t, "fetchmail as POP3 client", "fetchmail"), "--nosyslog", "--nodetach", "-v", "-f", settings)
		cmd.Env = append(os.Environ(), "FETCHMAILHOME="+dir)
		out, errOut, _ := testenv.RunCmd(t, cmd)
		return fetched(got, out+errOut)
	},
	"mpop": func(t *testing.T, port int) string {
		dir := testenv.ShortDir(t)
		settings, got := filepath.Join(dir, "mpoprc"), filepath.Join(dir, "got")
		text := fmt.Sprintf("account default\nhost 127.0.0.1\nport %d\nuser %s\npassword %q\nauth user\ntls off\nkeep on\nuidls_file %s/uidls\ndelivery mbox %s\n",
			port, testenv.POP3User, testenv.POP3Password, dir, got)
		if err := os.WriteFile(settings, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, errOut, _ := testenv.Run(t, testenv.Path(t, "mpop as POP3 client", "mpop"), "-C", settings, "--debug")
		return fetched(got, out+errOut)
	},
}

// fetched is what a client has put into a file, or what it has said if there is none.
func fetched(file, said string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return said
	}
	return string(text)
}

// TestPop3StampBetweenRealPeers: each client fetches its mail from each server through the proxy, and gets a stamp.
func TestPop3StampBetweenRealPeers(t *testing.T) {
	t.Parallel()
	servers := map[string]func(t *testing.T) string{
		"Dovecot": func(t *testing.T) string {
			s := testenv.StartDovecot(t)
			s.Deliver(t, "1.x.y", []byte(pop3Text))
			return s.Address()
		},
		"Courier": func(t *testing.T) string { return testenv.StartCourier(t, pop3Text).Address() },
		"Mailutils": func(t *testing.T) string {
			return testenv.StartMailutils(t, "From a@b Sat Nov 28 11:00:00 2026\n"+pop3Text+"\n").Address()
		},
	}
	for server, start := range servers {
		t.Run(server, func(t *testing.T) {
			upstream, stamps, port := start(t), t.TempDir(), testenv.FreePort(t)
			startPop3Stamp(t, port, fmt.Sprintf("upstream pop3://%s\nclientip-dir %s", upstream, stamps))
			for client, fetch := range pop3Clients {
				t.Run(client, func(t *testing.T) {
					got := strings.ReplaceAll(fetch(t, port), "\r", "")
					if !strings.Contains(got, "hello\n.dot") {
						t.Errorf("fetched: %s", got)
					}
					stamp := filepath.Join(stamps, "127.0.0.1")
					if line, err := os.ReadFile(stamp); err != nil || !strings.Contains(string(line), " bob ") {
						t.Errorf("stamp %q, %v", line, err)
					}
					_ = os.Remove(stamp)
				})
			}
		})
	}
}

// stamped runs follow over lines and returns whose stamps it makes.
func stamped(t *testing.T, pattern, lines string) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command(testenv.Binary(t, "pop3-stamp"), "--config", "/dev/null", "--clientip-dir", dir, "follow", "--file", "-", "--pattern", pattern)
	cmd.Stdin = strings.NewReader(lines)
	if _, errOut, status := testenv.RunCmd(t, cmd); status != 0 {
		t.Errorf("follow: status %d: %s", status, errOut)
	}
	return stampsIn(t, dir)
}

// stampsIn lists address and user of stamps.
func stampsIn(t *testing.T, dir string) string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, entry := range list {
		if strings.HasPrefix(entry.Name(), ".") { // on its way
			continue
		}
		line, _ := os.ReadFile(filepath.Join(dir, entry.Name()))
		if words := strings.Fields(string(line)); len(words) == 4 {
			all = append(all, words[1]+" "+words[2])
		}
	}
	return strings.Join(all, ", ")
}

// TestFollowLogsOfRealServers: what Courier, Cyrus and Mailutils say of a login makes a stamp, and what they say of a wrong
// password does not. TestStampByDovecot does the same with Dovecot.
func TestFollowLogsOfRealServers(t *testing.T) {
	t.Parallel()
	courier := testenv.StartCourier(t, pop3Text)
	mailutils := testenv.StartMailutils(t, "")
	cyrus := testenv.StartCyrus(t)
	// What servers write to standard error, as it were if they had syslog.
	syslog := func(p *testenv.Process, prefix string) func() string {
		return func() string {
			var lines strings.Builder
			for line := range strings.Lines(p.Output()) {
				if text, ok := strings.CutPrefix(line, prefix); ok {
					lines.WriteString("Nov 28 14:00:00 mx pop3d[77]: " + text)
				}
			}
			return lines.String()
		}
	}
	for _, server := range []struct {
		pattern string
		port    int
		log     func() string
		done    string // of a session
	}{
		{"courier", courier.Port, syslog(courier.Process, "INFO: "), "LOGOUT"},
		{"cyrus", cyrus.Port, cyrus.Log, "USAGE"},
		{"mailutils", mailutils.Port, syslog(mailutils.Process, "pop3d: "), "session ended for user"},
	} {
		t.Run(server.pattern, func(t *testing.T) {
			d := dialPOP3(t, server.port, "")
			d.ask("USER bob", "+OK")
			d.ask("PASS wrong", "-ERR")
			_ = d.Close()
			if got := stamped(t, server.pattern, server.log()); got != "" {
				t.Errorf("stamps of a wrong password: %s", got)
			}
			d = dialPOP3(t, server.port, "")
			d.ask("USER bob", "+OK")
			d.ask("PASS "+testenv.POP3Password, "+OK")
			d.ask("QUIT", "+OK")
			testenv.Eventually(t, "the log of the session", func() bool { return strings.Contains(server.log(), server.done) })
			if got := stamped(t, server.pattern, server.log()); got != "127.0.0.1 bob" {
				t.Errorf("stamps %q by the log:\n%s", got, server.log())
			}
		})
	}
}

// TestFollowJournal: entries come from journalctl, which is run again when it ends; one that is too long does not end it.
func TestFollowJournal(t *testing.T) {
	t.Parallel()
	dir, stamps := testenv.ShortDir(t), t.TempDir()
	entry := func(program, text string) string {
		return fmt.Sprintf(`{"__CURSOR":"s=1","_PID":"77","SYSLOG_IDENTIFIER":"%s","MESSAGE":"%s"}`+"\n", program, text)
	}
	login := func(addr string) string {
		return "pop3-login: Login: user=<bob>, method=PLAIN, rip=" + addr + ", lip=192.0.2.1, mpid=9"
	}
	runs := filepath.Join(dir, "runs")
	var first, second bytes.Buffer
	first.WriteString("not JSON\n" + entry("postfix/smtpd", login("192.0.2.66")) + `{"SYSLOG_IDENTIFIER":"dovecot","MESSAGE":[255,1]}` + "\n")
	first.WriteString(entry("dovecot", strings.Repeat("x", 300<<10)) + entry("dovecot", login("192.0.2.7")))
	second.WriteString(entry("dovecot", login("2001:db8::7")))
	script := fmt.Sprintf("#!/bin/sh\necho \"$@\" >>%[1]s\nif [ $(wc -l <%[1]s) = 1 ]; then cat %[2]s/first; else cat %[2]s/second; exec sleep 1000; fi\n", runs, dir)
	for name, text := range map[string]string{"journalctl": script, "first": first.String(), "second": second.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(testenv.Binary(t, "pop3-stamp"), "--config", "/dev/null", "--clientip-dir", stamps, "follow", "--journal", "dovecot.service")
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	p := testenv.Start(t, cmd)
	testenv.Eventually(t, "stamps of both runs", func() bool { return stampsIn(t, stamps) == "192.0.2.7 bob, 2001:db8::7 bob" })
	p.Stop(syscall.SIGTERM)
	if status := p.Wait(); status != 0 || strings.Count(p.Output(), "is skipped") != 1 {
		t.Errorf("status %d, %s", status, p.Output())
	}
	if asked, err := os.ReadFile(runs); err != nil || strings.Count(string(asked), "--unit=dovecot.service --follow") != 2 {
		t.Errorf("journalctl was asked %q, %v", asked, err)
	}
}

// TestFollowEndsWhileNothingComes: SIGTERM ends it also while standard input is silent.
func TestFollowEndsWhileNothingComes(t *testing.T) {
	t.Parallel()
	stamps := t.TempDir()
	cmd := exec.Command(testenv.Binary(t, "pop3-stamp"), "--config", "/dev/null", "--clientip-dir", stamps, "follow", "--file", "-", "--pattern", "courier")
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer out.Close()
	cmd.Stdin = in
	p := testenv.Start(t, cmd)
	if _, err := out.WriteString("Nov 28 14:00:00 mx pop3d: LOGIN, user=bob, ip=[192.0.2.7], port=[1]\n"); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "a stamp", func() bool { return stampsIn(t, stamps) == "192.0.2.7 bob" })
	p.Stop(syscall.SIGTERM)
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d, %s", status, p.Output())
	}
}
