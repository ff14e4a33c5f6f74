package testenv

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Process is a child process of a test, in a process group of its own.
type Process struct {
	t      testing.TB
	cmd    *exec.Cmd
	name   string
	output Buffer
	done   chan struct{} // closed when the process was waited for
	status int           // valid after done
}

// Start runs cmd in a process group of its own. Its standard output and error
// are captured, where cmd does not send them elsewhere, and shown if the test
// fails. At the end of the test it gets SIGTERM and, if need be, its whole
// group SIGKILL. If the test process itself dies, the kernel kills it, and Main
// whatever it has started.
func Start(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{t: t, cmd: cmd, name: strings.Join(cmd.Args, " "), done: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = &p.output
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &p.output
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = !cmd.SysProcAttr.Setsid // a session has a group of its own
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if cmd.WaitDelay == 0 {
		// A grandchild may keep the pipe of the captured output open.
		cmd.WaitDelay = time.Second
	}
	started := make(chan error, 1)
	go p.run(started)
	if err := Receive(t, "the start of "+p.name, started); err != nil {
		t.Fatalf("start %s: %v", p.name, err)
	}
	t.Cleanup(p.end)
	onHang(t, p.Kill)
	return p
}

// run keeps its thread until the process has ended, because the kernel sends
// the parent-death signal when the thread that made the process ends.
func (p *Process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	p.status = exitStatus(p.cmd.Wait(), p.cmd.ProcessState)
	close(p.done)
}

// Pid gives the process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Output gives what the process has written so far to standard output and
// error, together.
func (p *Process) Output() string { return p.output.String() }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running says whether the process has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Stop sends a signal to the process, not to its group. It does not wait. A
// process that has already ended is no error.
func (p *Process) Stop(sig os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("send %v to %s: %v", sig, p.name, err)
	}
}

// Kill ends the process and its group at once, and waits: for programs of others, which may take their time to end.
func (p *Process) Kill() {
	syscall.Kill(-p.Pid(), syscall.SIGKILL)
	<-p.done
}

// Wait waits for the process to end and gives its exit status, 128 plus the
// number of the signal that killed it.
func (p *Process) Wait() int {
	p.t.Helper()
	Receive(p.t, "the end of "+p.name, p.done)
	return p.status
}

// WaitOutput waits until the output contains text, and ends the test if the
// process ends without it.
func (p *Process) WaitOutput(text string) {
	p.t.Helper()
	p.Until(p.name+" to print "+text, func() bool { return strings.Contains(p.Output(), text) })
}

// Until waits as Eventually does for what the process does, and ends the test if the process ends without it.
func (p *Process) Until(what string, cond func() bool) {
	p.t.Helper()
	ended := false
	Eventually(p.t, what, func() bool {
		if cond() {
			return true
		}
		if ended {
			p.t.Fatalf("%s ended with status %d, and no sign of %s", p.name, p.status, what)
		}
		ended = !p.Running() // look once more after the end
		return false
	})
}

func (p *Process) end() {
	if p.Running() {
		p.cmd.Process.Signal(syscall.SIGTERM)
		w := beginWait(p.t, p.name+" to end after SIGTERM")
		if _, ended := receive(p.done, w.left()); !ended {
			p.t.Error(w.report())
		}
		w.end()
	}
	// Whatever of the group is left, the process itself included.
	syscall.Kill(-p.Pid(), syscall.SIGKILL)
	<-p.done
	if p.t.Failed() {
		p.t.Logf("output of %s (exit status %d):\n%s", p.name, p.status, p.Output())
	}
}

// Run runs a program to its end and gives its output and exit status (128 plus
// the number of the signal that killed it). It ends the test when the program
// cannot be started.
func Run(t testing.TB, name string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	return RunCmd(t, exec.Command(name, args...))
}

// RunCmd is Run for a prepared command, with an environment, a directory or
// standard input of its own.
func RunCmd(t testing.TB, cmd *exec.Cmd) (stdout, stderr string, status int) {
	t.Helper()
	var out, errOut Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	status = Start(t, cmd).Wait()
	return out.String(), errOut.String(), status
}

func exitStatus(err error, state *os.ProcessState) int {
	if state == nil {
		return -1
	}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	if err != nil && state.ExitCode() == 0 && !errors.Is(err, exec.ErrWaitDelay) {
		return -1 // the output could not be read
	}
	return state.ExitCode()
}
