package test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"postern/internal/testenv"
)

// intruderVariable has the test's program be an intruder, see intrude.
const intruderVariable = "POSTERN_TEST_INTRUDER"

// intrude looks into the process pid in each way that a debugger has, and returns those that work.
func intrude(pid int) (ways []string) {
	for _, name := range []string{"mem", "environ", "maps", "auxv", "fd"} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err == nil {
			f.Close()
			ways = append(ways, name)
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := syscall.PtraceAttach(pid); err == nil {
		ways = append(ways, "ptrace")
		if _, err := syscall.Wait4(pid, nil, syscall.WALL, nil); err == nil {
			_ = syscall.PtraceDetach(pid)
		}
	}
	return ways
}

// TestMemoryIsProtected: a process of the same account reads nothing of a daemon or a worker and cannot trace it, however it
// was started; nothing it starts gains rights, unless it is to start a sendmail; nobody writes a core. The multiplexor has
// a test of its own.
func TestMemoryIsProtected(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	const nobody = 65534
	account := &syscall.Credential{Uid: nobody, Gid: nobody}
	outer := testenv.ShortDir(t)
	dir, intruder := testenv.DaemonDir(t, filepath.Join(outer, "d")), filepath.Join(outer, "intruder")
	// The directory of the test's program may be for nobody else.
	program, err := os.ReadFile("/proc/self/exe")
	if err := errors.Join(err, os.WriteFile(intruder, program, 0o755), os.Chmod(intruder, 0o755)); err != nil {
		t.Fatal(err)
	}
	look := func(pid int) string {
		cmd := exec.Command(intruder)
		cmd.Env = append(os.Environ(), fmt.Sprint(intruderVariable, "=", pid))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: account}
		out, stderr, status := testenv.RunCmd(t, cmd)
		if status != 0 {
			t.Fatalf("status %d: %s", status, stderr)
		}
		return out
	}
	sleeper := exec.Command("sleep", "1000")
	sleeper.SysProcAttr = &syscall.SysProcAttr{Credential: account}
	if got, want := look(testenv.Start(t, sleeper).Pid()), "mem environ maps auxv fd ptrace"; got != want {
		t.Fatalf("the intruder can do %q to any process, want %q", got, want)
	}
	socket := "unix:" + dir + "/s"
	smtp := []string{"smtp-proxy", "--smtp", socket, "--maxloadavg", "0", "--upstream"}
	pop3 := []string{"pop3-stamp", "--pop3", socket, "--upstream", "pop3://127.0.0.1:1"}
	for _, tt := range []struct {
		name       string
		args       []string
		asRoot     bool
		newPrivs   bool
		standardIn bool
	}{
		{name: "smtp-proxy", args: append(smtp, "smtp://127.0.0.1:1")},
		{name: "smtp-proxy drops", args: append(smtp, "smtp://127.0.0.1:1", "--user", "nobody"), asRoot: true},
		{name: "smtp-proxy with a sendmail", args: append(smtp, "exec:/usr/sbin/sendmail -bs"), newPrivs: true},
		{name: "smtp-proxy with a sendmail, told", args: append(smtp, "exec:/usr/sbin/sendmail -bs", "--no-new-privs", "yes")},
		{name: "pop3-stamp", args: pop3},
		{name: "pop3-stamp drops", args: append(pop3, "--user", "nobody"), asRoot: true},
		{name: "filter-basic", args: []string{"filter-basic", "-server"}, standardIn: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.Command(testenv.Binary(t, tt.args[0]), tt.args[1:]...)
			if !tt.asRoot {
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: account}
			}
			answers := func() bool {
				c, err := testenv.Connect("unix", dir+"/s")
				if err == nil {
					c.Close()
				}
				return err == nil
			}
			if tt.standardIn {
				answers = talkOnPipes(t, cmd)
			}
			p := testenv.Start(t, cmd)
			testenv.Eventually(t, "an answer", answers)
			if got := look(p.Pid()); got != "" {
				t.Errorf("a process of the same account can look at %q", got)
			}
			if err := protected(p.Pid(), !tt.newPrivs); err != nil {
				t.Error(err)
			}
			p.Kill()
		})
	}
}

// talkOnPipes gives a worker its standard input and output, and what asks whether it answers, once.
func talkOnPipes(t *testing.T, cmd *exec.Cmd) (answers func() bool) {
	t.Helper()
	in, toWorker, err := os.Pipe()
	fromWorker, out, err2 := os.Pipe()
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, f := range []*os.File{in, toWorker, fromWorker, out} {
			f.Close()
		}
	})
	cmd.Stdin, cmd.Stdout = in, out
	return func() bool {
		if _, err := toWorker.WriteString("ping\n"); err != nil {
			return false
		}
		_ = testenv.Patient(fromWorker)
		answer := make([]byte, 5)
		n, _ := fromWorker.Read(answer)
		return string(answer[:n]) == "PONG\n"
	}
}

// protected says what keeps a process from having no core and, with all its threads, from gaining no rights.
func protected(pid int, noNewPrivs bool) error {
	want := map[bool]string{true: "NoNewPrivs:\t1\n", false: "NoNewPrivs:\t0\n"}[noNewPrivs]
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if len(threads) == 0 {
		return errors.New("no threads")
	}
	for _, thread := range threads {
		if text, err := os.ReadFile(thread); err == nil && !strings.Contains(string(text), want) {
			return fmt.Errorf("%s lacks %q", thread, want)
		}
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil || !strings.Contains(strings.Join(strings.Fields(string(limits)), " "), "Max core file size 0 0") {
		return fmt.Errorf("limits: %v\n%s", err, limits)
	}
	return nil
}
