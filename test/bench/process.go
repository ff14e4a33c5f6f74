package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// account is who the daemons become when the benchmark runs as root.
const account = "nobody"

// processes are the children that are to be ended.
type processes []*exec.Cmd

// start runs a program in a process group of its own, with its output in a log
// file.
func (p *processes) start(log, name string, args ...string) (pid int, err error) {
	cmd := exec.Command(name, args...)
	out, err := os.Create(log)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	return p.run(cmd)
}

// run starts a command that is ended with us.
func (p *processes) run(cmd *exec.Cmd) (pid int, err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	*p = append(*p, cmd)
	return cmd.Process.Pid, nil
}

// stop ends all children, the last one first.
func (p *processes) stop() {
	for len(*p) > 0 {
		last := len(*p) - 1
		stop((*p)[last])
		*p = (*p)[:last]
	}
}

// end ends one of the children before the others.
func (p *processes) end(pid int) {
	for i, cmd := range *p {
		if cmd.Process.Pid == pid {
			stop(cmd)
			*p = append((*p)[:i], (*p)[i+1:]...)
			return
		}
	}
}

// stop ends a child, and what it leaves behind in its process group.
func stop(cmd *exec.Cmd) {
	cmd.Process.Signal(syscall.SIGTERM)
	killer := time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
	cmd.Wait()
	killer.Stop()
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
}

// await calls ready until it is true.
func await(what string, ready func() bool) error {
	for deadline := time.Now().Add(20 * time.Second); !ready(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not answer", what)
		}
	}
	return nil
}

// awaitChild calls ready until it is true or the child has ended.
func awaitChild(name string, pid int, log string, ready func() bool) error {
	err := await(name, func() bool { return gone(pid) || ready() })
	if gone(pid) {
		err = fmt.Errorf("%s has ended", name)
	}
	if err != nil {
		text, _ := os.ReadFile(log)
		err = fmt.Errorf("%w\n%s", err, text)
	}
	return err
}

func asRoot() bool { return os.Geteuid() == 0 }

// scratch makes a directory that the daemons may write to.
func (b *bench) scratch(name string) (string, error) {
	dir := filepath.Join(b.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return dir, giveTo(account, dir)
}

// giveTo makes an account the owner of a file, as far as we may.
func giveTo(account, path string) error {
	if !asRoot() {
		return nil
	}
	u, err := user.Lookup(account)
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return err
	}
	return os.Chown(path, uid, -1)
}
