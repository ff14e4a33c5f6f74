package test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"postern/internal/testenv"
)

// untidyWorker leaves in each working directory what the proxy's account cannot remove. $outside is a directory of the
// worker's account. A message whose subject is "hold" is scanned until the file "go" is there.
const untidyWorker = `#!/usr/bin/perl
use strict; use warnings;
my $outside = 'OUTSIDE';
my $scans = 0;
$| = 1;
sub note { open(my $f, '>', $_[0]) or die "$_[0]: $!"; print $f "x\n" }
sub deep {
    for my $level (1 .. $_[0]) { mkdir('d' x (1 + $level % 200), 0700); chdir('d' x (1 + $level % 200)) or die; note('f') if $level % 10 == 0; chmod(0500, '.') if $level % 7 == 0 && $level == $_[0] }
}
sub litter {
    my ($dir) = @_;
    umask 027;
    mkdir('Work', 0750);
    note("Work/$_") for 1 .. 20, "a\nb", ' ', '-rf';
    link('INPUTMSG', 'Work/INPUTMSG');
    symlink($outside, $_) for 'out', 'Work/out';
    symlink('..', 'Work/up'); symlink('/', 'Work/root'); symlink('Work', 'loop');
    mkdir("Work/$_", 0700) for 'none', 'blind', 'fixed';
    for (qw(none blind fixed)) { note("Work/$_/f"); mkdir("Work/$_/sub", 0700); note("Work/$_/sub/f") }
    chmod(0, 'Work/none'); chmod(0100, 'Work/blind'); chmod(0500, 'Work/fixed');
    mkdir('handed-up.1', 0700); note('handed-up.1/f');
    mkdir('private', 0700); chdir('private'); deep($scans % 50 == 1 ? 1500 : 30);
    chdir($dir);
}
while (<STDIN>) {
    chomp;
    if ($_ eq 'ping') { print "PONG\n"; next }
    if (!/^scan (\S+) (\S+)/) { print "error: Unknown command\n"; next }
    $scans++;
    my $dir = $2;
    chdir($dir) or do { print "error: $!\n"; next };
    litter($dir);
    open(my $in, '<', 'INPUTMSG'); my $hold = grep { /^Subject: hold/ } <$in>;
    if ($hold) { note("$outside/held"); select(undef, undef, undef, 0.01) until -e "$outside/go" }
    if (open(my $r, '>', 'RESULTS')) { print $r "F\n"; close($r) }
    chdir('/');
    print "ok\n";
}
`

// twoAccounts are a proxy and a multiplexor that share a spool as in the units: by the group of the workers, and that alone.
type twoAccounts struct {
	t              *testing.T
	dir, spool     string
	outside        string // the workers may do anything there
	backend        *testenv.Backend
	port           int
	front, workers syscall.Credential
	proxy          *testenv.Process
}

func newTwoAccounts(t *testing.T) *twoAccounts {
	t.Helper()
	testenv.NeedRoot(t)
	const nobody, daemon = 65534, 1 // of base-passwd
	a := &twoAccounts{t: t, dir: testenv.ShortDir(t), backend: testenv.StartBackend(t), port: testenv.FreePort(t),
		front:   syscall.Credential{Uid: nobody, Gid: nobody, Groups: []uint32{daemon}},
		workers: syscall.Credential{Uid: daemon, Gid: daemon}}
	a.spool, a.outside = filepath.Join(a.dir, "spool"), filepath.Join(a.dir, "outside")
	run := filepath.Join(a.dir, "run")
	err := errors.Join(os.Mkdir(a.spool, 0o750), os.Chown(a.spool, nobody, daemon), os.Mkdir(a.outside, 0o700), os.Mkdir(run, 0o755),
		os.WriteFile(filepath.Join(a.outside, "victim"), nil, 0o600), os.Chown(a.outside, daemon, daemon), os.Chown(run, daemon, daemon))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// startWorkers starts the multiplexor.
func (a *twoAccounts) startWorkers(args ...string) {
	a.t.Helper()
	socket := filepath.Join(a.dir, "run", "mx")
	cmd := exec.Command(testenv.Binary(a.t, "multiplexor"), append([]string{"-D", "-G", "-z", a.spool, "-s", socket, "-m", "2", "-x", "4"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &a.workers}
	p := testenv.Start(a.t, cmd)
	testenv.Eventually(a.t, "the multiplexor", func() bool {
		if !p.Running() {
			a.t.Fatal("the multiplexor has ended")
		}
		_, _, status := testenv.Run(a.t, testenv.Binary(a.t, "mx-ctrl"), "-s", socket, "free")
		return status == 0
	})
}

func (a *twoAccounts) startProxy() {
	a.t.Helper()
	cmd := exec.Command(testenv.Binary(a.t, "smtp-proxy"), "--maxloadavg", "0", "--smtp", "tcp:"+a.address(), "--multiplexor",
		filepath.Join(a.dir, "run", "mx"), "--spool", a.spool, "--spool-group", "daemon", "--upstream", "smtp://"+a.backend.Addr)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &a.front}
	a.proxy = testenv.Start(a.t, cmd)
	testenv.Eventually(a.t, "the proxy's greeting", func() bool {
		if !a.proxy.Running() {
			a.t.Fatal("smtp-proxy has ended")
		}
		return greets(a.address())
	})
}

func (a *twoAccounts) address() string { return fmt.Sprintf("127.0.0.1:%d", a.port) }

// inSpool gives the names in the spool, sorted.
func (a *twoAccounts) inSpool() []string {
	a.t.Helper()
	list, err := os.ReadDir(a.spool)
	if err != nil {
		a.t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// awaitSpool waits until there is nothing else in the spool.
func (a *twoAccounts) awaitSpool(want ...string) {
	a.t.Helper()
	testenv.Eventually(a.t, fmt.Sprintf("nothing but %q in the spool", want), func() bool { return slices.Equal(a.inSpool(), want) })
	if _, err := os.Stat(filepath.Join(a.outside, "victim")); err != nil {
		a.t.Errorf("outside: %v", err)
	}
}

// send sends messages over one connection.
func (a *twoAccounts) send(n int, message string) {
	a.t.Helper()
	c := startTalk(a.t, "127.0.0.1", a.address())
	defer c.Close()
	for range n {
		if code, text := c.offer(message); code != 250 {
			a.t.Fatalf("%d %s", code, text)
		}
	}
	c.say("QUIT", 221)
}

func (a *twoAccounts) untidyWorker() string {
	testenv.Path(a.t, "a worker of another account", "perl")
	return writeWorker(a.t, strings.Replace(untidyWorker, "OUTSIDE", a.outside, 1))
}

// TestSpoolGroupLeavesNothing has workers of another account leave what only they can remove, many times.
// FS-09.
func TestSpoolGroupLeavesNothing(t *testing.T) {
	t.Parallel()
	a := newTwoAccounts(t)
	a.startWorkers("-f", a.untidyWorker())
	a.startProxy()
	messages := testenv.Load(100, 300)
	a.send(messages, "Subject: x\r\n\r\nhello\r\n")
	a.awaitSpool()
	if n := len(a.backend.Messages()); n != messages {
		t.Errorf("%d messages arrived", n)
	}
}

// TestSpoolGroupWithMimedefang has MIMEDefang's own worker take messages apart.
func TestSpoolGroupWithMimedefang(t *testing.T) {
	t.Parallel()
	worker := testenv.Path(t, "MIMEDefang's workers as another account", "mimedefang.pl")
	a := newTwoAccounts(t)
	filter := filepath.Join(a.dir, "filter")
	if err := os.WriteFile(filter, []byte(milterFilter), 0o644); err != nil {
		t.Fatal(err)
	}
	a.startWorkers("-f", worker, "-F", filter)
	a.startProxy()
	a.send(10, "Subject: two parts\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nsee below\r\n"+
		"--b\r\nContent-Type: application/octet-stream; name=\"tool.exe\"\r\n\r\nMZ program bytes\r\n--b--\r\n")
	a.awaitSpool()
	for _, m := range a.backend.Messages() {
		if text := m.Data; !strings.Contains(text, "A program was here.") || strings.Contains(text, "MZ program bytes") {
			t.Errorf("the part was not replaced:\n%s", text)
		}
	}
}

// TestKilledProxyIsSweptAfter kills a proxy in the middle of messages, in all stages: the next one removes what it left, and
// nothing that was kept on purpose.
func TestKilledProxyIsSweptAfter(t *testing.T) {
	t.Parallel()
	a := newTwoAccounts(t)
	kept := filepath.Join(a.spool, "kept-x")
	old := filepath.Join(kept, "COMMANDS")
	if err := errors.Join(os.Mkdir(kept, 0o770), os.WriteFile(old, nil, 0o640), os.Chown(kept, int(a.front.Uid), int(a.workers.Gid))); err != nil {
		t.Fatal(err)
	}
	a.startWorkers("-f", a.untidyWorker())
	a.startProxy()
	var talks []*talk
	for _, commands := range [][]string{{"MAIL FROM:<ann@example.org>"}, {"MAIL FROM:<ann@example.org>", "RCPT TO:<bob@example.net>", "DATA"},
		{"MAIL FROM:<ann@example.org>", "RCPT TO:<bob@example.net>", "DATA"}} {
		c := startTalk(t, "127.0.0.1", a.address())
		defer c.Close()
		for _, command := range commands {
			c.say(command, map[bool]int{true: 354, false: 250}[command == "DATA"])
		}
		talks = append(talks, c)
	}
	talks[1].content("Subject: half\r\n\r\n" + strings.Repeat("x\r\n", 100_000))
	talks[2].content("Subject: hold\r\n\r\nx\r\n")
	for _, c := range talks[1:] {
		if err := c.W.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := talks[2].PrintfLine("."); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the scan", func() bool { _, err := os.Stat(filepath.Join(a.outside, "held")); return err == nil })
	a.proxy.Kill()
	a.proxy.Wait()
	if got := a.inSpool(); len(got) != 4 {
		t.Errorf("in the spool of the killed proxy: %q; want the three messages and what was kept", got)
	}
	a.startProxy()
	a.awaitSpool("kept-x")
	if err := os.WriteFile(filepath.Join(a.outside, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a.send(1, "Subject: after\r\n\r\nx\r\n")
	a.awaitSpool("kept-x")
	if _, err := os.Stat(old); err != nil {
		t.Error(err)
	}
}
