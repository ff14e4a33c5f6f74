package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"postern/notify-tools/tool"
)

// asFirst is the first process of a container: it runs the program as a child, passes signals on to it and takes note
// of the end of every process that is left behind, which nobody else would. It returns the child's exit status.
func asFirst() int {
	passed := make(chan os.Signal, 16)
	signal.Notify(passed, ending()...)
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what a terminal sends comes through us, once
	if err := cmd.Start(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: error: start as a child of process 1: %v\n", name, err)
		return tool.ExitLost
	}
	go func() {
		for sig := range passed {
			_ = cmd.Process.Signal(sig)
		}
	}()
	for {
		var status syscall.WaitStatus
		switch pid, err := syscall.Wait4(-1, &status, 0, nil); {
		case err == syscall.EINTR:
		case err != nil:
			return tool.ExitLost
		case pid == cmd.Process.Pid && status.Signaled():
			return 128 + int(status.Signal())
		case pid == cmd.Process.Pid && status.Exited():
			return status.ExitStatus()
		}
	}
}
