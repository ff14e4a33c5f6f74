package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"postern/internal/listen"
	"postern/internal/pidfile"
)

// A take-over replaces the process without a moment in which nobody accepts: at SIGUSR2 the program is started anew, as
// a child that gets the listeners and the pid file. Once that is ready it is made the main process of the service
// manager, and this one accepts nobody any more and ends when its sessions have.
//
// The child has a socket to this process. It writes a byte when it is ready, and waits for one, which says that this
// process has made way. What both have is this one's until then: the child touches neither the pid file nor the sockets'
// names.

// takeoverVar says to a process that it takes over: from which process, the descriptor of the socket, and the descriptor
// and the path of the pid file; -1 and nothing without one.
const takeoverVar = "POSTERN_TAKE_OVER"

// takeoverWait bounds how long the new process may take to be ready.
const takeoverWait = time.Minute

// predecessor is the process that is taken over from.
type predecessor struct {
	conn    *os.File
	pid     *os.File // of its pid file; nil if there is none
	path    string   // of that
	madeWay bool
	again   bool // it wants us to be replaced in our turn
}

// newPredecessor returns nil for a process that takes nothing over. The variable is taken out of the environment.
func newPredecessor() (*predecessor, error) {
	text := os.Getenv(takeoverVar)
	os.Unsetenv(takeoverVar)
	if text == "" {
		return nil, nil
	}
	var parent, conn, pid int
	if _, err := fmt.Sscanf(text, "%d %d %d ", &parent, &conn, &pid); err != nil {
		return nil, fmt.Errorf("%s=%q: %w", takeoverVar, text, err)
	}
	if parent != os.Getppid() {
		return nil, errors.New("take-over: the process before has ended")
	}
	p := &predecessor{conn: passedFile(conn, "predecessor")}
	if pid >= 0 {
		p.pid, p.path = passedFile(pid, "pid file"), strings.SplitN(text, " ", 4)[3]
	}
	return p, listen.Mine()
}

// passedFile makes a file of a descriptor that is not for our children.
func passedFile(fd int, name string) *os.File {
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name)
}

// relieve tells the predecessor, if there is one, that we are ready, and waits until it has made way. If it has ended
// instead, it was to end, and so are we.
func (l *instance) relieve() {
	p := l.predecessor
	if p == nil {
		return
	}
	one := make([]byte, 1)
	_, _ = p.conn.Write(one)
	n, _ := p.conn.Read(one)
	_ = p.conn.Close()
	if n == 0 {
		l.env.Log.Error("take-over: the process before has ended")
		_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
		return
	}
	p.madeWay, p.again = true, one[0] != 0
	if p.pid == nil {
		return
	}
	if err := l.pidfile.Take(); err != nil {
		l.env.Log.Error("pid file", "error", err)
	}
}

// isHeir reports whether what we have is still that of the process before.
func (l *instance) isHeir() bool { return l.predecessor != nil && !l.predecessor.madeWay }

// openPidfile writes the pid file, or has that of the predecessor.
func (l *instance) openPidfile() (err error) {
	switch p := l.predecessor; {
	case p != nil && p.pid != nil:
		l.pidfile, err = pidfile.Adopt(p.path, p.pid, l.common.Accounts()...)
	case l.common.Pidfile != "":
		l.pidfile, err = pidfile.Write(l.common.Pidfile, l.common.Accounts()...)
	}
	return err
}

// successor is the process that takes over.
type successor struct {
	process *os.Process
	conn    *os.File
	again   bool // it is to be replaced as soon as it has taken over
}

// startSuccessor starts the program anew.
func (l *instance) startSuccessor() (*successor, error) {
	if os.Getpid() == 1 {
		return nil, errors.New("the end of process 1 would end the new one, too")
	}
	h, err := l.env.Listeners.Handover()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(pair[1])
	files := []uintptr{0, 1, 2}
	for _, fd := range append(slices.Clone(h.FDs), pair[1]) {
		files = append(files, uintptr(fd))
	}
	conn, pid, path := len(files)-1, -1, ""
	if l.pidfile != nil {
		files, pid, path = append(files, uintptr(l.pidfile.Descriptor())), len(files), l.pidfile.Path()
	}
	env := append(os.Environ(), h.Env()...)
	env = append(env, fmt.Sprintf("%s=%d %d %d %s", takeoverVar, os.Getpid(), conn, pid, path))
	child, err := syscall.ForkExec(l.path, append([]string{os.Args[0]}, l.args...),
		&syscall.ProcAttr{Env: append(env, l.notifier.env()...), Files: files})
	if err != nil {
		_ = unix.Close(pair[0])
		return nil, &os.PathError{Op: "start", Path: l.path, Err: err}
	}
	s := &successor{conn: os.NewFile(uintptr(pair[0]), "successor")}
	s.process, err = os.FindProcess(child)
	return s, err
}

// wait returns when the process is ready, or why it is not; it has ended then.
func (s *successor) wait() error {
	timer := time.AfterFunc(takeoverWait, func() { _ = s.process.Kill() })
	n, _ := s.conn.Read(make([]byte, 1))
	if timer.Stop() && n == 1 {
		return nil
	}
	_ = s.process.Kill()
	state, err := s.process.Wait()
	if err == nil {
		err = errors.New(state.String())
	}
	return fmt.Errorf("the new process has ended before it was ready: %w", err)
}

// takeOver starts the process that is to take over. One that is starting, or has taken over, is replaced in its turn.
func (s *serving) takeOver() {
	switch {
	case s.heir != nil:
		s.passOn(syscall.SIGUSR2)
		return
	case s.next != nil:
		s.next.again = true
		return
	case s.state.n.Load() == starting:
		s.early = true
		return
	case s.state.n.Load() == draining:
		s.noTakeOver(errors.New("about to end"))
		return
	}
	next, err := s.startSuccessor()
	if err != nil {
		s.noTakeOver(err)
		return
	}
	s.env.Log.Info("another process is to take over", "pid", next.process.Pid)
	s.next = next
	go func() { s.started <- next.wait() }()
}

// passOn gives a signal to the process that has taken over: whoever sent it meant the one that serves.
func (s *serving) passOn(sig os.Signal) {
	if err := s.heir.Signal(sig); err != nil {
		s.env.Log.Warn("signal for the process that had taken over", "signal", sig.String(), "error", err)
	}
}

// takenOver has this process end with its sessions, if the other one is ready; an error leaves all as it was.
func (s *serving) takenOver(err error) {
	next := s.next
	s.next = nil
	defer func() { _ = next.conn.Close() }()
	if err == nil && s.signaled {
		err = errors.New("about to end")
	}
	if err != nil {
		s.noTakeOver(err)
		return
	}
	s.heir = next.process
	s.notifier.MainPID(next.process.Pid)
	s.notifier.Close()
	if s.pidfile != nil {
		s.pidfile.Leave()
		s.pidfile = nil
	}
	s.wane()
	if err := s.env.Listeners.Release(); err != nil {
		s.env.Log.Warn("close listeners", "error", err)
	}
	word := []byte{0}
	if next.again {
		word[0] = 1
	}
	_, _ = next.conn.Write(word)
	s.tell(reloadReplaced + strconv.Itoa(next.process.Pid))
	s.env.Log.Info("another process has taken over; sessions go on until they end", "pid", next.process.Pid)
	go func() {
		if state, err := next.process.Wait(); err == nil && !state.Success() { // else another one has taken over from it
			s.env.Log.Error("the process that had taken over has ended, and so does this one", "pid", next.process.Pid, "state", state.String())
			s.cancel(nil) // for the service manager to start another
		}
	}()
	go func() {
		s.whileSessions(s.ctx)
		s.cancel(nil)
	}()
}

// noTakeOver says why all stays as it was.
func (s *serving) noTakeOver(err error) {
	s.env.Log.Error("no take-over", "error", err)
	s.tell(fmt.Sprintf("%sno take-over: %v", reloadFailed, err))
}

// lastGrace is what is left of drain-timeout for sessions that are told to end; half of one that is not twice as long.
const lastGrace = 5 * time.Second

// whileSessions returns when there are no sessions any more, or drain-timeout is nearly over, or ctx ends.
func (l *instance) whileSessions(ctx context.Context) {
	if l.program.Sessions == nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if limit := l.common.DrainTimeout; limit > 0 {
		ctx, cancel = context.WithTimeout(ctx, limit-min(lastGrace, limit/2))
		defer cancel()
	}
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-look.C: // before the first look, too: what was accepted just now is no session yet
		case <-ctx.Done():
			return
		}
		if l.program.Sessions() == 0 {
			return
		}
	}
}

// ownPath returns the path of the program, by which an upgrade is found: links are not followed.
func ownPath() string {
	path, err := exec.LookPath(os.Args[0])
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		path, _ = os.Executable()
	}
	return path
}
