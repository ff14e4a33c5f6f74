package statfile

import (
	"time"

	"golang.org/x/sys/unix"

	"postern/internal/procstat"
)

// startOf returns when a process was started, to 10 ms and rather too early: proc_pid_stat(5).
func startOf(pid int) (time.Time, bool) {
	st, err := procstat.Read(pid)
	if err != nil {
		return time.Time{}, false
	}
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return time.Time{}, false
	}
	return time.Now().Add(st.Start - time.Duration(up.Nano())), true
}
