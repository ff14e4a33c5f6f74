package boot

import (
	"bytes"
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
	*site
	dir   string // the machine's root; DIR.upper has its changes
	group string // its cgroup
	init  *exec.Cmd
	ended chan struct{} // closed when it has
	said  bytes.Buffer  // by what becomes process 1
}

// newMachine prepares a machine and does not boot it.
func (s *site) newMachine() (*machine, error) {
	name := fmt.Sprint(s.made.Add(1))
	m := &machine{site: s, dir: filepath.Join(s.scratch, name), group: filepath.Join(s.group, name)}
	for _, d := range []string{m.dir, m.dir + ".upper", m.dir + ".work"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// remove ends the machine and removes its files.
func (m *machine) remove() {
	m.halt()
	for _, d := range []string{m.dir, m.dir + ".upper", m.dir + ".work"} {
		_ = os.RemoveAll(d)
	}
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
	if err := os.Mkdir(m.group, 0o755); err != nil {
		return err
	}
	group, err := os.Open(m.group)
	if err != nil {
		return err
	}
	defer group.Close()
	m.said.Reset()
	m.init = exec.Command("sh", "-c", initScript, "init", m.dir, m.layers)
	m.init.Stderr = &m.said
	m.init.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS |
			syscall.CLONE_NEWIPC | unix.CLONE_NEWCGROUP,
		UseCgroupFD: true, CgroupFD: int(group.Fd()),
		Setsid: true, Pdeathsig: syscall.SIGKILL,
	}
	if err := m.init.Start(); err != nil {
		return err
	}
	m.ended = make(chan struct{})
	go func() {
		_ = m.init.Wait()
		close(m.ended)
	}()
	return until("systemd to have started everything", func() error {
		out, err := m.run("systemctl is-system-running")
		if state := strings.TrimSpace(out); state == "running" || state == "degraded" {
			return nil
		}
		select {
		case <-m.ended:
			return final{errors.New("the machine has ended")}
		default:
			return fmt.Errorf("%s: %w", strings.TrimSpace(out), err)
		}
	})
}

// halt ends the machine as a power failure does.
func (m *machine) halt() {
	if m.ended != nil {
		_ = m.init.Process.Kill()
		<-m.ended
	}
	endGroup(m.group)
}

// endGroup ends the processes of a cgroup and those below it, whoever waits for them, and removes it.
func endGroup(dir string) {
	if f, err := os.OpenFile(filepath.Join(dir, "cgroup.kill"), os.O_WRONLY, 0); err == nil {
		_, _ = f.WriteString("1")
		f.Close()
	}
	_ = until("the cgroup to be empty", func() error {
		if err := removeGroup(dir); !errors.Is(err, os.ErrNotExist) {
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

// stop is an orderly end.
func (m *machine) stop() {
	_, _ = m.run("systemctl stop '*.service' '*.socket' 2>/dev/null; sync")
	m.halt()
}

// reboot is an orderly end and another start.
func (m *machine) reboot() error {
	m.stop()
	return m.boot()
}

// run runs a shell script in the machine and gives what it wrote. The error has the output as well.
func (m *machine) run(script string) (string, error) {
	// --root: the root of the namespace is not the machine's where the test itself runs in a chroot.
	cmd := exec.Command("nsenter", "-t", fmt.Sprint(m.init.Process.Pid), "--all", "--root", "--wd", "timeout", fmt.Sprint(int(patience.Seconds())),
		"env", "-i", fmt.Sprintf("SYSTEMD_BUS_TIMEOUT=%d", int(patience.Seconds())), "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "sh", "-c", script)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", firstLine(script), err, out)
	}
	return string(out), err
}

// journal gives what a unit has said, to the last line.
func (m *machine) journal(arguments string) (string, error) {
	return m.run("journalctl --sync; journalctl " + arguments)
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
	return net.DialTimeout("tcp4", fmt.Sprintf("127.0.0.1:%d", port), patience)
}

// final is an error after which waiting is of no use.
type final struct{ error }

// until polls f until it gives no error.
func until(what string, f func() error) error {
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		err := f()
		if err == nil {
			return nil
		}
		if errors.As(err, &final{}) || time.Now().After(end) {
			return fmt.Errorf("waited for %s: %w", what, err)
		}
	}
}
