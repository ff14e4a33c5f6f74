package privdrop

import (
	"errors"
	"fmt"
	"syscall"
)

// Meanwhile runs f while the process, all its threads, has the effective ids and the groups of the account, and makes it root
// again. It is for what the account must be able to do before Drop, such as taking its lock. Not for use beside other work.
func Meanwhile(a Account, f func() error) (err error) {
	old, err := syscall.Getgroups()
	if err != nil {
		return fmt.Errorf("groups: %w", err)
	}
	gid := syscall.Getegid()
	defer func() {
		if back := errors.Join(syscall.Seteuid(0), syscall.Setegid(gid), syscall.Setgroups(old)); back != nil {
			err = errors.Join(err, fmt.Errorf("become root again: %w", back))
		}
	}()
	if err := errors.Join(syscall.Setgroups(a.Groups), syscall.Setegid(a.GID), syscall.Seteuid(a.UID)); err != nil {
		return fmt.Errorf("become %s: %w", a, err)
	}
	return f()
}
