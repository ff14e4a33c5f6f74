package process

import (
	"fmt"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"postern/internal/evloop"
	"postern/multiplexor/pool"
)

// Starter starts processes on a goroutine of its own: fork and exec take their
// time and may block.
type Starter struct {
	loop    *evloop.Loop
	program *Program
	todo    chan func()
	done    chan struct{}
}

// NewStarter makes a starter for at most max starts at a time.
func NewStarter(l *evloop.Loop, pr *Program, max int) *Starter {
	s := &Starter{loop: l, program: pr, todo: make(chan func(), max), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		startBatch()
		for f := range s.todo {
			f()
		}
	}()
	return s
}

// Close waits for the starts under way.
func (s *Starter) Close() {
	close(s.todo)
	<-s.done
}

// Start implements pool.Processes.Start. The room in todo is one place for each
// worker, so this does not block.
func (s *Starter) Start(o pool.Owner, _ bool, done func(pool.Process, error)) {
	s.todo <- func() {
		c, err := s.fork()
		s.loop.Post(func() {
			if err == nil {
				err = c.adopt(s.loop, o)
			}
			if err != nil {
				done(nil, err)
				return
			}
			done(c, nil)
		})
	}
}

// pipes are the ends of a new worker's pipes: ours, which are non-blocking, and
// the worker's.
type pipes struct {
	ours, theirs [4]int
	n            int
}

// makePipes makes standard input, output, error and, if asked for, the status pipe.
func makePipes(status bool) (*pipes, error) {
	p := &pipes{}
	want := 3
	if status {
		want = 4
	}
	for ; p.n < want; p.n++ {
		var fd [2]int
		if err := syscall.Pipe2(fd[:], syscall.O_CLOEXEC); err != nil {
			p.close()
			return nil, fmt.Errorf("pipe failed: %w", err)
		}
		if p.n == 0 {
			p.theirs[0], p.ours[0] = fd[0], fd[1]
		} else {
			p.ours[p.n], p.theirs[p.n] = fd[0], fd[1]
		}
		if err := syscall.SetNonblock(p.ours[p.n], true); err != nil {
			p.n++
			p.close()
			return nil, fmt.Errorf("pipe failed: %w", err)
		}
	}
	return p, nil
}

func (p *pipes) close() {
	p.closeTheirs()
	for _, fd := range p.ours[:p.n] {
		_ = syscall.Close(fd)
	}
}

func (p *pipes) closeTheirs() {
	for _, fd := range p.theirs[:p.n] {
		_ = syscall.Close(fd)
	}
}

// fork starts a worker process.
func (s *Starter) fork() (*child, error) {
	pr := s.program
	p, err := makePipes(pr.StatusPipe)
	if err != nil {
		return nil, err
	}
	files := make([]uintptr, p.n)
	for i := range files {
		files[i] = uintptr(p.theirs[i])
	}
	pidfd := -1
	argv := append([]string{filepath.Base(pr.Path)}, pr.args("-server")...)
	pid, err := syscall.ForkExec(pr.Path, argv, &syscall.ProcAttr{
		Env: pr.Env, Files: files,
		// A group of its own, so that what a filter starts can be ended with it.
		Sys: &syscall.SysProcAttr{Setpgid: true, PidFD: &pidfd},
	})
	if err != nil {
		p.close()
		return nil, fmt.Errorf("run %s: %w", pr.Path, err)
	}
	p.closeTheirs()
	c := &child{pid: pid, pidfd: pidfd, parent: true, pipes: p}
	if pidfd < 0 {
		if c.pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			_, _ = syscall.Wait4(pid, nil, 0, nil)
			p.close()
			return nil, fmt.Errorf("watch process %d: %w", pid, err)
		}
	}
	if err := pr.limit(pid); err != nil {
		c.Kill()
		return c, nil // it ends at once, and is seen to
	}
	return c, nil
}
