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

	"postern/internal/testenv"
)

// holdWorker answers at once with what it was asked, but for lines with the word
// "hold": those wait for the file that the line ends in.
const holdWorker = `#!/bin/sh
while IFS= read -r line; do
	case $line in
	*" hold "*)
		until [ -e "${line##* }" ]; do sleep 0.02; done
		echo ok
		;;
	*) echo "ok%20got <$line>" ;;
	esac
done
`

// pool is a multiplexor with a worker program of the test.
type pool struct {
	t           *testing.T
	dir, socket string
	held        []*held
}

// held is a request whose worker waits for a file.
type held struct {
	command, file string
	reply         chan string
	released      bool
}

// startPool starts a multiplexor, the original or ours under its name, and waits
// for its first two workers.
func startPool(t *testing.T, program string) *pool {
	t.Helper()
	p := &pool{t: t, dir: testenv.ShortDir(t)}
	spool := testenv.DaemonDir(t, filepath.Join(p.dir, "spool"))
	p.socket = filepath.Join(spool, "mx")
	worker := filepath.Join(p.dir, "worker")
	if err := os.WriteFile(worker, []byte(holdWorker), 0o755); err != nil {
		t.Fatal(err)
	}
	args := []string{"-D", "-s", p.socket, "-z", spool, "-f", worker, "-m", "2", "-x", "4", "-w", "1", "-q", "3", "-Q", "600", "-b", "600"}
	if account, drops := testenv.DaemonAccount(); drops {
		args = append(args, "-U", account)
	}
	mx := testenv.Start(t, exec.Command(program, args...))
	t.Cleanup(func() {
		p.release(p.held...)
		if theirs, err := testenv.Find(theirMultiplexor); err == nil && program == theirs {
			mx.Kill() // it takes its 20 seconds when it has just retired workers
			return
		}
		mx.Stop(syscall.SIGTERM)
		mx.Wait()
	})
	testenv.Eventually(t, "two idle workers", func() bool {
		if !mx.Running() {
			t.Fatalf("%s has ended", program)
		}
		return p.letters() == "IISS"
	})
	return p
}

// ask sends one line and gives the reply, or nothing if nobody answers.
func (p *pool) ask(line string) string {
	conn, err := testenv.Connect("unix", p.socket)
	if err != nil {
		return ""
	}
	defer conn.Close()
	testenv.Patient(conn)
	io.WriteString(conn, line+"\n")
	reply, _ := io.ReadAll(conn)
	return string(reply)
}

func (p *pool) letters() string {
	letters, _, _ := strings.Cut(p.ask("status"), " ")
	return letters
}

// hold sends a line that keeps a worker busy until the request is released.
func (p *pool) hold(command string) *held {
	h := &held{command: command, file: filepath.Join(p.dir, fmt.Sprint("go", len(p.held))), reply: make(chan string, 1)}
	p.held = append(p.held, h)
	go func() { h.reply <- p.ask(command + " hold " + h.file) }()
	return h
}

// release lets the workers of requests go on, and waits for all replies.
func (p *pool) release(all ...*held) {
	p.t.Helper()
	for _, h := range all {
		if err := os.WriteFile(h.file, nil, 0o644); err != nil {
			p.t.Error(err)
		}
	}
	for _, h := range all {
		if !h.released {
			h.released = true
			if reply := testenv.Receive(p.t, "the reply to "+h.command, h.reply); reply != "ok\n" {
				p.t.Errorf("%s: reply %q", h.command, reply)
			}
		}
	}
}

func (p *pool) wait(status string) {
	p.t.Helper()
	pattern := regexp.MustCompile("^" + status + " [0-9]+\n$")
	testenv.Eventually(p.t, "status "+status, func() bool { return pattern.MatchString(p.ask("status")) })
}

// load brings a pool into a state with busy, idle and stopped workers and
// something in every statistic; fill makes all workers busy and two requests wait.
func (p *pool) load() (fill func()) {
	p.t.Helper()
	for i := range 3 {
		for _, command := range []string{"relayok", "helook", "senderok", "recipok", "scan"} {
			if reply, want := p.ask(fmt.Sprint(command, " ", i)), fmt.Sprintf("ok%%20got <%s %d>\n", command, i); reply != want {
				p.t.Fatalf("reply %q, want %q", reply, want)
			}
		}
	}
	p.hold("scan Q1")
	p.wait("(BI|IB)SS 3 2 3 0")
	p.hold("relayok 192.0.2.1")
	p.wait("BBSS 3 2 3 0")
	third := p.hold("recipok <a@example.com>")
	p.wait("BBBS 3 3 3 0")
	p.release(third)
	p.wait("BBIS 3 3 3 0")
	return func() {
		for _, letters := range []string{"BBBS 3 3 3 0", "BBBB 3 4 3 0", "BBBB 3 4 3 1", "BBBB 3 4 3 2"} {
			p.hold("senderok <b@example.com>")
			p.wait(letters)
		}
	}
}

// poolCommands are all commands whose reply does not depend on the version of the
// multiplexor; each is one command line.
var poolCommands = []string{"status", "barstatus", "rawstatus", "msgs", "free", "load", "load-relayok", "load-senderok", "load-recipok",
	"rawload", "rawload-relayok", "rawload-senderok", "rawload-recipok", "hload", "hload-relayok", "hload-senderok", "hload-recipok",
	"rawhload", "rawhload-relayok", "rawhload-senderok", "rawhload-recipok", "load1 600", "rawload1 600", "load1 5", "rawload1 x",
	"workers", "slaves", "busyworkers", "busyslaves", "workerinfo 0", "workerinfo 1", "slaveinfo 2", "workerinfo 3", "workerinfo 4", "workerinfo x",
	"histo", "tick", "foo_no_such_command"}

// idleCommands need a worker.
var idleCommands = []string{"ping", "foo a%20b", "FREE", "load1", "workerinfo"}

// relay is a socket that passes requests on to a multiplexor and keeps the replies.
func relay(t *testing.T, p *pool, tape *[]string) *scripted {
	return script(t, func(_ int, request string) string {
		reply := p.ask(strings.TrimSuffix(request, "\n"))
		*tape = append(*tape, reply)
		return reply
	})
}

// sameBytes asks a real multiplexor through Debian's tool, and shows ours, under
// both its names, the very same replies.
func sameBytes(t *testing.T, p *pool, theirs, ours string, commands []string) {
	t.Helper()
	for _, command := range commands {
		args := strings.Split(command, " ")
		var tape []string
		recorder := relay(t, p, &tape)
		want := control(t, theirs, recorder.socket, "", args...)
		asked := recorder.requests()
		if len(tape) != 1 {
			t.Fatalf("%s: %d requests", command, len(tape))
		}
		player := script(t, func(int, string) string { return tape[0] })
		differs(t, command, want, control(t, ours, player.socket, "", args...))
		differs(t, "the request for "+command, asked, player.requests())

		// Under its own name an error reply is a failure.
		if strings.HasPrefix(tape[0], "error:") {
			want.Status = 1
		}
		differs(t, "mx-ctrl "+command, want, control(t, testenv.Binary(t, "mx-ctrl"), player.socket, "", args...))
	}
}

func TestMxCtrlOnTheOriginalMultiplexor(t *testing.T) {
	t.Parallel()
	theirMx := testenv.Path(t, "mx-ctrl on the original multiplexor", "mimedefang-multiplexor")
	theirs, ours := controls(t)
	p := startPool(t, theirMx)
	sameBytes(t, p, theirs, ours, append([]string{"help", "version"}, poolCommands...)) // before the first request
	fill := p.load()
	sameBytes(t, p, theirs, ours, append(idleCommands, poolCommands...))
	fill()
	sameBytes(t, p, theirs, ours, poolCommands)
	sameBytes(t, p, theirs, ours, []string{"reread"})

	// The status socket's view works on an original, too.
	top := control(t, testenv.Binary(t, "mx-ctrl"), p.socket, "", "top")
	for _, want := range []string{"Workers 4: 4 busy, 0 idle, 0 killed, 0 stopped", "Busy          4/4  [####]", "Queue         2/3  [##.]",
		"Last 10 s          scan    relayok   senderok    recipok", "Running now           1          1          2          0", " scan     scan     scan Q1"} {
		if !strings.Contains(top.Stdout, want) || top.Status != 0 {
			t.Errorf("no %q in top:\n%s%s", want, top.Stdout, top.Stderr)
		}
	}
}

// masks take out what differs from run to run: process ids and times.
var masks = []struct {
	command, pattern *regexp.Regexp
	with             string
}{
	{regexp.MustCompile(`workers$|slaves$`), regexp.MustCompile(`(?m)^(\d+ [IBK]) \d+`), "$1 PID"},
	{regexp.MustCompile(`workers$|slaves$`), regexp.MustCompile(`ago=\d+`), "ago=N"},
	{regexp.MustCompile(`info`), regexp.MustCompile(`(PID|Age|FirstReqAge|LastStateChangeAge) \d+`), "$1 N"},
	{regexp.MustCompile(`^rawstatus`), regexp.MustCompile(`\d+\n`), "UPTIME\n"},
	// In tables the short times go, and of the others the milliseconds; of hload also
	// the rate, which comes from the time between the first and the last request.
	{regexp.MustCompile(`^load`), regexp.MustCompile(`(?m)^(10 Sec| 1 Min).*\n`), ""},
	{regexp.MustCompile(`^load`), regexp.MustCompile(`(?m)^( 5 Min|10 Min)( +\S+ +\S+) +\S+`), "$1$2 MS"},
	{regexp.MustCompile(`^hload`), regexp.MustCompile(`(?m)^    1h.*\n`), ""},
	{regexp.MustCompile(`^hload`), regexp.MustCompile(`(?m)^( +\d+h +\S+) +\S+ +\S+`), "$1 RATE MS"},
	{regexp.MustCompile(`^load1 600`), regexp.MustCompile(`(?m)^( *(?:Scan|Relayok|Senderok|Recipok)(?: +\S+){3}) +\S+`), "$1 MS"},
}

// rawMasks says which words of a raw reply differ from run to run, counted from 0.
var rawMasks = map[string][]int{
	"rawload":  {0, 1, 4, 5, 8, 9, 10, 11, 12, 13, 16, 17, 28},
	"rawhload": {0, 4, 8, 9, 10, 11, 12, 13, 14, 15},
	"rawload1": {2, 5, 8, 11, 20},
}

// steady gives what of an output is the same in each run.
func steady(command, output string) string {
	for _, m := range masks {
		if m.command.MatchString(command) {
			output = m.pattern.ReplaceAllString(output, m.with)
		}
	}
	verb, _, _ := strings.Cut(command, " ")
	verb, _, _ = strings.Cut(verb, "-")
	words := strings.Fields(output)
	if masked := rawMasks[verb]; masked != nil && len(words) > masked[len(masked)-1] && !strings.HasPrefix(output, "error:") {
		for _, i := range masked {
			words[i] = "N"
		}
		output = strings.Join(words, " ")
	}
	return output
}

// TestMxCtrlFourPairs asks Debian's multiplexor and ours, under the same load,
// through Debian's tool and ours: all four pairs say the same.
func TestMxCtrlFourPairs(t *testing.T) {
	t.Parallel()
	theirMx := testenv.Path(t, "four pairs of multiplexor and control tool", "mimedefang-multiplexor")
	theirs, ours := controls(t)
	ourMx := filepath.Join(testenv.ShortDir(t), "mimedefang-multiplexor")
	if err := os.Symlink(testenv.Binary(t, "multiplexor"), ourMx); err != nil {
		t.Fatal(err)
	}
	pools := []*pool{startPool(t, theirMx), startPool(t, ourMx)}
	compare := func(stage string, commands []string) {
		t.Helper()
		for _, command := range commands {
			var want said
			for i, tool := range []string{theirs, ours} {
				for j, p := range pools {
					got := control(t, tool, p.socket, "", strings.Split(command, " ")...)
					got.Stdout = steady(command, got.Stdout)
					if i == 0 && j == 0 {
						want = got
					}
					differs(t, fmt.Sprintf("%s: %s by %s from %s", stage, command, []string{"theirs", "ours"}[i], []string{"theirs", "ours"}[j]), want, got)
				}
			}
		}
	}
	compare("at the start", poolCommands)
	var fills []func()
	for _, p := range pools {
		fills = append(fills, p.load())
	}
	compare("some busy", poolCommands)
	for _, fill := range fills {
		fill()
	}
	compare("all busy", poolCommands)
	compare("reread", []string{"reread"})

	// -i, the way of monitors.
	for _, p := range pools {
		for _, tool := range []string{theirs, ours} {
			got := control(t, tool, p.socket, "msgs\nrawload1 600\nbusyslaves\nfoo_no_such_command\n", "-i")
			lines := bufio.NewScanner(strings.NewReader(got.Stdout))
			var last string
			n := 0
			for lines.Scan() {
				last = lines.Text()
				n++
			}
			if n != 7 || last != "error: Unknown command" || got.Status != 0 {
				t.Errorf("-i: %d lines, status %d:\n%s", n, got.Status, got.Stdout)
			}
		}
	}
}
