package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
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

// TestStampByDovecot has a real Dovecot run our script after a login, with the settings of the manual page, as its own user
// and within its limit of the address space: who has logged in has a stamp by the daemon, and who could not be stamped
// reads mail all the same. What Dovecot logs about these logins makes the same stamps.
func TestStampByDovecot(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	blocks := pageBlocks(t, "man/pop3-stamp.8", "Let users send who read their mail with Dovecot")
	dir := testenv.ShortDir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	run, stamps := testenv.DaemonDir(t, filepath.Join(dir, "run")), testenv.DaemonDir(t, filepath.Join(dir, "stamps"))
	if err := os.Chmod(run, 0o755); err != nil {
		t.Fatal(err)
	}
	conf, script, socket := filepath.Join(dir, "conf"), filepath.Join(dir, "postlogin"), filepath.Join(run, "stamps.sock")
	text, err := os.ReadFile(filepath.Join(testenv.Root(t), "pop3-stamp/postlogin/pop3-stamp-postlogin"))
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{script: string(text),
		conf: strings.NewReplacer("/run/postern/pop3-stamp-stamps.sock", socket, "/run/postern/clientip", stamps).Replace(blocks[0])} {
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	settings := strings.Replace(blocks[1], "/usr/libexec/postern/pop3-stamp-postlogin", script+" --socket "+socket, 1)
	daemon := testenv.Start(t, exec.Command(testenv.Binary(t, "pop3-stamp"), "--config", conf))
	daemon.WaitOutput("ready")
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
	follow := exec.Command(testenv.Binary(t, "pop3-stamp"), "--config", "/dev/null", "--clientip-dir", t.TempDir(), "follow", "--file", "-", "--pattern", "dovecot")
	followed := follow.Args[4]
	follow.Stdin = strings.NewReader(dovecot.Process.Output())
	if _, errOut, status := testenv.RunCmd(t, follow); status != 0 {
		t.Errorf("follow: status %d: %s", status, errOut)
	}
	for _, from := range []string{"192.0.2.7", "2001:db8::7"} {
		if line, err := os.ReadFile(filepath.Join(followed, from)); err != nil || !strings.Contains(string(line), " "+testenv.POP3User+" ") {
			t.Errorf("stamp of %s by the log: %q, %v\n%s", from, line, err, dovecot.Process.Output())
		}
	}
	daemon.Stop(syscall.SIGTERM)
	daemon.Wait()
	login("192.0.2.8")
	dovecot.Process.WaitOutput("no stamp for 192.0.2.8")
}

// TestPOP_87_StampSocket: who may not ask gets no stamp, nor does what is no request; each has an answer, and the daemon
// goes on.
func TestPOP_87_StampSocket(t *testing.T) {
	t.Parallel()
	dir := testenv.ShortDir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	run, stamps := testenv.DaemonDir(t, filepath.Join(dir, "run")), testenv.DaemonDir(t, filepath.Join(dir, "stamps"))
	if err := os.Chmod(run, 0o755); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(run, "stamps.sock")
	daemon := testenv.Start(t, exec.Command(testenv.Binary(t, "pop3-stamp"), "--config", "/dev/null", "--stamps", socket, "--socket-mode", "0666", "--clientip-dir", stamps))
	daemon.WaitOutput("ready")
	ask := func(request string) string {
		t.Helper()
		c := testenv.Dial(t, "unix", socket)
		_, _ = c.Write([]byte(request))
		answer, _ := testenv.ReadAll(c)
		return string(answer)
	}
	for _, bad := range []string{"add\n", "add ../../etc/x bob\n", "add 192.0.2.1/24 bob\n", "remove 192.0.2.1\n", "add 192.0.2.1 a b c d\n", "\n",
		strings.Repeat("x", 100000) + "\n", "add  192.0.2.1\n"} {
		if got := ask(bad); got != "" && !strings.HasPrefix(got, "-ERR ") { // what is not read to its end is reset
			t.Errorf("%.40q: %q", bad, got)
		}
	}
	for request, want := range map[string]string{"add 192.0.2.1 a%20b%0a/.. pop\n": " 192.0.2.1 a%20b%0A/.. pop\n", "add ::ffff:192.0.2.2\r\n": " 192.0.2.2 - -\n", "add 2001:DB8::1 bob -\n": " 2001:db8::1 bob -\n"} {
		if got := ask(request); got != "+OK\n" {
			t.Errorf("%q: %q", request, got)
		}
		name := strings.Fields(want)[0]
		if line, err := os.ReadFile(filepath.Join(stamps, name)); err != nil || !strings.HasSuffix(string(line), want) {
			t.Errorf("%q: stamp %q, %v", request, line, err)
		}
	}
	if list, err := os.ReadDir(stamps); err != nil || len(list) != 3 {
		t.Errorf("stamps: %v, %v", list, err)
	}
	if os.Geteuid() != 0 {
		return
	}
	perl := exec.Command("perl", "-MSocket", "-e", `$SIG{PIPE}='IGNORE'; socket(S,PF_UNIX,SOCK_STREAM,0); connect(S,pack_sockaddr_un($ARGV[0])) or die $!; syswrite(S,"add 192.0.2.66 eve\n"); print <S>`, socket)
	perl.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 4711, Gid: 4711}}
	if out, errOut, _ := testenv.RunCmd(t, perl); out != "-ERR not allowed\n" {
		t.Errorf("a stranger: %q %q", out, errOut)
	}
	daemon.WaitOutput("request for a stamp refused")
}
