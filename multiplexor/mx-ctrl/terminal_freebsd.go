package main

import "golang.org/x/sys/unix"

// Of tty(4).
const (
	getTerminal        = unix.TIOCGETA
	setTerminal        = unix.TIOCSETA
	setTerminalFlushed = unix.TIOCSETAF
)
