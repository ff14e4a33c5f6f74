package process

import (
	"syscall"

	"golang.org/x/sys/unix"

	"postern/internal/procstat"
	"postern/multiplexor/pool"
)

func exitOf(ws syscall.WaitStatus, ru *syscall.Rusage) pool.Exit {
	if ws.Signaled() {
		return pool.Exit{Signal: ws.Signal(), Name: unix.SignalName(ws.Signal()), Rusage: ru}
	}
	return pool.Exit{Status: ws.ExitStatus(), Rusage: ru}
}

// exitOfZombie is exitOf for a process that another one waits for.
func exitOfZombie(st procstat.Stat) pool.Exit {
	ru := &syscall.Rusage{Utime: syscall.NsecToTimeval(int64(st.User)), Stime: syscall.NsecToTimeval(int64(st.System))}
	setCount(&ru.Minflt, st.MinorFaults)
	setCount(&ru.Majflt, st.MajorFaults)
	return exitOf(st.Status, ru)
}

// setCount sets a count that has as many bits as the machine's words.
func setCount[T int32 | int64](to *T, n int64) { *to = T(n) }
