package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testenv"
	"postern/multiplexor/process"
)

// asAccount runs a shell command as the account that the daemon runs as.
func asAccount(command string) error {
	cmd := exec.Command("/bin/sh", "-c", command)
	if account, drops := testenv.DaemonAccount(); drops {
		cmd = exec.Command("setpriv", "--reuid="+account, "--clear-groups", "/bin/sh", "-c", command)
	}
	return cmd.Run()
}

// TestMemoryIsProtected: a process of the same account reads nothing of the
// multiplexor, nothing that a worker starts gains rights, and nobody writes a core.
func TestMemoryIsProtected(t *testing.T) {
	t.Parallel()
	if _, drops := testenv.DaemonAccount(); drops {
		testenv.Path(t, "programs of another account", "setpriv")
	}
	for _, program := range []string{ourName, originalName} {
		t.Run(program, func(t *testing.T) {
			r := prepare(t)
			link := r.path(program)
			if err := os.Symlink(testenv.Binary(t, "multiplexor"), link); err != nil {
				t.Fatal(err)
			}
			r.start(exec.Command(link, r.args("-D")...))
			r.want("ping", "PONG\n")
			pid := r.proc.Pid()
			for _, name := range []string{"environ", "mem", "maps"} {
				if asAccount(fmt.Sprintf("exec 3</proc/%d/%s", pid, name)) == nil {
					t.Errorf("a process of the same account can open /proc/PID/%s", name)
				}
			}
			if err := asAccount("exec 3</proc/self/environ"); err != nil {
				t.Errorf("the test can open nothing at all: %v", err)
			}
			want := map[string]string{ourName: "NoNewPrivs:\t1\n", originalName: "NoNewPrivs:\t0\n"}[program]
			pids := []string{fmt.Sprint(pid)}
			for _, exe := range childrenOf(r.worker) {
				pids = append(pids, filepath.Base(filepath.Dir(exe)))
			}
			if len(pids) < 2 {
				t.Errorf("no worker among %v", pids)
			}
			for _, p := range pids {
				threads, err := filepath.Glob("/proc/" + p + "/task/*/status")
				if err != nil || len(threads) == 0 {
					t.Errorf("threads of %s: %v, %v", p, threads, err)
				}
				for _, thread := range threads {
					if text, err := os.ReadFile(thread); err == nil && !strings.Contains(string(text), want) {
						t.Errorf("%s lacks %q", thread, want)
					}
				}
				limits, err := os.ReadFile("/proc/" + p + "/limits")
				if err != nil || !strings.Contains(strings.Join(strings.Fields(string(limits)), " "), "Max core file size 0 0") {
					t.Errorf("limits of %s: %v\n%s", p, err, limits)
				}
			}
			r.end()
		})
	}
}

// TestWorkerVariables: what can make a program load foreign code reaches workers under
// the original's name alone; otherwise the log names it.
func TestWorkerVariables(t *testing.T) {
	t.Parallel()
	env := []string{"PATH=/bin", "PYTHONUNBUFFERED=1", "PERL5LIB=/x", "PERL5OPT=-Mx", "PYTHONPATH=/y", "LD_PRELOAD=/z", "NOTIFY_SOCKET=/n", "LISTEN_FDS=1"}
	got, withheld := process.Environ(env, false)
	if fmt.Sprint(got, withheld) != "[PATH=/bin PYTHONUNBUFFERED=1] [PERL5LIB PERL5OPT PYTHONPATH LD_PRELOAD]" {
		t.Errorf("ours: %v, withheld %v", got, withheld)
	}
	got, withheld = process.Environ(env, true)
	if fmt.Sprint(got, withheld) != "[PATH=/bin PYTHONUNBUFFERED=1 PERL5LIB=/x PERL5OPT=-Mx PYTHONPATH=/y LD_PRELOAD=/z] []" {
		t.Errorf("theirs: %v, withheld %v", got, withheld)
	}
	r := prepare(t)
	cmd := exec.Command(testenv.Binary(t, "multiplexor"), r.args("-D")...)
	cmd.Env = append(os.Environ(), "PERL5LIB=/x")
	r.start(cmd)
	r.logged("not given to workers")
	if about := r.ask("do about"); strings.Contains(about, "PERL5LIB") {
		t.Errorf("a worker has it: %s", about)
	}
	r.end()
}

// TestCheckLooks: --check finds what would keep the program from working.
func TestCheckLooks(t *testing.T) {
	t.Parallel()
	r := prepare(t)
	bin := testenv.Binary(t, "multiplexor")
	locked := r.path("locked")
	if err := os.Mkdir(locked, 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		if err := os.Chmod(locked, 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name string
		args []string
		want string // "" = nothing is wrong
	}{
		{"all is well", nil, ""},
		{"no worker", []string{"-f", r.path("missing")}, "worker"},
		{"a worker that is no program", []string{"-f", r.dir}, "worker"},
		{"minimum above maximum", []string{"-m", "3", "-x", "2"}, "min-workers"},
		{"a socket twice", []string{"-a", r.path("a"), "-O", r.path("a")}, "is a socket already"},
		{"no spool", []string{"-z", r.path("missing")}, "spool"},
		{"spool is a file", []string{"-z", r.worker}, "spool"},
		{"spool of another", []string{"-z", locked}, "may not enter"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, stderr, status := testenv.Run(t, bin, append(r.args("--check", "--config", "/dev/null"), tt.args...)...)
			if want := map[bool]int{true: 0, false: 78}[tt.want == ""]; status != want || !strings.Contains(stderr, tt.want) {
				t.Errorf("status %d, %q", status, stderr)
			}
		})
	}
}
