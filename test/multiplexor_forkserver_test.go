package test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"postern/internal/testenv"
)

// perlPool is our multiplexor with workers that are MIMEDefang's.
type perlPool struct {
	*pool
	mx *testenv.Process
}

// perlFilter are filter rules that tell who they are. A relay called "hold" waits
// for a file.
const perlFilter = `
sub filter_relay {
	my ($ip, $name) = @_;
	if ($name eq 'hold') { select undef, undef, undef, 0.02 until -e "DIR/go" }
	return ('CONTINUE', "RULES $$ " . join('.', map { int rand 1000000 } 1 .. 3));
}
sub filter_begin { }
sub filter { return action_accept() }
sub filter_end { action_add_header('X-Rules', 'RULES') }
sub filter_cleanup { return 7 }
1;
`

func startPerlPool(t *testing.T, more ...string) *perlPool {
	t.Helper()
	worker := testenv.Path(t, "MIMEDefang's workers", "mimedefang.pl")
	p := &perlPool{pool: &pool{t: t, dir: testenv.ShortDir(t)}}
	if err := os.Chmod(p.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	spool := testenv.DaemonDir(t, filepath.Join(p.dir, "spool"))
	p.socket = filepath.Join(spool, "mx")
	p.rules("one")
	args := []string{"-D", "-l", "--log-level", "debug", "-s", p.socket, "-z", spool, "-f", worker, "-F", p.filter(), "-b", "600", "-q", "20", "-Q", "600"}
	if account, drops := testenv.DaemonAccount(); drops {
		args = append(args, "-U", account)
	}
	p.mx = testenv.Start(t, exec.Command(testenv.Binary(t, "multiplexor"), append(args, more...)...))
	t.Cleanup(func() {
		p.touch("go")
		p.mx.Stop(syscall.SIGTERM)
		p.mx.Wait()
	})
	testenv.Eventually(t, "an answer of a worker", func() bool {
		if !p.mx.Running() {
			t.Fatal("the multiplexor has ended")
		}
		return p.ask("ping") == "PONG\n"
	})
	return p
}

func (p *perlPool) filter() string { return filepath.Join(p.dir, "filter") }

// rules writes a filter file that says so.
func (p *perlPool) rules(name string) {
	p.t.Helper()
	p.write("filter", strings.NewReplacer("RULES", name, "DIR", p.dir).Replace(perlFilter))
}

func (p *perlPool) write(name, text string) {
	p.t.Helper()
	temp := filepath.Join(p.dir, name+".new")
	if err := os.WriteFile(temp, []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(temp, filepath.Join(p.dir, name)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *perlPool) touch(name string) { p.write(name, "") }

// relay asks for a verdict on a relay and gives the rules, the process id and the
// random numbers that the worker answered with.
func (p *perlPool) relay(name string) (rules string, pid int, dice string) {
	reply := p.ask("relayok 192.0.2.1 " + name + " 1025 192.0.2.25 25 Q1")
	m := regexp.MustCompile(`^ok 1 (\w+)%20(\d+)%20([\d.]+) 250 2\.1\.0 0\n$`).FindStringSubmatch(reply)
	if m == nil {
		p.t.Errorf("relayok was answered %q", reply)
		return "", 0, ""
	}
	pid, _ = strconv.Atoi(m[2])
	return m[1], pid, m[3]
}

// waitSorted waits until so many workers are busy, idle, and so on.
func (p *perlPool) waitSorted(letters string) {
	p.t.Helper()
	testenv.Eventually(p.t, "workers "+letters, func() bool {
		got := []byte(p.letters())
		slices.Sort(got)
		return string(got) == letters
	})
}

// procField gives a numbered field of /proc/PID/stat, 0 if there is no such process.
func procField(pid, field int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b)[strings.LastIndexByte(string(b), ')')+1:])
	n, _ := strconv.Atoi(f[field-3])
	return n
}

func parentOf(pid int) int { return procField(pid, 4) }

// forked waits until a request is answered by a worker that the fork server has made, and gives the server. ask gives
// the process id of the worker that has answered, 0 for none. On a slow machine workers do not wait for the server until
// it has loaded the filter: those that come without it are ended.
func (p *perlPool) forked(ask func() (worker int)) (server int) {
	p.t.Helper()
	testenv.Eventually(p.t, "an answer of a worker that was forked", func() bool {
		worker := ask()
		server = parentOf(worker)
		if worker != 0 && server == p.mx.Pid() {
			syscall.Kill(worker, syscall.SIGKILL)
			ended(p.t, worker)
		}
		return server != 0 && parentOf(server) == p.mx.Pid()
	})
	return server
}

// relayed is for forked: the worker that answers relay.
func (p *perlPool) relayed() (worker int) {
	_, worker, _ = p.relay("host.example.org")
	return worker
}

// childrenOf gives the processes that a process has started.
func childrenOf(parent int) (pids []int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && parentOf(pid) == parent {
			pids = append(pids, pid)
		}
	}
	return pids
}

// ended waits until none of the processes is there.
func ended(t *testing.T, pids ...int) {
	t.Helper()
	testenv.Eventually(t, fmt.Sprint("the end of the processes ", pids), func() bool {
		return !slices.ContainsFunc(pids, func(pid int) bool { return syscall.Kill(pid, 0) != syscall.ESRCH })
	})
}

// message makes a working directory as a front end does.
func (p *perlPool) message(name string) string {
	p.t.Helper()
	dir := testenv.DaemonDir(p.t, filepath.Join(p.dir, "spool", name))
	for file, text := range map[string]string{
		"HEADERS":  "From: ann@example.org\nSubject: x\n",
		"INPUTMSG": "From: ann@example.org\nSubject: x\n\nhello\n",
		"COMMANDS": "iAAAAAAA\nS<ann@example.org>\nQQ1\nHhost.example.org\nI192.0.2.1\nEhost.example.org\nR<bob@example.net> ? ? ?\nUx\nF\n",
	} {
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			p.t.Fatal(err)
		}
	}
	return dir
}

func (p *perlPool) scan(name string) (results string) {
	p.t.Helper()
	dir := p.message(name)
	if reply := p.ask("scan Q1 " + dir); reply != "ok\n" {
		p.t.Errorf("scan was answered %q", reply)
	}
	b, err := os.ReadFile(filepath.Join(dir, "RESULTS"))
	if err != nil {
		p.t.Error(err)
	}
	return string(b)
}

// TestForkServerMIMEDefang is Debian's default configuration: -E with the real
// mimedefang.pl.
func TestForkServerMIMEDefang(t *testing.T) {
	t.Parallel()
	p := startPerlPool(t, "-E", "-Z", "-G", "-x", "3", "-w", "1", "-O", "events")
	server := p.forked(p.relayed)
	rules, pid, dice := p.relay("host.example.org")
	if rules != "one" || parentOf(pid) != server {
		t.Fatalf("answered by rules %q, process %d of %d; want a child of %d", rules, pid, parentOf(pid), server)
	}

	t.Run("surroundings", func(t *testing.T) {
		for fd, want := range []string{"pipe:", "pipe:", "pipe:", "pipe:"} {
			if target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd)); err != nil || !strings.HasPrefix(target, want) {
				t.Errorf("descriptor %d is %q, %v", fd, target, err)
			}
		}
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries[4:] {
			// The program keeps files of its own open.
			if target, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, e.Name())); !strings.HasPrefix(target, "/") {
				t.Errorf("descriptor %s is %s", e.Name(), target)
			}
		}
		if group := procField(pid, 5); group != pid {
			t.Errorf("process group %d, want its own, %d", group, pid)
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil || !strings.Contains(string(status), "\nUmask:\t0027\n") {
			t.Errorf("umask: %v\n%s", err, status)
		}
		m := regexp.MustCompile(`(?m)^SigIgn:\s+([0-9a-f]+)$`).FindStringSubmatch(string(status))
		if ignored, err := strconv.ParseUint(m[1], 16, 64); err != nil || ignored&(1<<(syscall.SIGPIPE-1)) == 0 {
			t.Errorf("ignored signals %s, want SIGPIPE among them", m[1])
		}
		if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err != nil || strings.Contains(string(line), "BEGIN") {
			t.Errorf("command line %q, %v; want the program's name only", line, err)
		}
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", server))
		if err != nil || !strings.Contains(string(env), "POSTERN_FORK_SOCKET=") {
			t.Errorf("environment of the server: %v", err)
		}
	})

	t.Run("random numbers", func(t *testing.T) {
		held := make(chan string, 1)
		go func() { _, _, dice := p.relay("hold"); held <- dice }()
		p.waitSorted("BSS")
		_, other, otherDice := p.relay("host.example.org")
		p.touch("go")
		firstDice := testenv.Receive(t, "the answer of the held worker", held)
		if other == pid || otherDice == firstDice || otherDice == dice {
			t.Errorf("workers %d and %d threw %s, %s and %s", pid, other, dice, firstDice, otherDice)
		}
	})

	t.Run("scan", func(t *testing.T) {
		events := testenv.Dial(t, "unix", filepath.Join(p.dir, "spool", "events"))
		fmt.Fprint(events, "?S\n")
		lines := bufio.NewReader(events)
		if line, err := lines.ReadString('\n'); err != nil || line != "*OK\n" {
			t.Fatalf("greeting %q, %v", line, err)
		}
		var stop atomic.Bool
		scans := testenv.Go(t, "scans", func() error {
			for i := 0; !stop.Load(); i++ {
				// The interest in events may be heard after the first scan.
				if results := p.scan(fmt.Sprint("scan", i)); !strings.Contains(results, "HX-Rules one\n") || !strings.HasSuffix(results, "F\n") {
					return fmt.Errorf("RESULTS %q", results)
				}
			}
			return nil
		})
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Errorf("no event with what the worker says by descriptor 3: %v", err)
				break
			}
			if strings.Contains(line, ": > In filter") {
				break
			}
		}
		stop.Store(true)
		scans.Wait()
	})

	t.Run("killed worker", func(t *testing.T) {
		_, victim, _ := p.relay("host.example.org")
		if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		p.mx.WaitOutput(fmt.Sprintf("(pid %d) exited due to signal 9", victim))
		rules, pid, _ := p.relay("host.example.org")
		if rules != "one" || pid == victim || parentOf(pid) != server {
			t.Errorf("answered by rules %q, process %d of %d", rules, pid, parentOf(pid))
		}
		ended(t, victim) // not even a zombie
	})

	t.Run("reread", func(t *testing.T) {
		_, before, _ := p.relay("host.example.org")
		p.rules("two")
		p.ask("reread")
		testenv.Eventually(t, "the new rules", func() bool { rules, _, _ := p.relay("host.example.org"); return rules == "two" })
		p.mx.WaitOutput(fmt.Sprintf("(pid %d) exited normally with status 7", before))
		ended(t, server)
		p.write("filter", "this is no Perl (")
		p.ask("reread")
		p.mx.WaitOutput("before it had loaded the filter")
		if rules, _, _ := p.relay("host.example.org"); rules != "two" {
			t.Errorf("after a reread of a broken filter the rules are %q", rules)
		}
		p.rules("three")
		p.ask("reread")
		testenv.Eventually(t, "the repaired rules", func() bool { rules, _, _ := p.relay("host.example.org"); return rules == "three" })
	})

	t.Run("killed server", func(t *testing.T) {
		server := p.forked(p.relayed)
		if err := syscall.Kill(server, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		p.mx.WaitOutput("Workers are started without a fork server")
		if rules, _, _ := p.relay("host.example.org"); rules != "three" {
			t.Errorf("rules %q", rules)
		}
		loaded := strings.Count(p.mx.Output(), "has loaded the filter")
		testenv.Eventually(t, "another fork server", func() bool { return strings.Count(p.mx.Output(), "has loaded the filter") >= max(loaded, 4) })
	})

	_, last, _ := p.relay("host.example.org")
	all := []int{last} // its fork server has been killed
	for _, pid := range childrenOf(p.mx.Pid()) {
		all = append(append(all, pid), childrenOf(pid)...)
	}
	p.mx.Stop(syscall.SIGTERM)
	if status := p.mx.Wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if len(all) < 2 {
		t.Errorf("processes %v before the end", all)
	}
	ended(t, all...)
}

// TestForkServerPerl: other programs in Perl than MIMEDefang's.
func TestForkServerPerl(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "workers in Perl", "perl")
	const loop = "sub do_main_loop { $| = 1; while (<STDIN>) { print \"$$ \", getppid(), \"\\n\" } exit 0 }\n"
	const mode = "my $mode = pop @ARGV; do_main_loop() if $mode =~ /^-server/; "
	tests := []struct {
		name, program string
		forked        bool
	}{
		{"main", loop + "sub main { " + mode + "return 0 }\nexit(main());\n", true},
		{"main unless caller", "use strict; use warnings;\n" + loop + "sub main { " + mode + "return 0 }\n&main unless caller;\n", true},
		{"no main", loop + mode + "\n", true},
		{"with DATA", loop + "sub main { die unless <DATA> eq \"data\\n\"; " + mode + "}\nmain();\n__DATA__\ndata\n", true},
		{"prints while it loads", loop + "sub main { print 'noise'; print STDERR \"loading\\n\"; <STDIN> unless $ARGV[-1] =~ /^-server/; $|=1; do_main_loop() if $ARGV[-1] eq '-server' }\nmain();\n", true},
		{"has END blocks", "END { print STDERR \"END $$\\n\" }\n" + loop + "sub main { " + mode + "}\nmain();\n", true},
		{"no loop", "$| = 1; if (pop(@ARGV) eq '-server') { while (<STDIN>) { print \"$$ \", getppid(), \"\\n\" } }\n", false},
		{"does not load", loop + "sub main { die \"no rules\\n\" if $ARGV[-1] ne '-server'; " + mode + "}\nmain();\n", false},
		{"forks while it loads", loop + "sub main { if (!fork) { exit 0 } wait; " + mode + "}\nmain();\n", true},
	}
	for _, tt := range tests {
		for _, head := range []string{"#!/usr/bin/perl\n", "#!/usr/bin/perl -wT\n"} {
			name := tt.name + strings.TrimSpace(strings.TrimPrefix(head, "#!/usr/bin/perl"))
			t.Run(name, func(t *testing.T) {
				p := startPlainPool(t, head+tt.program)
				var noise string
				answered := func() (worker int) {
					m := regexp.MustCompile(`^(noise)?(\d+) (\d+)\n$`).FindStringSubmatch(p.ask("x"))
					if m == nil {
						return 0
					}
					noise = m[1]
					worker, _ = strconv.Atoi(m[2])
					return worker
				}
				if tt.forked {
					p.forked(answered)
					if noise != "" {
						t.Errorf("what was printed while loading is in the answer: %q", noise)
					}
					return
				}
				var worker int
				testenv.Eventually(t, "an answer", func() bool { worker = answered(); return worker != 0 })
				if parent := parentOf(worker); parent != p.mx.Pid() {
					t.Errorf("answered by a worker of %d, want one of the multiplexor, %d", parent, p.mx.Pid())
				}
			})
		}
	}
}

// startPlainPool starts a multiplexor whose worker program has this text. More
// files, name and text, are beside the program.
func startPlainPool(t *testing.T, program string, files ...string) *perlPool {
	t.Helper()
	dir := testenv.ShortDir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	spool := testenv.DaemonDir(t, filepath.Join(dir, "spool"))
	p := &perlPool{pool: &pool{t: t, dir: dir, socket: filepath.Join(spool, "mx")}}
	for i := 0; i < len(files); i += 2 {
		p.write(files[i], files[i+1])
	}
	p.write("worker", program)
	if err := os.Chmod(filepath.Join(dir, "worker"), 0o755); err != nil {
		t.Fatal(err)
	}
	args := []string{"-D", "-l", "-s", p.socket, "-z", spool, "-f", filepath.Join(dir, "worker"), "-E", "-x", "2"}
	if account, drops := testenv.DaemonAccount(); drops {
		args = append(args, "-U", account)
	}
	p.mx = testenv.Start(t, exec.Command(testenv.Binary(t, "multiplexor"), args...))
	t.Cleanup(func() {
		p.mx.Stop(syscall.SIGTERM)
		if status := p.mx.Wait(); status != 0 {
			t.Errorf("exit status %d", status)
		}
	})
	return p
}

// TestForkServerExample runs the example of the manual page.
func TestForkServerExample(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "a worker in Python", "python3")
	_, page, _ := strings.Cut(readTree(t, "man/multiplexor-forkserver.7"), "\n.Sh EXAMPLES\n")
	_, page, _ = strings.Cut(page, "\n.Bd -literal -offset indent\n")
	program, _, ok := strings.Cut(page, "\n.Ed\n")
	if !ok {
		t.Fatal("there is no example")
	}
	program = "#!/usr/bin/env python3\n" + strings.ReplaceAll(program, `\e`, `\`)
	p := startPlainPool(t, program, "my_rules.py", "import os, sys\ndef serve():\n    for line in sys.stdin:\n        print(os.getpid(), os.listdir('/proc/self/fd')[:-1], flush=True)\n")
	ask := regexp.MustCompile(`^(\d+) \['0', '1', '2'\]\n$`)
	server := p.forked(func() (worker int) {
		if m := ask.FindStringSubmatch(p.ask("x")); m != nil {
			worker, _ = strconv.Atoi(m[1])
		}
		return worker
	})
	workers := childrenOf(server)
	p.mx.Stop(syscall.SIGTERM)
	if status := p.mx.Wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	ended(t, append(workers, server)...)
}

// cost is what the fifth worker of a pool costs.
type cost struct {
	start  time.Duration // to its first answer, at best
	memory int           // KiB of its own, median of all five
}

// fifthWorker measures it: four workers are busy, and the fifth is replaced
// after each of some requests. With --reload=classic nothing is started ahead of a request.
func fifthWorker(t *testing.T, requests int, more ...string) (c cost) {
	p := startPerlPool(t, append(more, "-m", "1", "-x", "5", "-r", "1", "-w", "600", "--reload", "classic")...)
	forks := slices.Contains(more, "-E")
	if forks {
		p.forked(p.relayed)
	}
	p.waitSorted("SSSSS")
	done := make(chan int, 5)
	hold := func() {
		go func() { _, pid, _ := p.relay("hold"); done <- pid }()
	}
	for range 4 {
		hold()
	}
	p.waitSorted("BBBBS")
	best := time.Hour // what else the machine has to do can only make it longer
	for range requests {
		began := time.Now()
		p.relay("host.example.org")
		best = min(best, time.Since(began))
		p.waitSorted("BBBBS") // the worker has gone after its only request
	}
	hold()
	p.waitSorted("BBBBB")
	workers := childrenOf(p.mx.Pid())
	if forks {
		if len(workers) != 1 {
			t.Fatalf("children of the multiplexor: %v, want the fork server", workers)
		}
		workers = childrenOf(workers[0])
	}
	var memory []int
	for _, pid := range workers {
		memory = append(memory, privateMemory(t, pid))
	}
	if len(memory) != 5 {
		t.Fatalf("workers %v, want 5", workers)
	}
	p.touch("go")
	for range 5 {
		testenv.Receive(t, "the end of a held request", done)
	}
	p.mx.Stop(syscall.SIGTERM)
	p.mx.Wait()
	slices.Sort(memory)
	return cost{best, memory[len(memory)/2]}
}

// privateMemory is what of a process's memory no other process shares, in KiB.
func privateMemory(t *testing.T, pid int) (kib int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "Private_") {
			n, _ := strconv.Atoi(strings.Fields(line)[1])
			kib += n
		}
	}
	return kib
}

// TestForkServerPays: what -E is for.
func TestForkServerPays(t *testing.T) {
	t.Parallel()
	with, without := fifthWorker(t, 15, "-E"), fifthWorker(t, 2)
	t.Logf("first answer of the fifth worker after %v with -E, %v without; memory of its own %d KiB, %d KiB", with.start, without.start, with.memory, without.memory)
	if with.start*10 > without.start {
		t.Errorf("with -E the first answer takes %v, without %v; want a tenth at most", with.start, without.start)
	}
	if with.memory >= without.memory {
		t.Errorf("with -E a worker has %d KiB of its own, without %d; want less", with.memory, without.memory)
	}
}
