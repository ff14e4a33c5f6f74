package test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postern/internal/notify"
	"postern/internal/notify/hub"
	"postern/internal/testenv"
)

// A notifyHub is a daemon as far as the tools see one.
type notifyHub struct {
	*hub.Hub
	dir, socket string
}

func startNotifyHub(t *testing.T) *notifyHub {
	t.Helper()
	h := &notifyHub{dir: testenv.ShortDir(t)}
	h.socket = filepath.Join(h.dir, "hub.sock")
	h.restart(t)
	return h
}

// restart is the next run of the daemon.
func (h *notifyHub) restart(t *testing.T) {
	t.Helper()
	l, err := net.Listen("unix", h.socket)
	if err != nil {
		t.Fatal(err)
	}
	h.Hub = hub.New(hub.Options{})
	go h.Serve(l)
	t.Cleanup(h.Hub.Close)
}

func (h *notifyHub) heard(t *testing.T) {
	t.Helper()
	testenv.Eventually(t, "a listener", func() bool { return h.Stats().Subscriptions > 0 })
}

// record waits until the file that the commands write to ends so.
func (h *notifyHub) record(t *testing.T, want string) {
	t.Helper()
	var text []byte
	testenv.Eventually(t, fmt.Sprintf("the record %q", want), func() bool {
		text, _ = os.ReadFile(filepath.Join(h.dir, "record"))
		return strings.HasSuffix(string(text), want)
	})
}

// notifyExec prepares a notify-exec that records events and undo, by way of the words before it.
func (h *notifyHub) notifyExec(t *testing.T, before ...string) *exec.Cmd {
	t.Helper()
	words := append(before, testenv.Binary(t, "notify-exec"), "-v", "--on", "UZ", "sh", "-c", `echo "$POSTERN_EVENT" >>record`, ";",
		"--undo", "sh", "-c", "echo undo >>record", ";", h.socket)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir = h.dir
	return cmd
}

// unread is the writing end of a pipe that nobody reads.
func unread(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	r.Close()
	return w
}

// TestNotifyDeadStandardError has the tools say something that nobody reads: that alone ends none of them.
func TestNotifyDeadStandardError(t *testing.T) {
	t.Parallel()
	t.Run("notify-exec", func(t *testing.T) {
		h := startNotifyHub(t)
		cmd := h.notifyExec(t)
		cmd.Stdout, cmd.Stderr = unread(t), unread(t)
		p := testenv.Start(t, cmd)
		h.heard(t)
		h.Publish(notify.Message{Letter: 'U'})
		h.record(t, "U\n")
		h.Close() // is told
		h.restart(t)
		h.heard(t)
		h.Publish(notify.Message{Letter: 'Z'})
		h.record(t, "U\nZ\n")
		p.Stop(syscall.SIGTERM)
		if status := p.Wait(); status != 0 {
			t.Errorf("status %d", status)
		}
		h.record(t, "U\nZ\nundo\n")
	})
	t.Run("notify-cat", func(t *testing.T) {
		h := startNotifyHub(t)
		cmd := exec.Command(testenv.Binary(t, "notify-cat"), "--raw", h.socket)
		cmd.Stderr = unread(t)
		p := testenv.Start(t, cmd)
		h.heard(t)
		h.Close()
		h.restart(t)
		h.heard(t)
		h.Publish(notify.Message{Letter: 'Z'})
		p.WaitOutput("Z\n")
	})
	t.Run("notify-wait", func(t *testing.T) {
		cmd := exec.Command(testenv.Binary(t, "notify-wait"), "--timeout=100ms", "idle", filepath.Join(testenv.ShortDir(t), "none"))
		cmd.Stderr = unread(t)
		if status := testenv.Start(t, cmd).Wait(); status != 124 {
			t.Errorf("status %d, want 124", status)
		}
	})
}

// TestNotifyFullStandardError has the tools say something that does not fit into the pipe at standard error: it holds
// up none of them.
func TestNotifyFullStandardError(t *testing.T) {
	t.Parallel()
	full := func(t *testing.T) *os.File {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.Close(); r.Close() })
		raw, err := w.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) {
			for syscall.SetNonblock(int(fd), true) == nil {
				if _, err := syscall.Write(int(fd), make([]byte, 1)); err != nil {
					break
				}
			}
			syscall.SetNonblock(int(fd), false)
		})
		return w
	}
	t.Run("notify-exec", func(t *testing.T) {
		h := startNotifyHub(t)
		cmd := h.notifyExec(t)
		cmd.Args = append(cmd.Args, "--dead-man=50ms")
		cmd.Stderr = full(t)
		p := testenv.Start(t, cmd)
		h.heard(t)
		h.Publish(notify.Message{Letter: 'U'})
		h.record(t, "U\n")
		h.Close()
		h.record(t, "U\nundo\n")
		p.Stop(syscall.SIGTERM)
		if status := p.Wait(); status != 0 {
			t.Errorf("status %d", status)
		}
	})
	t.Run("notify-cat", func(t *testing.T) {
		h := startNotifyHub(t)
		cmd := exec.Command(testenv.Binary(t, "notify-cat"), "--raw", h.socket)
		cmd.Stderr = full(t)
		p := testenv.Start(t, cmd)
		h.heard(t)
		h.Close()
		h.restart(t)
		h.heard(t)
		h.Publish(notify.Message{Letter: 'Z'})
		p.WaitOutput("Z\n")
	})
	t.Run("notify-wait", func(t *testing.T) {
		cmd := exec.Command(testenv.Binary(t, "notify-wait"), "--timeout=100ms", "idle", filepath.Join(testenv.ShortDir(t), "none"))
		cmd.Stderr = full(t)
		if status := testenv.Start(t, cmd).Wait(); status != 124 {
			t.Errorf("status %d, want 124", status)
		}
	})
}

// TestNotifyExecSignals: what is ignored when notify-exec starts stays so, everything else undoes.
func TestNotifyExecSignals(t *testing.T) {
	t.Parallel()
	shell := func(trap string) []string {
		return []string{"sh", "-c", trap + `; exec "$0" "$@"`}
	}
	tests := []struct {
		name    string
		before  []string
		ignored []os.Signal
		ends    os.Signal
	}{
		{"SIGTERM", nil, nil, syscall.SIGTERM},
		{"SIGINT", nil, nil, syscall.SIGINT},
		{"SIGHUP", nil, nil, syscall.SIGHUP},
		{"SIGQUIT", nil, nil, syscall.SIGQUIT},
		{"nohup", []string{"nohup"}, []os.Signal{syscall.SIGHUP}, syscall.SIGINT},
		{"in the background of a shell", shell("trap '' INT QUIT"), []os.Signal{syscall.SIGINT, syscall.SIGQUIT}, syscall.SIGHUP},
		{"all ignored", shell("trap '' HUP INT QUIT"), []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT}, syscall.SIGTERM},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := startNotifyHub(t)
			p := testenv.Start(t, h.notifyExec(t, tt.before...))
			h.heard(t)
			for _, sig := range tt.ignored {
				p.Stop(sig)
			}
			h.Publish(notify.Message{Letter: 'U'})
			h.record(t, "U\n")
			p.Stop(tt.ends)
			if status := p.Wait(); status != 0 {
				t.Errorf("status %d", status)
			}
			h.record(t, "U\nundo\n")
		})
	}
}

// TestNotifyFirstProcess has the tools be the first process of a container, to which processes are left.
func TestNotifyFirstProcess(t *testing.T) {
	t.Parallel()
	testenv.NeedNamespaces(t)
	inside := func(cmd *exec.Cmd) *testenv.Process {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
		return testenv.Start(t, cmd)
	}
	h := startNotifyHub(t)
	cmd := h.notifyExec(t)
	cmd.Args = append(cmd.Args[:len(cmd.Args)-1], "--on", "B", "sh", "-c", "(sleep 0.1; echo left >>record) & (exec sleep 1000) &", ";", h.socket)
	p := inside(cmd)
	h.heard(t)
	h.Publish(notify.Message{Letter: 'B'})
	h.record(t, "left\n")
	testenv.Eventually(t, "the end of what was left behind is noted", func() bool {
		return len(childStates(p.Pid())) == 2 && !strings.Contains(childStates(p.Pid()), "Z") // the program, and the one that sleeps on
	})
	p.Stop(syscall.SIGTERM)
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	h.record(t, "left\nundo\n")
	if status := inside(exec.Command(testenv.Binary(t, "notify-exec"))).Wait(); status != 64 {
		t.Errorf("without arguments: status %d", status)
	}

	// Into the container of another tool a process is put from outside.
	enter := testenv.Path(t, "process in a container", "nsenter")
	for _, args := range [][]string{{"notify-cat", h.socket}, {"notify-wait", "R", h.socket}} {
		p := inside(exec.Command(testenv.Binary(t, args[0]), args[1:]...))
		testenv.Run(t, enter, "-t", fmt.Sprint(p.Pid()), "-p", "sh", "-c", "(sleep 0.1) & (exec sleep 1000) &")
		testenv.Eventually(t, "the end of what was left to "+args[0]+" is noted", func() bool { return childStates(p.Pid()) == "S" })
	}
}

// TestNotifyCatUnread has the reader of notify-cat go away while nothing happens.
func TestNotifyCatUnread(t *testing.T) {
	t.Parallel()
	pair := func(t *testing.T) (r, w *os.File) {
		fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return os.NewFile(uintptr(fds[0]), "reader"), os.NewFile(uintptr(fds[1]), "writer")
	}
	pipe := func(t *testing.T) (r, w *os.File) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		return r, w
	}
	for name, ends := range map[string]func(*testing.T) (r, w *os.File){"pipe": pipe, "socket": pair} {
		for _, daemon := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, daemon %v", name, daemon), func(t *testing.T) {
				h := startNotifyHub(t)
				r, w := ends(t)
				cmd := exec.Command(testenv.Binary(t, "notify-cat"), "--raw", h.socket)
				cmd.Stdout = w
				if !daemon {
					h.Close()
					cmd.Args[2] = filepath.Join(h.dir, "none")
				}
				p := testenv.Start(t, cmd)
				w.Close()
				if daemon {
					h.heard(t)
				} else {
					p.WaitOutput("waiting for none")
				}
				before := p.Output()
				r.Close()
				if status := p.Wait(); status != 128+int(syscall.SIGPIPE) || p.Output() != before {
					t.Errorf("status %d, %q", status, p.Output())
				}
			})
		}
	}
	// Where there is no reader to go away it stays.
	h := startNotifyHub(t)
	file, err := os.Create(filepath.Join(h.dir, "file"))
	null, err2 := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	for _, out := range []*os.File{file, null} {
		cmd := exec.Command(testenv.Binary(t, "notify-cat"), "-n", "1", h.socket)
		cmd.Stdout = out
		before := h.Stats().Subscriptions
		p := testenv.Start(t, cmd)
		testenv.Eventually(t, "a listener", func() bool { return h.Stats().Subscriptions > before })
		h.Publish(notify.Message{Letter: 'Z'})
		if status := p.Wait(); status != 0 {
			t.Errorf("%s: status %d", out.Name(), status)
		}
	}
}
