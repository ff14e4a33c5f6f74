package main

import "golang.org/x/sys/unix"

// waitUnread returns when nobody reads what is written to the descriptor of a pipe, socket or terminal any more. Of
// anything else it never returns.
func waitUnread(fd int) {
	for {
		p := []unix.PollFd{{Fd: int32(fd)}}
		if _, err := unix.Poll(p, -1); err != nil && err != unix.EINTR {
			select {} // then the next write shows it
		}
		if p[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0 {
			return
		}
	}
}
