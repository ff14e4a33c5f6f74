package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// A process with threads cannot fork and go on. To get into the background the
// program starts itself again, in a new session, and that copy starts the last
// one, which is not the leader of the session. A pipe tells the first when the
// last one serves, or why it does not.

const (
	stageVariable = "MULTIPLEXOR_BACKGROUND" // "1" in the middle process, "2" in the last
	readyFD       = 3
)

// reporter is how a starting multiplexor tells how it went: to the parent that
// waits, or on standard error.
type reporter struct {
	parent  *os.File // nil in the foreground
	warning string   // for the parent's standard error
}

const (
	reportReady = "ready\n"
	reportPlain = "plain " // printed as it is
	reportChild = "child " // printed with where it comes from
)

// newReporter also says which stage of getting into the background this is.
func newReporter() (r *reporter, stage int) {
	stage, _ = strconv.Atoi(os.Getenv(stageVariable)) // not set: 0
	if stage == 0 {
		return &reporter{}, 0
	}
	f := os.NewFile(readyFD, "ready")
	syscall.CloseOnExec(readyFD)
	os.Unsetenv(stageVariable) // startStage sets it anew; workers shall not see it
	return &reporter{parent: f}, stage
}

// ready ends the parent's wait.
func (r *reporter) ready() {
	if r.parent != nil {
		// A parent that has gone does not matter any more.
		_, _ = io.WriteString(r.parent, reportReady+r.warning)
		_ = r.parent.Close()
		r.parent = nil
	}
}

// fail tells why the start failed.
func (r *reporter) fail(err error) {
	switch {
	case r.parent == nil:
		fmt.Fprintln(os.Stderr, err)
	case errors.As(err, new(early)):
		fmt.Fprint(r.parent, reportPlain, err)
	default:
		fmt.Fprint(r.parent, reportChild, err)
	}
}

// goBackground starts the next stage and waits for what it reports. It gives the
// exit status.
func goBackground(args []string) int {
	pr, pw, err := os.Pipe()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: make a pipe: %v\n", args[0], err)
		return 1
	}
	defer pr.Close()
	if err := startStage(1, args, pw); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", args[0], err)
		return 1
	}
	pw.Close()
	report, err := io.ReadAll(io.LimitReader(pr, 64<<10))
	text := string(report)
	warning, ready := strings.CutPrefix(text, reportReady)
	switch {
	case err == nil && ready:
		if warning != "" {
			fmt.Fprintf(os.Stderr, "%s: warning: %s\n", args[0], warning)
		}
		return 0
	case strings.HasPrefix(text, reportPlain):
		fmt.Fprintln(os.Stderr, strings.TrimPrefix(text, reportPlain))
	case strings.HasPrefix(text, reportChild):
		fmt.Fprintln(os.Stderr, "Error from child: "+strings.TrimPrefix(text, reportChild))
	default:
		fmt.Fprintln(os.Stderr, "Unknown reply from child: "+text)
	}
	return 1
}

// startStage starts the program again with the writing end of the pipe.
func startStage(stage int, args []string, ready *os.File) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	self, err := ownPath(args[0])
	if err != nil {
		return err
	}
	env := append(os.Environ(), stageVariable+"="+strconv.Itoa(stage))
	p, err := os.StartProcess(self, args, &os.ProcAttr{
		Env: env, Files: []*os.File{null, null, null, ready}, Sys: &syscall.SysProcAttr{Setsid: stage == 1},
	})
	if err != nil {
		return fmt.Errorf("start in the background: %w", err)
	}
	if stage == 1 {
		if _, err := p.Wait(); err != nil {
			return fmt.Errorf("start in the background: %w", err)
		}
	}
	return nil
}

// ownPath returns a path of this program by the name it was started under: that is
// the name processes are listed and found by.
func ownPath(arg0 string) (string, error) {
	const self = "/proc/self/exe"
	path, err := exec.LookPath(arg0)
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return self, nil
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", err
	}
	a, err1 := os.Stat(path)
	b, err2 := os.Stat(self)
	if err1 != nil || err2 != nil || !os.SameFile(a, b) {
		return self, nil
	}
	return path, nil
}
