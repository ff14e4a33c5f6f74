package upstream

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// socketPair gives the two ends of a pair of UNIX stream sockets: ours with deadlines and all, the other one
// as a file.
func socketPair() (net.Conn, *os.File, error) {
	syscall.ForkLock.RLock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "socketpair"), os.NewFile(uintptr(fds[1]), "socketpair")
	nc, err := net.FileConn(ours) // of a descriptor of its own
	_ = ours.Close()
	if err != nil {
		_ = theirs.Close()
		return nil, nil, err
	}
	return nc, theirs, nil
}

// program is a server that runs as our child and speaks SMTP on its standard input and output.
type program struct {
	net.Conn
	cmd   *exec.Cmd
	grace time.Duration
	once  sync.Once
	done  chan struct{}
}

// graceTime is how long a program may take to end after its input has ended.
const graceTime = 10 * time.Second

// startProgram starts a program in a process group of its own. What it writes to its standard error goes to
// the log, line by line.
func startProgram(e endpoint, log *slog.Logger) (*stream, error) {
	nc, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cmd := exec.Command(e.argv[0], e.argv[1:]...)
	cmd.Stdin, cmd.Stdout = theirs, theirs
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	said, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		_ = nc.Close()
		return nil, fmt.Errorf("start %s: %w", e.argv[0], err)
	}
	p := &program{Conn: nc, cmd: cmd, grace: graceTime, done: make(chan struct{})}
	log = log.With("program", e.argv[0], "pid", cmd.Process.Pid)
	go p.relay(said, log)
	go p.wait(log)
	return newStream(p), nil
}

// SyscallConn gives access to the socket.
func (p *program) SyscallConn() (syscall.RawConn, error) {
	return p.Conn.(syscall.Conn).SyscallConn()
}

// relay logs what the program, and what it leaves behind, says.
func (p *program) relay(said io.ReadCloser, log *slog.Logger) {
	defer said.Close()
	lines := bufio.NewReaderSize(said, 1024)
	for {
		line, err := lines.ReadSlice('\n')
		if len(line) > 0 {
			log.Warn("server program says", "text", fmt.Sprintf("%q", line))
		}
		if err != nil && err != bufio.ErrBufferFull {
			return
		}
	}
}

// wait takes note of the end of the program at once, whoever still has its standard error.
func (p *program) wait(log *slog.Logger) {
	defer close(p.done)
	switch state, err := p.cmd.Process.Wait(); {
	case err != nil:
		log.Warn("server program ended", "error", err)
	case !state.Success():
		log.Warn("server program ended", "error", state)
	}
}

// Close ends the input of the program. One that does not end by itself is killed.
func (p *program) Close() error {
	err := p.Conn.Close()
	p.once.Do(func() {
		timer := time.AfterFunc(p.grace, func() {
			select {
			case <-p.done:
			default:
				_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
			}
		})
		go func() {
			<-p.done
			timer.Stop()
		}()
	})
	return err
}
