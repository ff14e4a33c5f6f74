package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/procstat"
	"postern/internal/testenv"
	"postern/multiplexor/pool"
)

const (
	brokeProtocol = "ERR Worker broke the protocol\n"
	noResponse    = "ERR No response from worker\n"
	timedOut      = "ERR Filter timed out - check filter rules or system load\n"
)

// uglyRequest is one that a worker does not answer as it should.
type uglyRequest struct{ name, line, want string }

// askUgly makes the requests one after another. Meanwhile, and afterwards, everything
// else goes on.
func (r *real) askUgly(t *testing.T, requests []uglyRequest) {
	outer := r.t
	defer func() { r.t = outer }()
	for _, tt := range requests {
		t.Run(tt.name, func(t *testing.T) {
			r.t = t
			reply := r.background(tt.line)
			r.ask("free")
			r.want("ping", "PONG\n")
			if got := withoutCause(reply()); got != tt.want {
				t.Errorf("got %.100q, want %.100q", got, tt.want)
			}
			r.want("ping", "PONG\n")
		})
	}
}

// timeOut makes requests that a worker does not end, of a multiplexor with a short busy timeout, within which a slow
// machine may not even start a worker.
func (r *real) timeOut(lines ...string) {
	r.t.Helper()
	for _, line := range lines {
		reply := r.background(line)
		r.ask("free")
		if got := reply(); got != timedOut {
			r.t.Errorf("%s: got %.100q, want %q", line, got, timedOut)
		}
		r.awaitPong()
	}
}

// awaitPong waits for a worker that answers in time.
func (r *real) awaitPong() {
	r.t.Helper()
	testenv.Eventually(r.t, "an answer to ping in time", func() bool { return r.ask("ping") == "PONG\n" })
}

// TestWRK_09_WorkersThatBreakTheProtocol: each harms its own request at most, and no
// answer is that of another request.
func TestWRK_09_WorkersThatBreakTheProtocol(t *testing.T) {
	t.Parallel()
	r := startReal(t, "-x", "2", "-b", "600")
	r.askUgly(t, []uglyRequest{
		{"half an answer and exit", "do raw ok+1;exit 0", noResponse},
		{"two lines", `do raw one\ntwo\n;mute`, brokeProtocol},
		{"two lines and exit", `do raw one\ntwo\n;exit 0`, brokeProtocol},
		{"answer of 1 MiB", "do long 1048576", brokeProtocol},
		{"answer of 60 KiB", "do long 61440", strings.Repeat("l", 61440) + "\n"},
		{"closes its output", "do close;sleep 60000", noResponse},
		{"is fine", "x", "ok got <x>\n"},
	})
	r.end()
	r = startReal(t, "-x", "2", "-b", "2")
	r.timeOut("do raw part;sleep 60000")
	r.end()
}

// TestWRK_09_OutputNobodyAskedFor: the original gave the second line to the next client.
func TestWRK_09_OutputNobodyAskedFor(t *testing.T) {
	t.Parallel()
	r := startReal(t, "-x", "1")
	fifo, speak := r.fifo()
	r.want("do later "+fifo, "ok did\n")
	speak() // had it done so before the answer was read, that would have been no answer
	r.logged("although it had no request")
	r.want("ping", "PONG\n")
	r.end()
}

// TestWRK_09_OutputBeforeTheFirstRequest: a worker that has something to say when it
// starts is ended, with a request that waits for it or without one; what it said
// answers nothing.
func TestWRK_09_OutputBeforeTheFirstRequest(t *testing.T) {
	t.Parallel()
	r := prepare(t)
	r.worker = r.path("talker")
	// It lets the request come before it speaks, and does not read it: had it done so before anybody looked at what it said,
	// that would be an answer.
	r.write(r.worker, "#!/bin/sh\nsleep 0.2\necho ok\nexec sleep 600\n")
	r.start(exec.Command(testenv.Binary(t, "multiplexor"), r.args("-D", "-l", "-x", "3")...))
	for range 3 {
		got := r.ask("scan q " + r.dir + "/missing/../x") // refused, and asks no worker
		if got != textOutside {
			t.Fatalf("got %q", got)
		}
		if got := withoutCause(r.ask("relayok 192.0.2.1")); !slices.Contains([]string{brokeProtocol, pool.FailStart.Text()}, got) {
			t.Errorf("a worker that speaks first answered %q", got)
		}
	}
	r.logged("(pid")
	testenv.Eventually(t, "the end of the workers, and a pause", func() bool {
		out := r.proc.Output()
		return (strings.Contains(out, "before it had read its request") || strings.Contains(out, "although it had no request") || strings.Contains(out, "to ping")) && strings.Contains(out, "in a row ended before")
	})
	r.end()
}

// TestWRK_11_FloodOfStandardError: a worker that writes a lot is read, holds up nobody,
// and fills neither memory nor log.
func TestWRK_11_FloodOfStandardError(t *testing.T) {
	t.Parallel()
	r := startReal(t, "-x", "2", "-b", "600")
	began := time.Now()
	reply := r.background(fmt.Sprint("do flood ", testenv.Load(1_000_000, 2_000_000))) // 100 MB
	r.waitStatus("BS")
	r.want("ping", "PONG\n")
	if got := reply(); got != "ok did\n" {
		t.Errorf("got %q", got)
	}
	if n, most := strings.Count(r.proc.Output(), "\n"), int(time.Since(began).Seconds()+2)*(lineRate.Kind+20); n > most {
		t.Errorf("%d lines of log, want at most %d in that time", n, most)
	}
	if kib := residentKB(t, r.proc.Pid()); kib > 64<<10 {
		t.Errorf("%d KiB of memory", kib)
	}
	r.end()
}

// residentKB is the resident memory of a process.
func residentKB(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib
}

// TestWRK_12_StubbornWorkers: one that ignores the end of its input and SIGTERM, and
// has a child that keeps the pipes open, is killed with that child, and its slot can be
// used again.
func TestWRK_12_StubbornWorkers(t *testing.T) {
	t.Parallel()
	r := startReal(t, "-b", "2", "-x", "1")
	brood := r.brood()
	before := countFDs(t, r.proc.Pid())
	r.want("do stubborn;sleep 3600000", timedOut)
	if got, _, _ := strings.Cut(r.ask("status"), " "); got != "K" {
		t.Errorf("workers %s, want one killed", got)
	}
	r.waitStatus("S") // after SIGKILL
	r.awaitPong()
	testenv.Eventually(t, "the end of the worker's child", func() bool {
		st, err := procstat.Read(brood)
		return err != nil || st.State == 'Z'
	})
	testenv.Eventually(t, "no descriptor more", func() bool { return countFDs(t, r.proc.Pid()) <= before })
	r.end()
	// A worker that goes by itself leaves its child, and that one harms nobody.
	r = startReal(t, "-b", "600", "-x", "1")
	brood = r.brood()
	r.want("do exit 0", noResponse)
	r.awaitPong()
	if err := syscall.Kill(brood, syscall.SIGKILL); err != nil {
		t.Errorf("the child of a worker that went by itself: %v", err)
	}
	r.end()
}

// brood has a worker start a child, as soon as there is one that answers in time.
func (r *real) brood() (pid int) {
	r.t.Helper()
	testenv.Eventually(r.t, "the worker's child", func() bool {
		var err error
		pid, err = strconv.Atoi(strings.TrimSpace(r.ask("do brood")))
		return err == nil
	})
	return pid
}

// TestWRK_13_WorkersThatEnd in the middle of a request, by themselves, by a signal, or
// by a limit: the client is told, listeners are, and there is another worker.
func TestWRK_13_WorkersThatEnd(t *testing.T) {
	t.Parallel()
	r := startReal(t, "-x", "2", "-b", "600", "-M", "4000000", "-O", "n")
	events := r.listensTo("U")
	r.askUgly(t, []uglyRequest{
		{"exit", "do exit 0", noResponse},
		{"exit with a status", "do exit 3", noResponse},
		{"killed", "do die", noResponse},
		{"too much memory", "do memory 6000", noResponse},
	})
	r.awaitEvents(events, "U", 4)
	r.end()
	r = startReal(t, "-x", "2", "-b", "2", "-O", "n")
	events = r.listensTo("B")
	r.timeOut("do spin", "do sleep 60000")
	r.awaitEvents(events, "B", 2)
	r.end()
}

// listensTo gives what a listener hears from when its interest is in force.
func (r *real) listensTo(letter string) *bufio.Reader {
	r.t.Helper()
	_, events := r.listener("?" + letter + "+\n")
	if line, err := events.ReadString('\n'); !strings.HasPrefix(line, "*EXT") {
		r.t.Fatalf("answer to the interest: %q, %v", line, err)
	}
	return events
}

// awaitEvents reads so many events of a letter.
func (r *real) awaitEvents(from *bufio.Reader, letter string, n int) {
	r.t.Helper()
	for seen := 0; seen < n; {
		line, err := from.ReadString('\n')
		if err != nil {
			r.t.Fatalf("%v after %d events %s", err, seen, letter)
		}
		if words := strings.Fields(line); len(words) == 3 && words[2][:1] == letter {
			seen++
		}
	}
}

// TestWRK_14_PoisonedMessage: no third worker gets a message that two have died of, and
// other messages are not affected.
func TestWRK_14_PoisonedMessage(t *testing.T) {
	t.Parallel()
	r := startReal(t, "-x", "3")
	for _, dir := range []string{"bad", "good"} {
		if err := os.Mkdir(r.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{noResponse, noResponse, pool.FailPoison.Text(), pool.FailPoison.Text()} {
		r.want("scan Q1 "+r.path("bad")+" do die", want)
		r.want("scan Q2 "+r.path("good"), "ok got <scan Q2 "+r.path("good")+">\n")
	}
	r.logged("Q1: not scanned: its working directory " + r.path("bad") + " has ended 2 workers")
	r.end()
}

// TestWRK_15_WorkersThatCannotStart: clients are told, there is no storm of processes,
// and the log says what to look at.
func TestWRK_15_WorkersThatCannotStart(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, program string
		mode          os.FileMode
		logs          []string
	}{
		{"missing", "", 0, []string{"no such file or directory"}},
		{"not executable", "#!/bin/sh\nexit 0\n", 0o644, []string{"permission denied"}},
		{"no program", "\x00\x01\x02\x03", 0o755, []string{"exec format error"}},
		{"interpreter missing", "#!/nonexistent/perl\n", 0o755, []string{"no such file or directory"}},
		{"exits at once", "#!/bin/sh\nexit 7\n", 0o755, []string{"exited with status 7: "}},
		{"garbage at start", "#!/bin/sh\necho garbage\necho more\nsleep 3600\n", 0o755, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := prepare(t)
			r.worker = r.path("bad worker")
			if tt.program != "" {
				r.write(r.worker, tt.program)
				if err := os.Chmod(r.worker, tt.mode); err != nil {
					t.Fatal(err)
				}
			}
			r.start(exec.Command(testenv.Binary(t, "multiplexor"), r.args("-D", "-l", "--log-level", "debug")...))
			refusals := []string{pool.FailStart.Text(), pool.FailDied.Text(), pool.FailTalk.Text(), pool.FailAnswer.Text(), pool.FailNoFree.Text()}
			for range 50 {
				if got := withoutCause(r.ask("ping")); !slices.Contains(refusals, got) {
					t.Fatalf("got %q", got)
				}
			}
			// Without back-off there would be one or two for each. On a busy machine some
			// are started before the end of the first ones is noticed.
			if n := strings.Count(r.proc.Output(), "Starting worker"); n > 25 {
				t.Errorf("%d processes for 50 requests: a fork storm", n)
			}
			for _, text := range append(tt.logs, "in a row ended before they had answered anything") {
				r.logged(text)
			}
			r.end()
		})
	}
}

// TestWRK_17_NoShell: whatever a client writes is data. A worker gets it on its standard
// input, and no argument or variable of any process has it.
func TestWRK_17_NoShell(t *testing.T) {
	t.Parallel()
	r := startReal(t, "-x", "2", "--keep-poison", "kept", "-Z")
	for _, dir := range []string{"kept", "-rf", "$(touch x)"} {
		if err := errors.Join(os.Mkdir(r.path(dir), 0o777), os.Chmod(r.path(dir), 0o777)); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{"; touch pwned", "$(touch pwned)", "`touch pwned`", "| touch pwned", "--help", "-f /etc/passwd", "%0Atouch%20pwned"} {
		r.want("helook "+text, "ok got <helook "+text+">\n")
	}
	for _, dir := range []string{"-rf", "$(touch%20x)"} {
		for _, want := range []string{noResponse, noResponse, pool.FailPoison.Text()} {
			r.want("ping", "PONG\n") // workers that never answer would make the next one wait
			r.want("scan -q "+r.path(dir)+" do die", want)
		}
		r.logged("working directory " + r.path(dir) + " kept as")
	}
	for _, name := range []string{"pwned", "x"} {
		if _, err := os.Stat(r.path(name)); err == nil {
			t.Errorf("%s was made", name)
		}
	}
	if about := r.ask("do about"); !strings.HasPrefix(about, "argv=worker,-serveru ") {
		t.Errorf("arguments of a worker: %s", about)
	}
	r.end()
}

// write makes a file that everybody can read and run.
func (r *real) write(path, text string) {
	r.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Chmod(path, 0o755); err != nil { // whatever the umask is
		r.t.Fatal(err)
	}
}

// TestWRK_18_WhatAWorkerInherits: pipes and nothing else, an environment without what is
// not meant for it, its own group.
// FS-15.
func TestWRK_18_WhatAWorkerInherits(t *testing.T) {
	t.Parallel()
	r := prepare(t)
	cmd := exec.Command(testenv.Binary(t, "multiplexor"), r.args("-D", "-Z", "-F", "/etc/rules", "-M", "5000000")...)
	cmd.Env = append(os.Environ(), "LD_PRELOAD=", "PERL5OPT=-w", "NOTIFY_SOCKET=/nonexistent", "KEEP_ME=1", "MULTIPLEXOR_MAX_WORKERS=3")
	r.start(cmd)
	about := r.ask("do about")
	for _, want := range []string{"argv=worker,-f,/etc/rules,-serveru ", " fds=0=pipe,1=pipe,2=pipe,3=pipe ", " umask=077 ", " space=5120000000 ", " dir=" + r.dir + " ", " group=own ", "KEEP_ME"} {
		if !strings.Contains(about, want) {
			t.Errorf("a worker lacks %q:\n%s", want, about)
		}
	}
	for _, bad := range []string{"LD_PRELOAD", "PERL5OPT", "NOTIFY_SOCKET", "MULTIPLEXOR_"} {
		if strings.Contains(about, bad) {
			t.Errorf("a worker has %s:\n%s", bad, about)
		}
	}
	if !strings.HasPrefix(r.ask("status"), "ISS ") {
		t.Errorf("the environment's MULTIPLEXOR_MAX_WORKERS=3 was not taken: %s", r.ask("status"))
	}
	r.end()
}
