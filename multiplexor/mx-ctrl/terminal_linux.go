package main

import "golang.org/x/sys/unix"

// Of ioctl_tty(2).
const (
	getTerminal        = unix.TCGETS
	setTerminal        = unix.TCSETS
	setTerminalFlushed = unix.TCSETSF
)
