package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// guardRole names the environment variable that tells what a test binary is: nothing in the first process, roleGuardian
// in the second, roleGuarded in the one that runs the tests, and in all that it starts.
const (
	guardRole    = "POSTERN_TEST_GUARD"
	roleGuardian = "guardian"
	roleGuarded  = "tests"
)

// lifeline is the descriptor by which the guardian sees the first process end.
const lifeline = 3

// Main runs the tests of a package so that no program outlives them: not one that has put itself into the background,
// not one that a program under test has started, and not when the test binary dies by SIGKILL or at its time limit. It
// is what TestMain calls, after it has played the parts that tests start the test binary for, and does not return.
//
// Three processes do it. The tests run in the third. The second, their guardian, inherits every orphan among what they
// start (PR_SET_CHILD_SUBREAPER); when the tests have ended, it ends what is left, and the run fails if tests that
// passed left something. The first one, which go test knows, hands signals and the exit status on; the guardian sees
// its end, however it comes, by a pipe.
func Main(m *testing.M) {
	switch os.Getenv(guardRole) {
	case "":
		os.Exit(guarded())
	case roleGuardian:
		os.Exit(guard())
	}
	// Programs run as other users, whatever the umask was: they must reach what tests make, and this binary.
	syscall.Umask(0o022)
	_ = os.Chmod("/proc/self/exe", 0o755) // may be somebody else's
	shortTempDir()
	startWatchdog()
	os.Exit(m.Run())
}

// again prepares another process of the test binary, with the same arguments.
func again(role string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = os.Args
	cmd.Env = append(os.Environ(), guardRole+"="+role)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

// guarded is the first process.
func guarded() int {
	r, w, err := os.Pipe() // w is never closed: the end of this process does that
	if err != nil {
		return guardFailed(err)
	}
	cmd := again(roleGuardian)
	cmd.ExtraFiles = []*os.File{r} // lifeline
	if err := cmd.Start(); err != nil {
		return guardFailed(err)
	}
	r.Close()
	handOn(cmd.Process)
	err = cmd.Wait()
	runtime.KeepAlive(w)
	return exitStatus(err, cmd.ProcessState)
}

// handOn sends a process the signals that this one gets from now on.
func handOn(to *os.Process) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM)
	go func() {
		for sig := range signals {
			_ = to.Signal(sig) // who has ended needs none
		}
	}()
}

func guardFailed(err error) int {
	fmt.Fprintf(os.Stderr, "testenv: no guard for the tests: %v\n", err)
	return 2
}

// guard is the second process.
func guard() int {
	syscall.CloseOnExec(lifeline)
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, 36 /* PR_SET_CHILD_SUBREAPER */, 1, 0); errno != 0 {
		return guardFailed(os.NewSyscallError("prctl", errno))
	}
	runtime.LockOSThread() // the kernel sends Pdeathsig when the thread ends
	cmd := again(roleGuarded)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return guardFailed(err)
	}
	handOn(cmd.Process)
	// Nobody may read any more what it says of programs that it ends: that must not end itself.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ended, alone := reap(cmd.Process.Pid)
	cut := make(chan struct{})
	go func() {
		defer close(cut)
		_, _ = os.NewFile(lifeline, "lifeline").Read(make([]byte, 1))
	}()
	select {
	case status := <-ended:
		return sweep(status, alone, cut)
	case <-cut:
		return sweep(1, alone, cut)
	}
}

// reap waits for every child, inherited ones too. It tells the exit status of one, and when there is none left.
func reap(pid int) (ended <-chan int, alone <-chan struct{}) {
	status, none := make(chan int, 1), make(chan struct{})
	go func() {
		defer close(none)
		for {
			var ws syscall.WaitStatus
			child, err := syscall.Wait4(-1, &ws, 0, nil)
			switch {
			case err == syscall.EINTR:
			case err != nil: // ECHILD
				return
			case child == pid && ws.Signaled():
				fmt.Fprintf(os.Stderr, "testenv: the tests were ended by a signal: %v\n", ws.Signal())
				status <- 128 + int(ws.Signal())
			case child == pid:
				status <- ws.ExitStatus()
			}
		}
	}()
	return status, none
}

// LeaveWithin is how long programs may still run when the tests have passed: those that end by themselves, because
// their parent is gone. Nobody waits for that time but a run with a program that stays. Set before Main.
var LeaveWithin = 20 * time.Second

// sweep ends all descendants and gives the exit status of the run.
func sweep(status int, alone <-chan struct{}, cut <-chan struct{}) int {
	if status == 0 {
		limit := time.NewTimer(LeaveWithin)
		defer limit.Stop()
		select {
		case <-alone:
			return 0
		case <-cut:
		case <-limit.C:
		}
	}
	shown := make(map[int]bool)
	for range 6000 { // a minute: what cannot be killed, as a program of another user, stays
		for _, pid := range descendants(os.Getpid()) {
			if !shown[pid] {
				shown[pid] = true
				fmt.Fprintf(os.Stderr, "testenv: outlived the tests and is killed: %s\n", commandLine(pid))
			}
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if _, none := receive(alone, 10*time.Millisecond); none {
			break
		}
	}
	return max(status, 1)
}

// descendants gives the processes below one.
func descendants(of int) []int {
	children := make(map[int][]int)
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		pid, _ := strconv.Atoi(strings.Split(name, "/")[2])
		// The name of the program, in parentheses, may have everything in it.
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		if len(fields) > 1 && fields[0] != "Z" {
			parent, _ := strconv.Atoi(fields[1])
			children[parent] = append(children[parent], pid)
		}
	}
	var all []int
	for next := []int{of}; len(next) > 0; next = next[1:] {
		all = append(all, children[next[0]]...)
		next = append(next, children[next[0]]...)
	}
	return all
}

func commandLine(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(text) == 0 {
		return fmt.Sprintf("process %d", pid)
	}
	return strings.TrimSpace(strings.ReplaceAll(string(text), "\x00", " "))
}
