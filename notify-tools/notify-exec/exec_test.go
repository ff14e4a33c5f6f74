package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/notify"
	"postern/internal/notify/hub"
	"postern/internal/testenv"
)

// A trial is notify-exec at work on a hub.
type trial struct {
	t           *testing.T
	dir, socket string
	hub         *hub.Hub
	stop        chan os.Signal
	status      chan int
	out, log    testenv.Buffer
}

// begin starts a hub with the given state and notify-exec on it. In the
// arguments, $DIR stands for the trial's directory, and RECORD for a program that
// writes its arguments, a line, to the file "record" there.
func begin(t *testing.T, seed []string, args ...string) *trial {
	t.Helper()
	tr := &trial{t: t, dir: testenv.ShortDir(t), stop: make(chan os.Signal, 2), status: make(chan int, 1)}
	tr.socket = filepath.Join(tr.dir, "mx-notify.sock")
	tr.serve(seed...)
	record := filepath.Join(tr.dir, "note")
	script := fmt.Sprintf("#!/bin/sh\nfor a; do l=\"$l$a|\"; done\nprintf '%%s\\n' \"$l\" >>%s/record\n", tr.dir) // one write, as commands overlap
	if err := os.WriteFile(record, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	for i, a := range args {
		args[i] = strings.NewReplacer("RECORD", record, "$DIR", tr.dir).Replace(a)
	}
	go func() { tr.status <- run(append(args, tr.socket), tr.stop, &tr.out, &tr.log) }()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("standard error:\n%s", tr.log.String())
		}
	})
	testenv.Eventually(t, "a listener", func() bool { return tr.hub.Stats().Subscriptions > 0 })
	return tr
}

func (tr *trial) serve(seed ...string) {
	tr.t.Helper()
	os.Remove(tr.socket)
	l, err := net.Listen("unix", tr.socket)
	if err != nil {
		tr.t.Fatal(err)
	}
	tr.hub = hub.New(hub.Options{})
	for _, s := range seed {
		tr.hub.Seed(message(s))
	}
	go tr.hub.Serve(l)
	tr.t.Cleanup(tr.hub.Close)
}

func message(s string) notify.Message {
	return notify.Message{Letter: s[0], Text: strings.TrimPrefix(s[1:], " ")}
}

func (tr *trial) publish(lines ...string) {
	for _, s := range lines {
		tr.hub.Publish(message(s))
	}
}

func (tr *trial) record() string {
	b, _ := os.ReadFile(filepath.Join(tr.dir, "record"))
	return string(b)
}

// want waits until the record is this.
func (tr *trial) want(record string) {
	tr.t.Helper()
	testenv.Eventually(tr.t, fmt.Sprintf("the record %q", record), func() bool { return tr.record() == record })
}

// end sends SIGTERM and returns the exit status.
func (tr *trial) end() int {
	tr.t.Helper()
	tr.stop <- syscall.SIGTERM
	return testenv.Receive(tr.t, "the end after SIGTERM", tr.status)
}

func TestGate(t *testing.T) {
	t.Parallel()
	tr := begin(t, []string{"F 0", "Z"},
		"--on", "Z", "RECORD", "shut", ";", "--on", "Y", "RECORD", "open", ";", "--undo", "RECORD", "undo", ";")
	tr.want("shut|\n") // by the snapshot
	tr.publish("F 1", "Y")
	tr.want("shut|\nopen|\n")
	tr.publish("F 0", "Z")
	tr.want("shut|\nopen|\nshut|\n")
	tr.publish("Z") // no change
	tr.publish("F 1", "Y")
	tr.want("shut|\nopen|\nshut|\nopen|\n")
	if status := tr.end(); status != 0 {
		t.Errorf("status %d", status)
	}
	tr.want("shut|\nopen|\nshut|\nopen|\nundo|\n")
}

// TestNoShell is EVT-01: what an event says reaches the program byte for byte,
// as one argument.
func TestNoShell(t *testing.T) {
	t.Parallel()
	evil := "0 $(touch OWNED) `id` ; rm -rf ~ -n 'x' \"y\" * \\ {text} {}"
	tr := begin(t, nil, "--on", "S", "RECORD", "{}", "{type}", "a{worker}b", "{text}", "{free}", "{seq}", "{source}", "{other}", ";")
	tr.publish("F 7", evilMessage(evil))
	tr.want("S " + evil + "|S|a0b|" + evil + "|7|2|mx|{other}|\n")
	if status := tr.end(); status != 0 {
		t.Errorf("status %d", status)
	}
}

func evilMessage(text string) string { return "S " + text }

func TestEnvironment(t *testing.T) {
	t.Parallel()
	tr := begin(t, nil, "--on=S", "sh", "-c",
		`printf '%s|' "$POSTERN_EVENT" "$POSTERN_TYPE" "$POSTERN_TEXT" "$POSTERN_FREE" "$POSTERN_WORKER" "$POSTERN_SOURCE" "$POSTERN_SEQ" "$POSTERN_KIND"; echo`, ";")
	tr.publish("F 3", "S 5 scan $HOME\xff")
	testenv.Eventually(t, "the output", func() bool {
		return tr.out.String() == "S 5 scan $HOME\xff|S|5 scan $HOME\xff|3|5|mx|2|event|\n"
	})
	tr.end()
}

func TestNothingOverlaps(t *testing.T) {
	t.Parallel()
	tr := begin(t, nil, "--on", "U", "sh", "-c",
		`cd $DIR; mkdir lock || echo overlap >>record; sleep 0.02; rmdir lock; echo "$POSTERN_SEQ" >>record`, ";", "--run-timeout=0s")
	want := ""
	for i := range 10 {
		tr.publish("U")
		want += fmt.Sprintln(i + 1)
	}
	tr.want(want)
	tr.end()
}

func TestStatesSkipWhatHasPassed(t *testing.T) {
	t.Parallel()
	tr := begin(t, nil, "--on", "YZ", "sh", "-c", `echo "$POSTERN_TYPE" >>"$DIR/record"; while [ -e "$DIR/wait" ]; do sleep 0.01; done`, ";",
		"--on", "B", "sh", "-c", `: >"$DIR/read"`, ";", "-v")
	hold := filepath.Join(tr.dir, "wait")
	os.WriteFile(hold, nil, 0o600)
	tr.publish("Z")
	tr.want("Z\n")
	tr.publish("Y", "Z", "Y", "Z", "Y", "B") // while the command runs
	testenv.Eventually(t, "what comes before B was read", func() bool { _, err := os.Stat(filepath.Join(tr.dir, "read")); return err == nil })
	os.Remove(hold)
	tr.want("Z\nY\n")
	tr.publish("Z")
	tr.want("Z\nY\nZ\n")
	tr.end()
}

func TestMinHold(t *testing.T) {
	t.Parallel()
	const hold = 2 * time.Second // what comes at once comes within it
	tr := begin(t, nil, "--min-hold="+hold.String(), "--on", "YZ", "RECORD", "{}", ";")
	start := time.Now()
	tr.publish("Z")
	tr.want("Z|\n")
	tr.hub.Publish(message("Y"), message("Z"), message("Y")) // changes back meanwhile: nothing to do
	tr.want("Z|\nY|\n")
	if d := time.Since(start); d < hold {
		t.Errorf("Y was carried out after %v", d)
	}
	tr.end()
}

func TestDebounce(t *testing.T) {
	t.Parallel()
	const pause = 2 * time.Second // all comes within it
	tr := begin(t, nil, "--debounce", pause.String(), "--on", "YZ", "RECORD", "{}", ";", "--on", "B", "RECORD", "{}", ";")
	start := time.Now()
	var all []notify.Message
	for range 20 {
		all = append(all, message("Z"), message("Y"), message("B"))
	}
	tr.hub.Publish(append(all, message("Z"))...)
	testenv.Eventually(t, "both commands", func() bool {
		return strings.Count(tr.record(), "\n") == 2
	})
	if d := time.Since(start); d < pause {
		t.Errorf("after %v", d)
	}
	tr.end()
	if r := tr.record(); r != "B|\nZ|\n" && r != "Z|\nB|\n" {
		t.Errorf("record %q", r)
	}
}

func TestRepeat(t *testing.T) {
	t.Parallel()
	tr := begin(t, nil, "--repeat=50ms", "--on", "Z", "RECORD", "{}", ";")
	tr.publish("Z")
	testenv.Eventually(t, "repetitions", func() bool { return strings.Count(tr.record(), "Z|\n") >= 3 })
	tr.publish("Y")
	tr.end()
}

// TestDeadMan is EVT-08: the daemon goes away while something is in force.
func TestDeadMan(t *testing.T) {
	t.Parallel()
	tr := begin(t, []string{"F 0", "Z"}, "--dead-man=2s",
		"--on", "Z", "RECORD", "shut", ";", "--on", "Y", "RECORD", "open", ";", "--undo", "RECORD", "undo", ";")
	tr.want("shut|\n")
	tr.hub.Close()
	tr.want("shut|\nundo|\n")
	tr.serve("F 0", "Z") // it is back, and still has no free worker
	tr.want("shut|\nundo|\nshut|\n")
	if status := tr.end(); status != 0 {
		t.Errorf("status %d", status)
	}
	tr.want("shut|\nundo|\nshut|\nundo|\n")
	for _, s := range []string{"lost mx", "has been away for 2s: undo"} {
		if !strings.Contains(tr.log.String(), s) {
			t.Errorf("%q is missing in %q", s, tr.log.String())
		}
	}
}

// TestUndoDoesNotWait has a command run for ever when undo is due: it is ended, with all it has started, and only then
// undo is run.
func TestUndoDoesNotWait(t *testing.T) {
	t.Parallel()
	const note = `echo begun >>"$DIR/record"; `
	const stubborn = `sh -c 'trap "" TERM; ` + note + `while :; do sleep 1; done' & `
	for _, tt := range []struct {
		name, command string
		signal        bool // or the daemon is away
	}{
		{"ends when asked", note + `exec sleep 1000`, true},
		{"ends when asked, daemon away", note + `exec sleep 1000`, false},
		{"has to be killed", `trap "" TERM; ` + note + `while :; do sleep 1; done`, true},
		{"waits for another that has to be killed", stubborn + `wait`, false},
		{"leaves another behind", stubborn + `sleep 1000`, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			command := `echo $$ >>"$DIR/groups"; ` + tt.command
			tr := begin(t, nil, "--dead-man=2s", "--run-timeout=0", "--on", "B", "sh", "-c", command, ";", "--on", "Z", "sh", "-c", command, ";",
				"--undo", "sh", "-c", `for g in $(cat "$DIR/groups"); do
						for i in $(seq 600); do pgrep -g $g -r R,S,D >"$DIR/left" || break; sleep 0.1; done # one that was killed may show for a moment
						cat "$DIR/left" >>"$DIR/record"
					done; echo undone >>"$DIR/record"`, ";")
			tr.publish("B", "Z")
			tr.want("begun\nbegun\n")
			if tt.signal {
				if status := tr.end(); status != 0 {
					t.Errorf("status %d", status)
				}
				tr.want("begun\nbegun\nundone\n")
				return
			}
			tr.hub.Close()
			tr.want("begun\nbegun\nundone\n")
			tr.serve("F 0", "Z") // it is back, and the command for Z is run again at once
			tr.want("begun\nbegun\nundone\nbegun\n")
			tr.end()
		})
	}
}

func TestShortLossIsNoHarm(t *testing.T) {
	t.Parallel()
	tr := begin(t, []string{"F 0", "Z"}, "--dead-man=1m",
		"--on", "Z", "RECORD", "shut", ";", "--on", "Y", "RECORD", "open", ";", "--undo", "RECORD", "undo", ";")
	tr.want("shut|\n")
	tr.hub.Close()
	tr.serve("F 2", "Y")
	tr.want("shut|\nopen|\n") // what has changed meanwhile is acted on
	tr.end()
}

// EVT-07.
func TestRunTimeoutAndRetry(t *testing.T) {
	t.Parallel()
	tr := begin(t, nil, "--run-timeout=500ms", "--on", "Z", "sh", "-c", `echo "$POSTERN_TYPE" >>"$DIR/record"; sleep 1000`, ";")
	tr.publish("Z")
	testenv.Eventually(t, "a second try of a state that could not be carried out", func() bool { return strings.HasPrefix(tr.record(), "Z\nZ\n") })
	if !strings.Contains(tr.log.String(), "took too long") {
		t.Errorf("standard error %q", tr.log.String())
	}
	tr.end()
}

// TestBacklog is EVT-07: events come faster than the command runs.
func TestBacklog(t *testing.T) {
	t.Parallel()
	tr := begin(t, nil, "--backlog=10", "--on", "U", "sh", "-c", `echo run; while [ -e "$DIR/wait" ]; do sleep 0.01; done`, ";")
	hold := filepath.Join(tr.dir, "wait")
	os.WriteFile(hold, nil, 0o600)
	for range 5000 {
		tr.publish("U")
	}
	testenv.Eventually(t, "the drops are told", func() bool {
		return strings.Contains(tr.log.String(), "dropped ")
	})
	os.Remove(hold)
	testenv.Eventually(t, "the backlog is run", func() bool {
		return strings.Count(tr.out.String(), "run\n") >= 11
	})
	tr.end()
}

// EVT-07.
func TestParallel(t *testing.T) {
	t.Parallel()
	tr := begin(t, nil, "--max-parallel=3", "--on", "U", "sh", "-c",
		`echo start >>"$DIR/record"; while [ ! -e "$DIR/go" ]; do sleep 0.01; done`, ";")
	tr.publish("U", "U", "U", "U", "U")
	tr.want("start\nstart\nstart\n")
	os.WriteFile(filepath.Join(tr.dir, "go"), nil, 0o600)
	tr.want(strings.Repeat("start\n", 5))
	tr.end()
}

func TestStatuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		args   []string
		status int
		stderr string
	}{
		{"nothing to do", []string{"/x"}, 64, "no --on"},
		{"no semicolon", []string{"--on", "Z", "true"}, 64, "no ';'"},
		{"no command", []string{"--on", "Z", ";"}, 64, "no command"},
		{"no letters", []string{"--on", ";"}, 64, "no types"},
		{"bad letters", []string{"--on", "z", "true", ";"}, 64, "no upper-case letter"},
		{"no such command", []string{"--on", "Z", "/no/such/command", ";"}, 64, "/no/such/command"},
		{"two undos", []string{"--undo", "true", ";", "--undo", "true", ";"}, 64, "twice"},
		{"placeholder in a script", []string{"--on", "Z", "sh", "-c", "echo {text}", ";"}, 64, "lets events write the script"},
		{"bad flag", []string{"--on", "Z", "true", ";", "--bogus"}, 64, "--bogus"},
		{"time below zero", []string{"--on", "Z", "true", ";", "--repeat=-1s"}, 64, "below zero"},
		{"no daemon", []string{"--on", "Z", "true", ";", "--no-reconnect", "--undo", "sh", "-c", "echo undone >&2", ";", "/no/such/socket"}, 1, "undone"},
		{"undo fails", []string{"--on", "Z", "true", ";", "--no-reconnect", "--undo", "false", ";", "/no/such/socket"}, 1, "undo failed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out, log testenv.Buffer
			if status := run(tt.args, nil, &out, &log); status != tt.status || !strings.Contains(log.String(), tt.stderr) {
				t.Errorf("status %d, want %d; standard error %q", status, tt.status, log.String())
			}
		})
	}
}
