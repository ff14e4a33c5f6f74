package test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postern/internal/testenv"
)

// theirMultiplexor is Debian's.
const theirMultiplexor = "mimedefang-multiplexor"

// echoWorker is a worker that both multiplexors can run.
const echoWorker = `#!/usr/bin/perl
$| = 1;
while (<STDIN>) {
    chomp;
    if (/SLEEP=([\d.]+)/) { select(undef, undef, undef, $1) }
    if (/UNTIL=(\w+)/) { select(undef, undef, undef, 0.01) until -e $1 }
    exit 3 if /DIE/;
    if ($_ eq 'ping') { print "PONG\n"; next }
    if (/STATUS=(\S+)/) { syswrite(\*STDOUT, ''); open(my $s, '>&=', 3); syswrite($s, "$1\n") }
    print "ok got <$_>\n";
}
`

// oneMultiplexor is a running multiplexor, ours or theirs.
type oneMultiplexor struct {
	t    *testing.T
	dir  string
	proc *testenv.Process
}

// startMultiplexor starts a multiplexor under the original's name.
func startMultiplexor(t *testing.T, program, worker string, args ...string) *oneMultiplexor {
	t.Helper()
	p := &oneMultiplexor{t: t, dir: testenv.DaemonDir(t, filepath.Join(testenv.ShortDir(t), "d"))}
	full := []string{"-D", "-z", p.dir, "-s", p.path("s"), "-f", worker, "-b", "600", "-c", "600", "-Q", "600"}
	if account, drops := testenv.DaemonAccount(); drops {
		full = append(full, "-U", account)
	}
	p.proc = testenv.Start(t, exec.Command(program, append(full, args...)...))
	testenv.Eventually(t, "an answer of "+program, func() bool {
		if !p.proc.Running() {
			t.Fatalf("%s has ended", program)
		}
		conn, err := testenv.Connect("unix", p.path("s"))
		if err != nil {
			return false
		}
		defer conn.Close()
		_, err = io.WriteString(conn, "free\n")
		reply, _ := io.ReadAll(conn)
		return err == nil && len(reply) > 0
	})
	return p
}

func (p *oneMultiplexor) path(name string) string { return filepath.Join(p.dir, name) }

// ask sends bytes and gives all that comes back.
func (p *oneMultiplexor) ask(text string) string {
	conn, err := testenv.Connect("unix", p.path("s"))
	if err != nil {
		p.t.Error(err)
		return ""
	}
	defer conn.Close()
	testenv.Patient(conn)
	if _, err := io.WriteString(conn, text); err != nil {
		p.t.Error(err)
	}
	reply, err := io.ReadAll(conn)
	if err != nil {
		p.t.Errorf("%.60q: %v", text, err)
	}
	return string(reply)
}

func (p *oneMultiplexor) askLater(text string) <-chan string {
	c := make(chan string, 1)
	go func() { c <- p.ask(text) }()
	return c
}

func (p *oneMultiplexor) status() string { return strings.SplitN(p.ask("status\n"), " ", 2)[0] }

func (p *oneMultiplexor) waitStatus(letters string) {
	p.t.Helper()
	last := ""
	testenv.Eventually(p.t, "workers "+letters, func() bool {
		last = p.status()
		return last == letters
	})
}

// ourMultiplexor gives our multiplexor under the original's name.
func ourMultiplexor(t *testing.T) string {
	t.Helper()
	link := filepath.Join(testenv.ShortDir(t), theirMultiplexor)
	if err := os.Symlink(testenv.Binary(t, "multiplexor"), link); err != nil {
		t.Fatal(err)
	}
	return link
}

func writeWorker(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(testenv.ShortDir(t), "worker.pl")
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// varying are the parts of replies that differ from run to run.
var varying = []struct {
	pattern *regexp.Regexp
	mask    string
}{
	{regexp.MustCompile(`(?m)^(\d+ [IBK]) \d+`), "$1 PID"},
	{regexp.MustCompile(`PID \d+`), "PID PID"},
	{regexp.MustCompile(`ago=\d+`), "ago=N"},
	{regexp.MustCompile(`Age \d+`), "Age N"},
	{regexp.MustCompile(`\b\d+\.\d{6}`), "F"}, // averages of milliseconds
	{regexp.MustCompile(` \d+\n$`), " UPTIME\n"},
	{regexp.MustCompile(` \d+ (10|60|600)((?: \d+){3} UPTIME\n)$`), " UPTIME $1$2"}, // load1
}

func masked(s string) string {
	for _, v := range varying {
		s = v.pattern.ReplaceAllString(s, v.mask)
	}
	return s
}

// TestMultiplexorAnswersAsDebians has the same dialog with both.
func TestMultiplexorAnswersAsDebians(t *testing.T) {
	t.Parallel()
	theirs := testenv.Path(t, "the multiplexor beside Debian's", theirMultiplexor)
	worker := writeWorker(t, echoWorker)
	dialog := func(program string) (lines []string) {
		p := startMultiplexor(t, program, worker, "-x", "3", "-m", "1", "-a", "u", "-Z")
		p.waitStatus("ISS")
		say := func(text string) {
			reply := p.ask(text)
			lines = append(lines, fmt.Sprintf("%.60q -> %q", text, masked(reply)))
		}
		for _, line := range []string{"free", "status", "workers", "slaves", "busyworkers", "busyslaves", "msgs", "load", "load-relayok", "hload", "hload-senderok", "histo",
			"load1 10", "load1 60abc", "load1 9", "load1 601", "load1 x", "workerinfo 0", "workerinfo 1", "slaveinfo 2", "workerinfo 3", "workerinfo -1", "workerinfo x", "workerinfo 1abc", "workerinfo \t+1", "workerinfo 0x1", "load1 \v060",
			"tick", "foo_no_such_command", "ping", "PING", "free ", " free", "load1", "load1 ", "workerinfo", "tick 1", "scan q d", "scan", "relayok 1.2.3.4 h", "senderok a b",
			"recipok <a@x> <b@y> 1", "helook a", "", "ping\r", "ping\x00junk", "free\x00",
			"status", "workers", "msgs", "load", "load-recipok", "load1 600", "hload", "hload-relayok", "histo", "workerinfo 0"} {
			say(line + "\n")
		}
		say("free\nmsgs\n")
		held := p.askLater("scan Q%41 dir SLEEP=1\n")
		p.waitStatus("BSS")
		for _, line := range []string{"busyworkers", "workerinfo 0", "load1 60", "free"} {
			say(line + "\n")
		}
		lines = append(lines, testenv.Receive(t, "the reply to a slow request", held))
		say("reread\n")
		return lines
	}
	if d := cmp.Diff(dialog(theirs), dialog(ourMultiplexor(t))); d != "" {
		t.Errorf("-theirs +ours:\n%s", d)
	}
}

// TestMultiplexorEventsAsDebians compares what listeners hear.
func TestMultiplexorEventsAsDebians(t *testing.T) {
	t.Parallel()
	theirs := testenv.Path(t, "the multiplexor beside Debian's", theirMultiplexor)
	worker := writeWorker(t, echoWorker)
	dialog := func(program string) (events []string) {
		p := startMultiplexor(t, program, worker, "-x", "2", "-m", "1", "-O", "n", "-Z")
		p.waitStatus("IS")
		conn := testenv.Dial(t, "unix", p.path("n"))
		lines := make(chan string, 1000)
		go func() {
			defer close(lines)
			for in := bufio.NewScanner(conn); in.Scan(); {
				lines <- in.Text()
			}
		}()
		next := func() string {
			line := testenv.Receive(t, fmt.Sprintf("%s: something after %q", program, events), lines)
			if line == "" { // it is closed
				t.Fatalf("%s: the end after %q", program, events)
			}
			return line
		}
		until := func(end string) {
			for range 1000 {
				line := next()
				events = append(events, line)
				if line == end {
					return
				}
			}
			t.Fatalf("%s: no %q", program, end)
		}
		if got := next(); got != "*OK" {
			t.Errorf("greeting %q", got)
		}
		io.WriteString(conn, "?*\n")
		// The interest has no answer: first requests may come too early to be heard of.
		testenv.Eventually(t, "events", func() bool {
			p.ask("early\n")
			return len(lines) > 0
		})
		p.ask("in time\n")
		until("S 0 in time")
		until("F 2")
		events = nil
		p.ask("relayok 1.2.3.4 host\n")
		until("F 2")
		release := func(name string) {
			if err := os.WriteFile(p.path(name), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		a := p.askLater("scan QID UNTIL=first\n")
		until("S 0 scan QID")
		b := p.askLater("x UNTIL=second\n")
		until("S 1 x UNTIL=second")
		release("first")
		testenv.Receive(t, "the first reply", a)
		until("Y")
		release("second")
		testenv.Receive(t, "the second reply", b)
		until("F 2")
		p.ask("reread\n")
		until("R")
		until("S 1 StateChange Killed -> Stopped")
		return events
	}
	normal := func(events []string) string {
		// Which of two killed workers is reaped first is chance.
		i := len(events) - 1
		for i > 0 && events[i] != "R" {
			i--
		}
		return strings.Join(events[:i+1], "\n")
	}
	if d := cmp.Diff(normal(dialog(theirs)), normal(dialog(ourMultiplexor(t)))); d != "" {
		t.Errorf("-theirs +ours:\n%s", d)
	}
}

const simpleFilter = `
sub filter_relay { return ('CONTINUE', 'fine') }
sub filter_sender { my ($s) = @_; return ('REJECT', "no sender $s") if $s =~ /bad/; return ('CONTINUE', 'ok') }
sub filter_recipient { my ($r) = @_; return ('TEMPFAIL', 'later') if $r =~ /later/; return ('CONTINUE', 'ok') }
sub filter_begin {}
sub filter { return action_accept() }
sub filter_end { action_add_header('X-Seen', 'yes') }
1;
`

// TestMultiplexorRunsMimedefangPl has Debian's mimedefang.pl as worker, with and
// without the fork server, under both names.
func TestMultiplexorRunsMimedefangPl(t *testing.T) {
	t.Parallel()
	worker := testenv.Path(t, "mimedefang.pl as a worker", "mimedefang.pl")
	control := testenv.Path(t, "md-mx-ctrl at our socket", "md-mx-ctrl")
	filter := filepath.Join(testenv.ShortDir(t), "filter")
	if err := os.WriteFile(filter, []byte(simpleFilter), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, program := range map[string]string{"our name": testenv.Binary(t, "multiplexor"), "their name": ourMultiplexor(t)} {
		t.Run(name, func(t *testing.T) {
			p := startMultiplexor(t, program, worker, "-F", filter, "-x", "2", "-Z", "-l")
			outside := "error: Cannot chdir(/nonexistent): No such file or directory\n" // the worker says so
			if name == "our name" {
				outside = "error: Working directory is not below the spool directory\n"
			}
			for line, want := range map[string]string{
				"ping":                                  "PONG\n",
				"relayok 1.2.3.4 h 25 5.6.7.8 25 Q":     "ok 1 fine 250 2.1.0 0\n",
				"senderok <bad@x> 1.2.3.4 h he /tmp Q":  "ok 0 no%20sender%20<bad@x> 554 5.7.1 0\n",
				"senderok <good@x> 1.2.3.4 h he /tmp Q": "ok 1 ok 250 2.1.0 0\n",
				"recipok <later@x> <a@x> 1.2.3.4 h <later@x> he /tmp Q ? ? ?": "ok -1 later 451 4.3.0 0\n",
				"scan q /nonexistent": outside,
				"tick 3":              "error: tick 3: filter_tick undefined\n",
				"no such command":     "error: Unknown command\n",
			} {
				if got := p.ask(line + "\n"); got != want {
					t.Errorf("%s: %q, want %q", line, got, want)
				}
			}
			stdout, stderr, status := testenv.Run(t, control, "-s", p.path("s"), "status")
			if status != 0 || !strings.HasPrefix(stdout, "Max workers: 2\nWorker 0: idle\n") {
				t.Errorf("md-mx-ctrl status: %d, %q %q", status, stdout, stderr)
			}
			stdout, _, _ = testenv.Run(t, control, "-s", p.path("s"), "free")
			if stdout != "2\n" {
				t.Errorf("md-mx-ctrl free: %q", stdout)
			}
			stdout, _, _ = testenv.Run(t, control, "-s", p.path("s"), "reread")
			if stdout != "Forced reread of filter rules\n" {
				t.Errorf("md-mx-ctrl reread: %q", stdout)
			}
			testenv.Eventually(t, "an answer after the reread", func() bool { return p.ask("ping\n") == "PONG\n" })
			p.proc.Stop(syscall.SIGTERM)
			if status := p.proc.Wait(); status != 0 {
				t.Errorf("exit status %d", status)
			}
		})
	}
}
