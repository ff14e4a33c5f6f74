package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

// answerWithin is how long top waits for a reply unless --timeout says: it asks
// only what a multiplexor answers at once.
const answerWithin = 10 * time.Second

// runTop shows the workers: live on a terminal, once as plain text elsewhere.
func runTop(s *settings, c client, std stdio) int {
	if c.timeout == 0 {
		c.timeout = answerWithin
	}
	if s.JSON {
		return runJSON(c, std)
	}
	c.maxUsages = viewUsages
	first, err := c.take(context.Background())
	if err != nil {
		io.WriteString(std.err, errorLine(err))
		return exitError
	}
	v := view{socket: s.spec.String(), current: first, now: first.at}
	out, ok := std.out.(*os.File)
	if !ok || !isTerminal(int(out.Fd())) {
		return v.once(std.out)
	}
	l := &live{view: v, client: c, interval: s.Interval, terminal: openTerminal(out)}
	status, err := l.run()
	if err != nil {
		fmt.Fprintf(std.err, "%s: error: %v\n", ownName, err)
	}
	return status
}

// once writes the view as plain text.
func (v *view) once(out io.Writer) int {
	var b strings.Builder
	for _, l := range v.lines(0, 0) {
		b.WriteString(l.text + "\n")
	}
	if _, err := io.WriteString(out, b.String()); err != nil {
		return exitError
	}
	return exitOK
}

// live is the view on a terminal. Everything but asking and reading keys happens
// in the goroutine of run.
type live struct {
	view
	client
	interval time.Duration
	terminal *terminal

	asking  bool
	taken   chan taken
	keys    chan byte
	signals chan os.Signal
	stopped bool // by Ctrl-Z, until SIGCONT: the terminal is somebody else's
}

// taken is the result of asking for a snapshot.
type taken struct {
	snapshot *snapshot
	err      error
}

// run draws until q is pressed (status 0) or a signal ends it (128 and its
// number). The terminal is given back in every case.
func (l *live) run() (status int, err error) {
	l.signals = make(chan os.Signal, 8)
	signal.Notify(l.signals, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGTSTP, syscall.SIGCONT, syscall.SIGWINCH)
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGHUP} {
		if !signal.Ignored(sig) { // as nohup(1) has it
			signal.Notify(l.signals, sig)
		}
	}
	defer signal.Stop(l.signals)
	defer l.terminal.leave()
	if err := l.terminal.enter(); err != nil {
		return exitError, fmt.Errorf("prepare the terminal: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	l.taken, l.keys = make(chan taken, 1), make(chan byte)
	wait.Go(func() { l.readKeys(ctx) })
	defer wait.Wait()
	defer l.terminal.stopKeys()
	defer cancel()

	ticks := time.NewTicker(l.interval)
	defer ticks.Stop()
	for {
		if err := l.draw(); err != nil {
			return exitError, fmt.Errorf("write to the terminal: %w", err)
		}
		select {
		case <-ticks.C:
			l.ask(ctx, &wait)
		case t := <-l.taken:
			l.take(t)
		case key := <-l.keys:
			switch key {
			case 'q', 'Q':
				return exitOK, nil
			case ' ':
				l.paused = !l.paused
				l.ask(ctx, &wait)
			}
		case sig := <-l.signals:
			if status, err := l.signal(sig); status != exitOK {
				return status, err
			}
		}
	}
}

// signal does what a signal asks for: to end, with the status it gives, to stop
// until SIGCONT, or to draw again.
func (l *live) signal(sig os.Signal) (status int, err error) {
	switch sig {
	case syscall.SIGTSTP:
		if !canStop() {
			break
		}
		l.terminal.leave()
		l.stopped = true
		// SIGTSTP itself would not do: once Go has caught it, it stays caught.
		if err := syscall.Kill(os.Getpid(), syscall.SIGSTOP); err != nil {
			return exitError, fmt.Errorf("stop: %w", err)
		}
	case syscall.SIGCONT:
		// Whoever had the terminal meanwhile may have changed it.
		l.stopped = false
		if err := l.terminal.enter(); err != nil {
			return exitError, fmt.Errorf("prepare the terminal: %w", err)
		}
	case syscall.SIGWINCH:
	default:
		n, _ := sig.(syscall.Signal) // the only kind there is
		return 128 + int(n), nil
	}
	return exitOK, nil
}

func (l *live) draw() error {
	if l.stopped {
		return nil
	}
	l.now = time.Now()
	columns, rows := l.terminal.size()
	return l.terminal.draw(l.lines(columns, rows), rows)
}

// ask begins to ask for a snapshot, unless paused or still asking for the last.
func (l *live) ask(ctx context.Context, wait *sync.WaitGroup) {
	if l.paused || l.asking {
		return
	}
	l.asking = true
	wait.Go(func() {
		s, err := l.client.take(ctx)
		l.taken <- taken{s, err}
	})
}

// take shows what was asked for, unless the view was paused meanwhile.
func (l *live) take(t taken) {
	l.asking = false
	switch {
	case l.paused:
	case t.err != nil:
		l.failure = t.err
	default:
		l.current, l.failure = t.snapshot, nil
	}
}

// readKeys passes on each key until ctx ends and the keyboard is closed.
func (l *live) readKeys(ctx context.Context) {
	if l.terminal.keys == nil {
		return
	}
	buf := make([]byte, 16)
	for {
		n, err := l.terminal.keys.Read(buf)
		if err != nil {
			return
		}
		for _, key := range buf[:n] {
			select {
			case l.keys <- key:
			case <-ctx.Done():
				return
			}
		}
	}
}
