package privdrop

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Protect keeps what is in the memory of this process from all but root: processes of
// the same account can neither read it nor trace the process, and no core is written.
// That there is no core holds for its children, too; the rest ends with exec(2), and
// with a change of ids, after which Protect is called again.
func Protect() error {
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("set core size: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil { // of the whole process
		return fmt.Errorf("protect the memory of the process: %w", err)
	}
	return nil
}

// NoNewPrivileges keeps this process and all it starts from gaining rights by programs
// that are set-uid, set-gid or have capabilities. It cannot be undone.
func NoNewPrivileges() error {
	// prctl(2) changes the calling thread alone. A program that is linked with C, which
	// ours are for tests only, cannot change its other threads.
	_, _, errno := syscall.AllThreadsSyscall(syscall.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0)
	if errno != 0 && !errors.Is(errno, syscall.ENOTSUP) {
		return fmt.Errorf("give up new privileges: %w", errno)
	}
	return nil
}
