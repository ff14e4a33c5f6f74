package process

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// newProcess is a new fork server process: its id and our ends of its control socket
// and standard error.
type newProcess struct {
	pid, control, stderr int
	err                  error
}

// startForkServer starts the process. It may block.
func (pr *Program) startForkServer() (b newProcess) {
	path, argv, perl := pr.forkServerCommand()
	var open []int
	defer func() {
		for _, fd := range open {
			_ = syscall.Close(fd)
		}
	}()
	null, err := syscall.Open(os.DevNull, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return newProcess{err: fmt.Errorf("open %s: %w", os.DevNull, err)}
	}
	open = append(open, null)
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return newProcess{err: fmt.Errorf("make a control socket: %w", err)}
	}
	open = append(open, pair[1])
	var errs [2]int
	if err := syscall.Pipe2(errs[:], syscall.O_CLOEXEC); err != nil {
		_ = syscall.Close(pair[0])
		return newProcess{err: fmt.Errorf("pipe failed: %w", err)}
	}
	open = append(open, errs[1])
	ours := []int{pair[0], errs[0]}
	fail := func(err error) newProcess {
		open = append(open, ours...)
		return newProcess{err: err}
	}
	for _, fd := range ours {
		if err := syscall.SetNonblock(fd, true); err != nil {
			return fail(fmt.Errorf("make a descriptor non-blocking: %w", err))
		}
	}
	files := []uintptr{uintptr(null), uintptr(errs[1]), uintptr(errs[1]), uintptr(null), uintptr(pair[1])}
	if perl {
		text, err := loaderPipe()
		if err != nil {
			return fail(err)
		}
		open = append(open, text)
		files = append(files, uintptr(text))
	}
	pid, err := syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Env: append(pr.Env[:len(pr.Env):len(pr.Env)], ForkSocketVariable+"="+strconv.Itoa(ControlFD)), Files: files,
		Sys: &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return fail(fmt.Errorf("run %s: %w", path, err))
	}
	return newProcess{pid: pid, control: ours[0], stderr: ours[1]}
}

// loaderPipe returns a pipe from which the loader can be read. It is far smaller
// than any pipe.
func loaderPipe() (int, error) {
	var p [2]int
	if err := syscall.Pipe2(p[:], syscall.O_CLOEXEC); err != nil {
		return -1, fmt.Errorf("pipe failed: %w", err)
	}
	defer syscall.Close(p[1])
	if n, err := syscall.Write(p[1], perlLoader); err != nil || n < len(perlLoader) {
		_ = syscall.Close(p[0])
		return -1, fmt.Errorf("write the loader: %d bytes, %w", n, err)
	}
	return p[0], nil
}

// waitOrKill waits for a process that leads a group, kills the group when the time
// is over, and says in words how the process ended.
func waitOrKill(pid int, wait time.Duration) (how string) {
	// Our child, not waited for yet: the number is its own.
	if pidfd, err := unix.PidfdOpen(pid, 0); err == nil {
		poll := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		for end := time.Now().Add(wait); ; {
			_, err := unix.Poll(poll, int(max(time.Until(end), 0)/time.Millisecond))
			if err != unix.EINTR {
				break
			}
		}
		_ = syscall.Close(pidfd)
	}
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	var ws syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &ws, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return "has ended"
		case ws.Signaled():
			return fmt.Sprintf("was ended by signal %d", int(ws.Signal()))
		default:
			return fmt.Sprintf("exited with status %d", ws.ExitStatus())
		}
	}
}
