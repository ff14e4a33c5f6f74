package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// account is who the daemons become when the benchmark runs as root.
const account = "nobody"

// ticksPerSecond is the unit of times in /proc/PID/stat. It is 100 on every
// Linux that Go runs on.
const ticksPerSecond = 100

// processes are the children that are to be ended.
type processes []*exec.Cmd

// start runs a program with its output in a log file.
func (p *processes) start(log, name string, args ...string) (pid int, err error) {
	cmd := exec.Command(name, args...)
	out, err := os.Create(log)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	*p = append(*p, cmd)
	return cmd.Process.Pid, nil
}

// stop ends all children, the last one first.
func (p *processes) stop() {
	for i := len(*p) - 1; i >= 0; i-- {
		cmd := (*p)[i]
		cmd.Process.Signal(syscall.SIGTERM)
		killer := time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		killer.Stop()
	}
	*p = nil
}

// cpu gives the CPU time that a process has used, without its children.
func cpu(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The second field, the name, may contain anything but ends at the last
	// parenthesis. utime and stime are fields 14 and 15. proc(5)
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	ticks := 0
	for _, field := range fields[11:13] {
		n, _ := strconv.Atoi(field)
		ticks += n
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond
}

// memory gives the resident memory of a process in bytes.
func memory(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	pages, _ := strconv.Atoi(strings.Fields(string(text))[1])
	return pages * os.Getpagesize()
}

func asRoot() bool { return os.Geteuid() == 0 }

// scratch makes a directory that the daemons may write to.
func (b *bench) scratch(name string) (string, error) {
	dir := filepath.Join(b.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil || !asRoot() {
		return dir, err
	}
	u, err := user.Lookup(account)
	if err != nil {
		return "", err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return "", err
	}
	return dir, os.Chown(dir, uid, -1)
}
