package main

import (
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What is written to take over the screen and to give it back: the second screen
// that terminals have, no cursor, no wrapping of long lines.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l"
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	cursorHome  = "\x1b[H"
	clearLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
	reverse     = "\x1b[7m"
	plain       = "\x1b[m"
)

// terminal is the screen that top draws on and the keyboard of the same
// terminal. Without a keyboard (no controlling terminal) keys is nil.
type terminal struct {
	out   *os.File
	keys  *os.File
	saved *unix.Termios // how the keyboard was; nil while it is so
}

// openTerminal prepares for a screen. The keyboard is opened anew, so that reading
// it can be broken off, and so that standard input may be anything.
func openTerminal(out *os.File) *terminal {
	t := &terminal{out: out}
	if keys, err := os.OpenFile("/dev/tty", os.O_RDWR, 0); err == nil {
		t.keys = keys
	}
	return t
}

// enter takes the screen, and lets keys be read one by one and unseen. Ctrl-C and
// Ctrl-Z go on being signals. It may be called again after a stop.
func (t *terminal) enter() error {
	if err := t.rawKeys(); err != nil {
		return err
	}
	_, err := io.WriteString(t.out, enterScreen)
	return err
}

// leave gives everything back as it was before enter.
func (t *terminal) leave() {
	io.WriteString(t.out, leaveScreen)
	if t.saved != nil {
		t.control(func(fd int) error { return unix.IoctlSetTermios(fd, setTerminalFlushed, t.saved) })
		t.saved = nil
	}
}

func (t *terminal) rawKeys() error {
	if t.keys == nil {
		return nil
	}
	return t.control(func(fd int) error {
		now, err := unix.IoctlGetTermios(fd, getTerminal)
		if err != nil {
			return err
		}
		if t.saved == nil {
			was := *now
			t.saved = &was
		}
		now.Lflag &^= unix.ICANON | unix.ECHO
		now.Cc[unix.VMIN], now.Cc[unix.VTIME] = 1, 0
		return unix.IoctlSetTermios(fd, setTerminal, now)
	})
}

// control calls f with the keyboard's descriptor. Unlike Fd it leaves the
// descriptor non-blocking.
func (t *terminal) control(f func(fd int) error) error {
	raw, err := t.keys.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// size returns the columns and rows of the screen, 80 and 24 where it does not say.
func (t *terminal) size() (columns, rows int) {
	ws, err := unix.IoctlGetWinsize(int(t.out.Fd()), unix.TIOCGWINSZ)
	if err != nil || ws.Col == 0 || ws.Row == 0 {
		return 80, 24
	}
	return int(ws.Col), int(ws.Row)
}

// draw puts at most rows lines on the screen, in one write. A line is cleared
// before it is written: afterwards the cursor may still stand on its last column.
func (t *terminal) draw(lines []line, rows int) error {
	var b strings.Builder
	b.WriteString(cursorHome)
	for i, l := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(clearLine)
		if l.heading {
			b.WriteString(reverse + l.text + plain)
		} else {
			b.WriteString(l.text)
		}
	}
	if len(lines) < rows {
		b.WriteString("\r\n" + clearBelow)
	}
	_, err := io.WriteString(t.out, b.String())
	return err
}

// stopKeys breaks off a read of the keyboard.
func (t *terminal) stopKeys() {
	if t.keys != nil {
		t.keys.SetReadDeadline(time.Unix(1, 0))
	}
}

func isTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, getTerminal)
	return err == nil
}

// canStop reports whether a shell is there that can end a stop. The kernel's rule is
// that a process group without one, an orphaned one, does not stop at SIGTSTP; so
// are the group of the session's leader, and a child of another session.
func canStop() bool {
	session, err := unix.Getsid(0)
	if err != nil {
		return false
	}
	above, err := unix.Getsid(os.Getppid())
	return err == nil && above == session && unix.Getpgrp() != session
}
