package main

import (
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed init.sh
var initScript string

// machine is a Debian with systemd in namespaces of its own: no network but loopback, and all changes of its
// files in a layer above the tree, which stays as it is.
type machine struct {
	tree  string // as debootstrap made it
	dir   string // the machine's root; DIR.upper has its changes
	group string // its cgroup
	init  *exec.Cmd
}

const (
	bootTime    = 2 * time.Minute // on a busy machine
	commandTime = 3 * time.Minute // on a busy machine
)

// newMachine prepares a machine and does not boot it.
func newMachine(tree, dir string) (*machine, error) {
	m := &machine{tree: tree, dir: dir}
	for _, d := range []string{dir, dir + ".upper", dir + ".work"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return nil, err
		}
	}
	root, err := cgroupRoot()
	if err != nil {
		return nil, err
	}
	m.group = filepath.Join(root, fmt.Sprintf("postern-boot-%d", os.Getpid()))
	return m, nil
}

// cgroupRoot gives where the unified hierarchy of cgroups(7) is mounted.
func cgroupRoot() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return f[1], nil
		}
	}
	return "", errors.New("no cgroup2 is mounted")
}

// boot starts the machine and waits until all units have started or failed.
func (m *machine) boot() error {
	if err := os.Mkdir(m.group, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	group, err := os.Open(m.group)
	if err != nil {
		return err
	}
	defer group.Close()
	m.init = exec.Command("sh", "-c", initScript, "init", m.dir, m.tree)
	m.init.Stderr = os.Stderr
	m.init.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS |
			syscall.CLONE_NEWIPC | unix.CLONE_NEWCGROUP,
		UseCgroupFD: true, CgroupFD: int(group.Fd()),
		Setsid: true, Pdeathsig: syscall.SIGKILL,
	}
	if err := m.init.Start(); err != nil {
		return err
	}
	return until(bootTime, "systemd to have started everything", func() error {
		out, err := m.run("systemctl is-system-running")
		if state := strings.TrimSpace(out); state == "running" || state == "degraded" {
			return nil
		}
		return fmt.Errorf("%s: %w", strings.TrimSpace(out), err)
	})
}

// halt ends the machine as a power failure does.
func (m *machine) halt() {
	if m.init == nil {
		return
	}
	_ = m.init.Process.Kill()
	_ = m.init.Wait()
	m.init = nil
	m.kill()
}

// kill ends what is left of the machine's processes, whoever waits for them.
func (m *machine) kill() {
	_ = os.WriteFile(filepath.Join(m.group, "cgroup.kill"), []byte("1"), 0)
	_ = until(10*time.Second, "the cgroup to be empty", func() error {
		if err := removeGroup(m.group); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	})
}

// removeGroup removes a cgroup and those below it.
func removeGroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeGroup(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return os.Remove(dir)
}

// reboot is an orderly end and another start.
func (m *machine) reboot() error {
	_, _ = m.run("systemctl stop '*.service' '*.socket' 2>/dev/null; sync")
	m.halt()
	return m.boot()
}

// run runs a shell script in the machine and gives what it wrote. The error has the output as well.
func (m *machine) run(script string) (string, error) {
	cmd := exec.Command("nsenter", "-t", fmt.Sprint(m.init.Process.Pid), "-a", "timeout", fmt.Sprint(int(commandTime.Seconds())),
		"env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "sh", "-c", script)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", firstLine(script), err, out)
	}
	return string(out), err
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

// write makes a file in the machine.
func (m *machine) write(path, text string, mode os.FileMode) error {
	name := m.path(path)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		return err
	}
	return os.Chmod(name, mode)
}

// path gives the name by which a file of the running machine can be reached from here.
func (m *machine) path(path string) string {
	return fmt.Sprintf("/proc/%d/root%s", m.init.Process.Pid, path)
}

// dial connects to a port of the machine's loopback.
func (m *machine) dial(port int) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		conn, err := m.dialHere(port)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

// dialHere moves the calling thread into the machine's network and connects.
func (m *machine) dialHere(port int) (net.Conn, error) {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", m.init.Process.Pid))
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	return net.DialTimeout("tcp4", fmt.Sprintf("127.0.0.1:%d", port), 5*time.Second)
}

// until polls f until it gives no error.
func until(limit time.Duration, what string, f func() error) error {
	for end := time.Now().Add(limit); ; time.Sleep(100 * time.Millisecond) {
		err := f()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("waited %v for %s: %w", limit, what, err)
		}
	}
}
